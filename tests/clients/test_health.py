"""Health checks survive whatever happens to one of them, run side by side, and ask for the client's own models."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import grpc
import pytest
from both_clients import KINDS, X, drive, until
from complete_server import complete_server
from plain_server import PlainServer

from clients import AsyncClient, Client

QUICK = {"probe_every_s": 0.02, "probe_timeout_s": 1.0}


@pytest.fixture
def pair():
    with PlainServer() as first, PlainServer() as second:
        yield first, second


def addresses(servers):
    return [server.address for server in servers]


@KINDS
@pytest.mark.parametrize("failure", [RuntimeError("no token"), ValueError("no token"), StopIteration()])
def test_headers_that_fail_do_not_end_the_health_checks(pair, kind, failure):
    failing, failures = threading.Event(), []

    def headers():
        if failing.is_set():
            failures.append(1)
            raise failure
        return {"authorization": "Bearer t"}

    def steps(rotation, ask, mark):
        failing.set()
        until(lambda: len(failures) >= 4)  # of both servers, and again
        mark(rotation.servers[0], up=False)
        until(lambda: rotation.servers[0].up)
        failing.clear()
        mark(rotation.servers[0], up=False)
        until(lambda: rotation.servers[0].up)

    drive(kind, addresses(pair), steps, headers=headers, **QUICK)


@KINDS
def test_a_check_that_hangs_delays_no_other(pair, kind):
    """Whatever it hangs in: here the sending itself, for as long as the others need for ten checks."""
    asked, over = [], threading.Event()

    class Slow(kind):
        async def send(self, server, method, *request):
            if method == "ServerReady":
                asked.append(server.address)
                if server.address == pair[0].address:
                    while not over.is_set():
                        await self.pause(0.01)
            return await super().send(server, method, *request)

    def steps(rotation, ask, mark):
        until(lambda: asked.count(pair[1].address) >= 10)
        assert asked.count(pair[0].address) == 1
        over.set()

    drive(Slow, addresses(pair), steps, **QUICK)


@KINDS
def test_a_server_whose_model_is_not_ready_is_passed_over(pair, kind):
    """It is ready itself, as Triton is whose python model has crashed or says `is_ready()` is false."""
    first, _ = pair

    def steps(rotation, ask, mark):
        first.model_ready = False
        until(lambda: rotation.servers[0].unready == {"m"})
        before = first.answered
        for _ in range(6):
            ask()
        assert (first.answered, rotation.servers[0].up) == (before, True)
        first.model_ready = True
        until(lambda: not rotation.servers[0].unready)
        for _ in range(6):
            ask()
        assert first.answered == before + 3

    drive(kind, addresses(pair), steps, **QUICK)


@KINDS
def test_where_the_model_is_ready_nowhere_the_servers_are_asked(pair, kind):
    def steps(rotation, ask, mark):
        for server in pair:
            server.model_ready = False
        until(lambda: all(server.unready for server in rotation.servers))
        for _ in range(4):
            ask()
        assert [server.answered for server in pair] == [2, 2]

    drive(kind, addresses(pair), steps, **QUICK)


def test_a_call_that_is_about_to_begin_survives_the_exchange_of_its_channel(pair):
    """Between the choice of a channel and the call, another thread gives the server up."""
    with Client(addresses(pair), probe_every_s=1e6) as client:
        model = client.model("m")
        server = client.rotation().servers[0]
        infer = server.link.infer

        def late(*request, **options):
            client.run(client.cancel_in_flight(server))
            return infer(*request, **options)

        server.link = dataclasses.replace(server.link, infer=late)
        for _ in range(2):
            assert model(x=X)["x"].tolist() == X.tolist()
        assert client.budget.spent == 1


@KINDS
def test_requests_of_a_server_that_is_given_up_go_to_another(pair, kind):
    first, second = pair

    async def give_up(client):
        server = client.rotation().servers[0]
        client.rotation().mark(server, up=False)
        await client.cancel_in_flight(server)

    async def with_asyncio():
        async with AsyncClient(addresses(pair), probe_every_s=1e6) as client:
            model = await client.model("m")
            asked = [asyncio.create_task(model(x=X)) for _ in range(8)]
            await asyncio.to_thread(until, lambda: first.answered == 4)
            await give_up(client)
            return [(await answer)["x"].tolist() for answer in asked]

    first.hold.clear()
    try:
        if kind is AsyncClient:
            answers = asyncio.run(with_asyncio())
        else:
            answers = []
            with Client(addresses(pair), probe_every_s=1e6) as client:
                model = client.model("m")
                threads = [threading.Thread(target=lambda: answers.append(model(x=X)["x"].tolist())) for _ in range(8)]
                for thread in threads:
                    thread.start()
                until(lambda: first.answered == 4)
                client.run(give_up(client))
                for thread in threads:
                    thread.join(20)
    finally:
        first.hold.set()
    assert answers == [X.tolist()] * 8
    assert second.answered == 8


REFUSALS = ["UNIMPLEMENTED", "PERMISSION_DENIED", "UNAUTHENTICATED"]


@KINDS
@pytest.mark.parametrize("status", REFUSALS)
def test_without_its_configuration_a_model_is_known_by_its_metadata(kind, status):
    def steps(rotation, ask, mark):
        assert ask()["x"].tolist() == X.tolist()

    with PlainServer(refusing=grpc.StatusCode[status]) as server:
        drive(kind, server.address, steps)


@pytest.mark.parametrize("without", ["ModelStatistics", "RepositoryIndex"])
@pytest.mark.parametrize("status", REFUSALS)
def test_the_models_of_a_server_without_one_of_the_two_calls_that_list_them(status, without):
    with PlainServer(without=(without,), refusing=grpc.StatusCode[status]) as server, Client(server.address) as client:
        assert client.models() == ["m"]


def test_without_its_configuration_behind_tritons_restriction(double_repository):
    extra = ("--grpc-restricted-protocol=model-config:key=s3cret",)
    with complete_server(double_repository, extra=extra) as server, Client(server.grpc_url) as client:
        assert client.model("double")(x=[[1, 2]])["y"].tolist() == [[2, 4]]


@pytest.mark.parametrize("name", ["probe_every_s", "probe_timeout_s", "resolve_every_s"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), "1"])
def test_an_interval_of_no_seconds_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        Client("127.0.0.1:9", **{name: value})
