"""Several servers: none of their deaths, hangs or returns is seen by the caller."""

import asyncio
import contextlib
import os
import signal
import threading
import time

import faults
import psutil
import pytest
from tritonclient.grpc import service_pb2

from clients import AsyncClient, Client, UnreachableError, health

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def pair(double_repository):
    with faults.Pair(double_repository) as pair:
        yield pair


@pytest.fixture
def quick_probes(monkeypatch):
    monkeypatch.setattr(health, "PROBE_EVERY_S", 0.2)
    monkeypatch.setattr(health, "PROBE_TIMEOUT_S", 0.5)


def executed(server):
    """How many requests a server has been asked for `double`."""
    with Client(server.grpc_url) as client:
        statistics = client.run(client.call("ModelStatistics", service_pb2.ModelStatisticsRequest(name="double")))
        return statistics.model_stats[0].inference_stats.success.count


def until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def shares(pair, double, requests):
    """How many of so many requests each server answered; Triton counts a request a moment after it has answered it."""
    before = [executed(server) for server in pair.servers]
    for _ in range(requests):
        double(x=[[1, 2]])

    def counts():
        return [executed(server) - then for server, then in zip(pair.servers, before, strict=True)]

    assert until(lambda: sum(counts()) == requests, 5), counts()
    return counts()


def test_requests_go_to_the_servers_in_turn(pair):
    with Client(pair.addresses) as client:
        assert shares(pair, client.model("double"), 20) == [10, 10]


def test_grpcs_own_round_robin_over_a_name(pair):
    with Client("ipv4:" + ",".join(pair.addresses)) as client:
        double = client.model("double")
        # gRPC asks only the servers it has connected to, and the first may answer before the second is there.
        assert until(lambda: min(shares(pair, double, 2)) >= 1, 20)
        assert min(shares(pair, double, 40)) >= 10


def test_an_address_without_a_server_costs_nothing_but_a_retry(pair):
    with Client(["127.0.0.1:9", pair.addresses[0]]) as client:
        double = client.model("double")
        assert all(double(x=[[n, 0]])["y"][0, 0] == 2 * n for n in range(20))
        assert client.budget.spent == 0  # a request that never left is no extra load


def test_no_request_is_lost_while_a_server_dies(pair, capsys):
    outcome = faults.ask_with_threads(pair, requests=500, in_flight=16, kills=1)
    with capsys.disabled():
        print(f"\n{outcome.text()}")
    assert (outcome.lost, outcome.duplicated, outcome.wrong, outcome.errors) == (0, 0, [], [])
    assert outcome.retried
    assert outcome.may_have_run_twice <= 100 + 0.1 * outcome.asked


@pytest.mark.slow
@pytest.mark.parametrize("ask", ["threads", "tasks"])
def test_no_request_of_20_000_is_lost_while_servers_die_in_turn(pair, capsys, ask):
    if ask == "threads":
        outcome = faults.ask_with_threads(pair, requests=20_000, in_flight=16)
    else:
        outcome = asyncio.run(faults.ask_with_tasks(pair, requests=20_000, in_flight=32))
    with capsys.disabled():
        print(f"\n{ask}: {outcome.text()}")
    assert (outcome.lost, outcome.duplicated, outcome.wrong, outcome.errors) == (0, 0, [], [])
    assert outcome.asked >= 20_000


def test_a_server_that_hangs_loses_no_request_and_is_used_again(pair, quick_probes):
    """Its kernel still takes connections, so only health checks without an answer tell."""
    with Client(pair.addresses) as client:
        double = client.model("double")
        wrong, done, numbers = [], threading.Event(), iter(range(10**9))

        def ask():
            while not done.is_set():
                number = next(numbers)
                answer = double(x=[[number, 0]])["y"][0, 0]
                if answer != 2 * number:
                    wrong.append(number)
                time.sleep(0.01)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        first = client.rotation().servers[0]
        stopped = pair.servers[0].pid
        for thread in threads:
            thread.start()
        try:
            os.kill(stopped, signal.SIGSTOP)
            assert until(lambda: not first.up and client.budget.spent > 0, 8)
            os.kill(stopped, signal.SIGCONT)
            assert until(lambda: pair.revive(0) or first.up, 8)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stopped, signal.SIGCONT)
            done.set()
            for thread in threads:
                thread.join(20)
        assert not wrong
        assert not any(thread.is_alive() for thread in threads)

        def is_used_again():
            pair.revive(0)
            with contextlib.suppress(UnreachableError):
                before = executed(pair.servers[0])
                for _ in range(10):
                    double(x=[[1, 2]])
                return executed(pair.servers[0]) - before >= 4

        assert until(is_used_again, 8)
    pair.restart(0)  # it may yet die of its hang


def test_a_hang_with_asyncio(pair, quick_probes):
    async def ask_through_a_hang():
        async with AsyncClient(pair.addresses) as client:
            double = await client.model("double")
            os.kill(stopped, signal.SIGSTOP)
            assert until(lambda: psutil.Process(stopped).status() == psutil.STATUS_STOPPED, 2)
            answers = await asyncio.gather(*(double(x=[[n, 0]]) for n in range(8)))
            return [answer["y"][0, 0] for answer in answers], client.budget.spent

    stopped = pair.servers[1].pid
    try:
        answers, spent = asyncio.run(ask_through_a_hang())
    finally:
        os.kill(stopped, signal.SIGCONT)
        pair.restart(1)  # it may yet die of its hang
    assert answers == [2 * n for n in range(8)]
    assert spent == 4


def test_a_returning_server_is_used_again_within_5_s(pair):
    """By its own connection in a list, and by gRPC's round robin over a name; by itself, it is waited for."""
    names = [pair.addresses, "ipv4:" + ",".join(pair.addresses), pair.addresses[1]]
    with Client(names[0]) as listed, Client(names[1]) as balanced, Client(names[2]) as lone:
        *models, waiting = [client.model("double") for client in (listed, balanced, lone)]
        pair.kill(1)
        for model in models:
            assert model(x=[[1, 2]])["y"].tolist() == [[2, 4]]
        restarting = threading.Thread(target=pair.restart, args=[1])
        restarting.start()
        assert waiting(x=[[1, 2]])["y"].tolist() == [[2, 4]]
        restarting.join()
        assert lone.budget.retried >= 1
        for model in models:
            before, start = executed(pair.servers[1]), time.monotonic()
            while executed(pair.servers[1]) == before and time.monotonic() - start < 5:
                model(x=[[1, 2]])
                time.sleep(0.05)
            assert executed(pair.servers[1]) > before


def test_a_server_that_drains_after_sigterm_loses_no_request(pair):
    """It still answers for a while, but that its models are gone. The last test of the pair: it stays away."""
    with Client(pair.addresses) as client:
        double, errors, done = client.model("double"), [], threading.Event()

        def ask():
            while not done.is_set():
                try:
                    double(x=[[1, 2]])
                except Exception as error:
                    errors.append(error)
                time.sleep(0.003)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        os.kill(pair.servers[0].pid, signal.SIGTERM)
        assert until(lambda: not pair.servers[0].is_alive(), 10)
        time.sleep(0.2)
        done.set()
        for thread in threads:
            thread.join()
    assert not errors


def test_a_server_that_never_answered_is_not_waited_for():
    start = time.monotonic()
    with Client("127.0.0.1:9") as nobody, pytest.raises(UnreachableError):
        nobody.models()
    assert time.monotonic() - start < 5
