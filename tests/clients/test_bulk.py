"""`model.map` against a real server, blocking and asyncio: order, bounds, errors, and what happens when one stops."""

import asyncio
import gc
import itertools
import re
import time
import urllib.request

import pytest
from complete_server import complete_server
from identity_models import write_identity
from waiting import until

from clients import AsyncClient, Client, InferenceError, InvalidInputError

pytestmark = pytest.mark.process

WAYS = ("blocking", "asyncio")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`sleepy` answers x after x seconds, four at a time."""
    repository = tmp_path_factory.mktemp("bulk") / "model_repository"
    write_identity(repository / "sleepy", {"x": ("FP32", [1])}, max_batch_size=1, sleeps=True, instances=4)
    with complete_server(repository) as server:
        yield server


def collect(way, server, items, *, stop_after=None, on_answer=lambda answer: None, **options):
    """What map gives for `items`, up to `stop_after` answers: numbers, or errors."""

    def number(answer):
        on_answer(answer)
        return answer if isinstance(answer, InferenceError) else round(float(answer["x_out"][0, 0]), 3)

    def blocking():
        with Client(server.grpc_url) as client:
            return [number(a) for a in itertools.islice(client.model("sleepy").map(items, **options), stop_after)]

    async def on_loop():
        answers = []
        async with AsyncClient(server.grpc_url) as client:
            async for answer in (await client.model("sleepy")).map(items, **options):
                answers.append(number(answer))
                if len(answers) == stop_after:
                    break
            await asyncio.sleep(0)  # the loop closes an abandoned generator in a turn of its own
        return answers

    return blocking() if way == "blocking" else asyncio.run(on_loop())


@pytest.mark.parametrize("way", WAYS)
def test_answers_come_in_the_order_of_the_items_though_the_first_takes_longest(way, server):
    sleeps, taken, taken_by_then = [0.3, *(n / 1000 for n in range(40))], [], []

    def items():
        for seconds in sleeps:
            taken.append(seconds)
            yield [[seconds]]

    answers = collect(way, server, items(), in_flight=8, on_answer=lambda _: taken_by_then.append(len(taken)))
    assert answers == sleeps
    assert taken_by_then[0] >= 8, "the others waited for the first"


@pytest.mark.parametrize("way", WAYS)
def test_of_an_endless_iterable_only_a_bounded_part_is_held(way, server):
    taken, answered, held = [], [], []

    def endless():
        while True:
            taken.append(1)
            yield {"x": [[0.0]]}

    def count(answer):
        held.append(len(taken) - len(answered))
        answered.append(1)

    collect(way, server, endless(), in_flight=4, stop_after=300, on_answer=count)
    assert max(held) <= 2 * 4


@pytest.mark.parametrize("way", WAYS)
def test_errors_per_item_are_returned_in_their_places(way, server):
    answers = collect(way, server, [[[0.0]], [[1, 2]], {"y": 1}, "text", [[0.001]]], errors="return")
    assert [type(answer).__name__ for answer in answers] == ["float", *["InvalidInputError"] * 3, "float"]
    assert "[1, 2]" in str(answers[1])


@pytest.mark.parametrize("way", WAYS)
def test_the_first_error_is_raised_in_its_turn_and_says_which_item(way, server):
    seen = []
    with pytest.raises(InvalidInputError) as caught:
        collect(way, server, [[[0.1]], [[0.0]], [[1, 2]], [[0.0]]], on_answer=seen.append)
    assert caught.value.__notes__ == ["item 2 of map"]
    assert len(seen) == 2


@pytest.mark.parametrize("way", WAYS)
def test_an_iterable_that_fails_ends_the_loop_after_what_it_gave(way, server):
    def broken():
        yield [[0.05]]
        yield [[0.0]]
        raise OSError("the disk is gone")

    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        collect(way, server, broken(), on_answer=seen.append)
    assert len(seen) == 2


@pytest.mark.parametrize("way", WAYS)
def test_leaving_the_loop_cancels_what_is_in_flight(way, server):
    before = canceled(server)
    sleeps = [0.1] * 80  # requests reach the server in any order: so many that some wait whenever the first is answered
    assert collect(way, server, ([[s]] for s in sleeps), in_flight=64, stop_after=1) == [0.1]
    gc.collect()
    until(lambda: canceled(server) - before >= 4, lambda: "the queued requests were not cancelled on the server")
    time.sleep(0.2)  # the python model cannot be interrupted: let it finish before the next test


def canceled(server):
    """The server's own count of requests cancelled while they were queued or running."""
    with urllib.request.urlopen(server.metrics_url) as response:
        text = response.read().decode()
    found = re.findall(r'nv_inference_request_failure\{.*reason="CANCELED".*\} (\d+)', text)
    return sum(map(int, found))


def test_an_asynchronous_iterable(server):
    async def slowly():
        for number in (1, 2, 3):
            await asyncio.sleep(0.001)
            yield [[number / 1000]]

    assert collect("asyncio", server, slowly(), in_flight=2) == [0.001, 0.002, 0.003]


@pytest.mark.parametrize("way", WAYS)
def test_a_progress_bar_on_stderr(way, server, capsys):
    collect(way, server, [[[0.0]]] * 7, progress=True)
    captured = capsys.readouterr()
    assert "7/7" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", [{"in_flight": 0}, {"errors": "ignore"}])
def test_a_bound_or_a_choice_that_makes_no_sense_is_refused(way, options, server):
    with pytest.raises(ValueError, match=next(iter(options))):
        collect(way, server, [[[0.0]]], **options)


@pytest.mark.parametrize("way", WAYS)
def test_no_items_give_no_answers(way, server):
    assert collect(way, server, []) == []
