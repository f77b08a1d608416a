"""Decoupled models answer as often as they like; stateful ones see the requests of a sequence in order."""

import asyncio
import contextlib
import itertools
import math
import signal

import pytest

from clients import AsyncClient, Client, DeadlineExceededError, InvalidInputError, ServerError, UnreachableError


@pytest.fixture(scope="module")
def client(python_server):
    with Client(python_server.grpc_url) as client:
        yield client


def numbers(parts):
    return [int(part["number"][0]) for part in parts]


def test_every_part_of_a_stream(client):
    counter = client.model("counter")
    assert numbers(counter.stream(count=[5], pause_s=[0.0])) == [0, 1, 2, 3, 4]
    assert numbers(counter.stream(count=[0], pause_s=[0.0])) == []


def test_parts_come_as_soon_as_they_are_there(client):
    for part in client.model("counter").stream(count=[90], pause_s=[0.1], timeout_s=5):  # 9 s in all
        assert part["number"].tolist() == [0]
        break


def leave_by_break(parts):
    for _ in parts:
        break


def leave_by_error(parts):
    with contextlib.suppress(ZeroDivisionError):
        for part in parts:
            1 / part["number"].item()


def leave_by_ctrl_c(parts):
    def interrupted(number, frame):
        raise KeyboardInterrupt

    usual = signal.signal(signal.SIGALRM, interrupted)  # what Python does at SIGINT, without a stray one for pytest
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            list(parts)
    finally:
        signal.signal(signal.SIGALRM, usual)


LEAVING = {
    "break": leave_by_break,
    "an error in the loop": leave_by_error,
    "Ctrl-C": leave_by_ctrl_c,
    "nobody takes a part": lambda parts: None,
    "the generator is dropped": next,
    "close": lambda parts: parts.close(),
}


@pytest.mark.parametrize("how", LEAVING)
def test_leaving_a_stream_cancels_the_rest(client, python_server, how):
    """The model's only instance is free again long before 9 s have passed.

    Another client asks: after a KeyboardInterrupt in the middle of grpcio's code a channel once answered no more.
    """
    with Client(python_server.grpc_url) as leaving:
        LEAVING[how](leaving.model("counter").stream(count=[90], pause_s=[0.1]))
        assert not leaving.rotation().lone.link.calls
        assert numbers(client.model("counter").stream(count=[1], pause_s=[0.0], timeout_s=5)) == [0]


@pytest.mark.parametrize("how", ["break", "an error in the loop", "cancellation", "nobody takes a part"])
def test_leaving_a_stream_cancels_the_rest_with_asyncio(python_server, how):
    async def leave(counter):
        if how == "nobody takes a part":
            counter.stream(count=[90], pause_s=[0.1])
            return
        async for part in counter.stream(count=[90], pause_s=[0.1]):
            if how == "break":
                break
            if how == "an error in the loop":
                1 / part["number"].item()

    async def ask():
        async with AsyncClient(python_server.grpc_url) as client:
            counter = await client.model("counter")
            with contextlib.suppress(ZeroDivisionError, TimeoutError):
                await asyncio.wait_for(leave(counter), 0.3)
            calls = len(client.rotation().lone.link.calls)
            return calls, [part["number"].item() async for part in counter.stream(count=1, pause_s=0, timeout_s=5)]

    assert asyncio.run(ask()) == (0, [0])


def test_a_failure_within_a_stream_comes_after_the_parts_before_it(client, python_server):
    parts = client.model("counter").stream(count=[-2], pause_s=[0.0])
    assert numbers(itertools.islice(parts, 2)) == [0, 1]
    with pytest.raises(ServerError, match="the count ran out") as caught:
        next(parts)
    assert caught.value.endpoint == python_server.grpc_url
    assert client.is_ready()  # with the header triton_grpc_error this Triton would have died


def test_a_stream_has_a_deadline(client):
    with pytest.raises(DeadlineExceededError, match=r"'counter' .*0\.3 s"):
        list(client.model("counter").stream(count=[50], pause_s=[0.1], timeout_s=0.3))


def test_inputs_of_a_stream_are_checked_at_once(client):
    with pytest.raises(InvalidInputError, match="'pause_s'") as caught:
        client.model("counter").stream(count=[1])
    assert caught.value.tensor == "pause_s"


def test_a_decoupled_model_is_not_called(client):
    with pytest.raises(InvalidInputError, match=r"stream\(\)"):
        client.model("counter")(count=[1], pause_s=[0.0])


def test_a_sequence_keeps_its_state(client):
    total = client.model("total")
    with total.sequence() as one, total.sequence() as other:
        assert [one(x=[[1]])["total"].item(), other(x=[[20]])["total"].item()] == [1, 20]
        assert [one(x=[[2]])["total"].item(), other(x=[[1]], end=True)["total"].item()] == [3, 21]


def test_the_last_request_ends_the_sequence(client):
    with client.model("total").sequence() as ask:
        assert ask(x=[1], end=True)["total"].item() == 1
        with pytest.raises(InvalidInputError):
            ask(x=[1])


def test_sequences_that_are_left_give_their_slots_back(client):
    """`total` has four slots and keeps an idle one for a minute."""
    total = client.model("total")
    for _ in range(6):
        with total.sequence() as ask:
            ask(x=[1])
    for _ in range(6):
        with contextlib.suppress(ZeroDivisionError), total.sequence() as ask:
            1 / (ask(x=[1])["total"].item() - 1)


def test_a_refused_request_leaves_the_sequence_as_it_was(client):
    with client.model("total").sequence() as ask:
        ask(x=[1])
        with pytest.raises(InvalidInputError) as caught:
            ask(y=[1])
        assert caught.value.tensor == "y"
        assert ask(x=[1])["total"].item() == 2


def test_sequences_are_for_stateful_models_and_the_reverse(client):
    with pytest.raises(InvalidInputError, match="'nap'"):
        client.model("nap").sequence()
    with pytest.raises(InvalidInputError, match=r"model\.sequence\(\)"):
        client.model("total")(x=[1])


def test_a_sequence_stays_on_one_server_of_a_balanced_name(python_server):
    host, _, port = python_server.grpc_url.rpartition(":")
    with Client(f"ipv4:{host}:{port}") as client, client.model("total").sequence() as ask:
        assert [ask(x=[1])["total"].item() for _ in range(4)] == [1, 2, 3, 4]


def test_streams_and_sequences_with_asyncio(python_server):
    async def ask_both():
        async with AsyncClient(python_server.grpc_url) as client:
            counter, total = await client.model("counter"), await client.model("total")
            parts = [part async for part in counter.stream(count=[3], pause_s=[0.0])]
            async with total.sequence() as ask:
                totals = [(await ask(x=[n]))["total"].item() for n in (1, 2, 3)]
            failing = counter.stream(count=[-1], pause_s=[0.0])
            await anext(failing)
            with pytest.raises(ServerError, match="the count ran out"):
                await anext(failing)
            async with asyncio.timeout(3):
                async for _ in counter.stream(count=[50], pause_s=[0.1]):
                    break
                return numbers(parts), totals

    assert asyncio.run(ask_both()) == ([0, 1, 2], [1, 3, 6])


def test_each_row_is_a_request_of_the_sequence(client):
    total = client.model("total")
    with total.sequence() as ask:
        assert [answer["total"].tolist() for answer in ask.each(x=[[1], [2], [3]])] == [[[1]], [[3]], [[6]]]
        with pytest.raises(InvalidInputError):
            ask(x=[[1]])  # the last row ended it
    with total.sequence() as ask, pytest.raises(InvalidInputError):
        next(ask.each(x=[]))


def test_each_row_is_sent_at_its_time(python_server):
    async def ask_at_a_pace(pauses):
        async with AsyncClient(python_server.grpc_url) as client:
            total = await client.model("total")

            async def pause(seconds):
                pauses.append(seconds)

            client.pause = pause
            async with total.sequence() as ask:
                return [a["total"].item() async for a in ask.each({"x": [[1], [2], [3]]}, interval_s=100.0)]

    pauses = []
    assert asyncio.run(ask_at_a_pace(pauses)) == [1, 3, 6]
    assert [round(seconds, -2) for seconds in pauses] == [0, 100, 200]  # the answers come within a second


def test_a_sequence_goes_on_after_a_deadline_that_is_none(python_server):
    with Client(python_server.grpc_url) as client, client.model("total").sequence() as ask:
        assert ask(x=[2])["total"].tolist() == [[2]]
        with pytest.raises(ValueError, match="timeout_s"):
            ask(x=[3], timeout_s=math.inf)
        assert ask(x=[3], end=True)["total"].tolist() == [[5]]


def test_a_stream_of_a_server_that_is_given_up_says_so(python_server):
    with Client([python_server.grpc_url] * 2, probe_every_s=1e6) as client:
        parts = client.model("counter").stream(count=[50], pause_s=[0.1])
        next(parts)
        for server in client.rotation().servers:
            client.run(client.cancel_in_flight(server))
        with pytest.raises(UnreachableError) as caught:
            list(parts)
    assert (caught.value.source, caught.value.may_have_run) == ("connection", True)


def test_a_stream_of_a_server_that_is_given_up_says_so_with_asyncio(python_server):
    async def give_up():
        async with AsyncClient([python_server.grpc_url] * 2, probe_every_s=1e6) as client:
            parts = (await client.model("counter")).stream(count=[50], pause_s=[0.1])
            await anext(parts)
            for server in client.rotation().servers:
                await client.cancel_in_flight(server)
            with pytest.raises(UnreachableError) as caught:
                [part async for part in parts]
            return caught.value

    error = asyncio.run(give_up())
    assert (error.source, error.may_have_run) == ("connection", True)
