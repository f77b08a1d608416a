"""In-flight batching, with a decoder that shows by its tokens whose history it was given."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from repository_code import load
from waiting import until
from writer_parts import WORDS, KeptReply, ListDecoder, alone

scheduling, generation, sampling, pieces = load("recipe_writer", "scheduler", "generation", "sampling", "pieces")
TABLE = [f"<{token}>".encode() for token in range(WORDS)]


class Writer:
    """A scheduler and what it has published."""

    def __init__(self, decoder: ListDecoder, *, waiting: int = 100, chunk: int = 4, eos: Sequence[int] = ()) -> None:
        self.decoder, self.figures = decoder, scheduling.Figures()
        self.scheduler = scheduling.Scheduler(
            decoder, eos=eos, waiting=waiting, prefill_chunk=chunk, publish=self._publish, publish_every_s=0
        )

    def _publish(self, figures: Any) -> None:
        self.figures = figures

    def ask(self, prompt: Sequence[int], max_tokens: int = 8, *, stop: Sequence[str] = (), leave: int = 0) -> KeptReply:
        reply = KeptReply(leave)
        made = generation.Generation(list(prompt), max_tokens, sampling.Sampler(), pieces.Pieces(TABLE, stop), reply)
        self.scheduler.submit(made)
        return reply


@pytest.fixture
def writer(request: pytest.FixtureRequest) -> Iterator[Writer]:
    """Over a ListDecoder with the options of `request.param`."""
    made = Writer(ListDecoder(**getattr(request, "param", {})))
    yield made
    made.decoder.open()
    made.scheduler.close()


gated = pytest.mark.parametrize("writer", [{"gated": True}], indirect=True)


def spelled(tokens: Sequence[int]) -> str:
    return "".join(f"<{token}>" for token in tokens)


@pytest.mark.parametrize("writer", [{"slots": n, "prefix": [5, 6]} for n in (1, 3, 8)], indirect=True)
def test_answers_are_those_of_each_prompt_alone(writer: Writer) -> None:
    """Whoever joins, ends and leaves beside it."""
    dice = random.Random(1)
    asked = []
    for _ in range(100):
        prompt = [5, 6, *(dice.randrange(WORDS) for _ in range(dice.randint(1, 20)))]
        count, leave = dice.randint(1, 20), dice.choice([0, 0, 5])
        asked.append((prompt, count, leave, writer.ask(prompt, count, leave=leave)))
    for prompt, count, leave, reply in asked:
        given = len(reply.wait().parts)
        assert reply.error == ""
        assert given == (min(leave, count) if leave else count)
        assert reply.text == spelled(alone(prompt, given))
        assert [part[3] for part in reply.parts] == list(range(1, given + 1))
    until(lambda: (writer.figures.slots_in_use, writer.figures.waiting) == (0, 0))
    assert writer.figures.tokens == sum(len(reply.parts) for *_, reply in asked)
    assert writer.figures.cancelled == sum(0 < leave < count for _, count, leave, _ in asked)


@gated
def test_a_newcomer_joins_at_the_next_step_and_delays_it_by_one_piece(writer: Writer) -> None:
    writer.ask([1, 2], 50)
    writer.decoder.inside()
    writer.ask(range(10), 50)
    writer.decoder.let(9)
    writer.decoder.inside()
    assert writer.decoder.runs == [-2, 1, -4, 1, -4, 1, -2, 2, 2, 2]


def _running(writer: Writer) -> KeptReply:
    """A request that is in a step."""
    reply = writer.ask([1, 2], 50)
    writer.decoder.let(1)
    writer.decoder.inside()
    return reply


def _prefilling(writer: Writer) -> KeptReply:
    """A request that is in the first of three pieces of its prompt."""
    reply = writer.ask(range(10), 50)
    writer.decoder.inside()
    return reply


@pytest.mark.parametrize("begun", [_running, _prefilling])
@pytest.mark.parametrize("writer", [{"gated": True, "slots": 1}], indirect=True)
def test_a_cancelled_request_frees_its_slot_within_one_step(writer: Writer, begun: Any) -> None:
    cancelled = begun(writer)
    other = writer.ask([3, 4], 2)
    cancelled.cancelled = True
    before = len(writer.decoder.runs)
    writer.decoder.let(1)  # the run that it was in
    if begun is _prefilling:
        assert cancelled.wait().parts == []
    writer.decoder.let(2)
    assert other.wait().text == spelled(alone([3, 4], 2))
    assert writer.decoder.runs[before:] == [-2, 1]
    assert cancelled.error == ""
    until(lambda: writer.figures.cancelled == 1)


@pytest.mark.parametrize("writer", [{"gated": True, "slots": 2}], indirect=True)
def test_cancelled_requests_leave_the_queue(writer: Writer) -> None:
    running = [writer.ask([1], 50), writer.ask([2], 50)]
    waiting = [writer.ask([3], 50) for _ in range(6)]
    writer.decoder.let(4)
    for reply in waiting[1:]:
        reply.cancelled = True
    writer.decoder.let(4)  # as many a step as there are slots
    for reply in waiting[1:]:
        assert reply.wait().parts == []
    until(lambda: writer.figures.waiting == 1)
    assert not any(reply.ended.is_set() for reply in (*running, waiting[0]))


@gated
def test_as_many_are_taken_as_have_slots_and_may_wait_also_at_once(writer: Writer) -> None:
    small = Writer(writer.decoder, waiting=2)
    for _ in range(writer.decoder.slots + 2):
        small.ask([1], 50)
    with pytest.raises(scheduling.FullError):
        small.ask([1], 50)
    small.decoder.open()
    small.scheduler.close()


@gated
def test_a_failed_step_ends_the_requests_in_it_and_no_other(writer: Writer) -> None:
    writer.decoder.errors = [None, None, None, RuntimeError("no more memory")]  # two pieces and two steps
    failed = [writer.ask([1]), writer.ask([2])]
    writer.decoder.inside()
    later = writer.ask([3])
    writer.decoder.open()
    assert ["no more memory" in reply.wait().error for reply in failed] == [True, True]
    assert later.wait().text == spelled(alone([3], 8))


@gated
def test_a_failed_piece_of_a_prompt_ends_that_request_alone(writer: Writer) -> None:
    writer.decoder.errors = [None, None, RuntimeError("too long")]
    running = writer.ask([1])
    writer.decoder.inside()
    failed = writer.ask([2])
    writer.decoder.open()
    assert "too long" in failed.wait().error
    assert running.wait().text == spelled(alone([1], 8))


def test_an_answer_that_cannot_be_sent_ends_alone(writer: Writer) -> None:
    class Deaf(KeptReply):
        def send(self, *part: Any) -> None:
            raise RuntimeError("gone")

        def fail(self, message: str) -> None:
            super().fail(message)
            raise RuntimeError("gone")

    deaf = Deaf()
    made = generation.Generation([1], 8, sampling.Sampler(), pieces.Pieces(TABLE), deaf)
    writer.scheduler.submit(made)
    assert writer.ask([2]).wait().text == spelled(alone([2], 8))
    assert "gone" in deaf.wait().error


def test_an_error_of_its_own_ends_the_scheduler_with_the_reason(capfd: pytest.CaptureFixture[str]) -> None:
    class Broken(ListDecoder):
        def begin(self, slot: int) -> int:
            raise ZeroDivisionError("a slip")

    writer = Writer(Broken())
    assert "a slip" in writer.ask([1]).wait().error
    until(lambda: not writer.scheduler.is_alive())
    with pytest.raises(scheduling.StoppedError, match="a slip"):
        writer.ask([1])
    writer.scheduler.close()
    assert "ZeroDivisionError" in capfd.readouterr().err


@gated
def test_closing_answers_what_is_open_and_ends_the_thread(writer: Writer) -> None:
    opened = [writer.ask([n], 50) for n in range(6)]
    writer.decoder.let(4)
    closing = threading.Thread(target=writer.scheduler.close)
    closing.start()
    writer.decoder.open()
    closing.join(30)
    assert not closing.is_alive()
    assert all(reply.wait().error for reply in opened)
    assert "scheduler" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(scheduling.StoppedError):
        writer.ask([1])


FIRST = alone([1, 2], 20)


@pytest.mark.parametrize(
    ("options", "asked", "text", "reason"),
    [
        ({}, {"max_tokens": 1}, spelled(FIRST[:1]), "length"),  # as many as were wanted
        ({"context": 5}, {}, spelled(FIRST[:4]), "length"),  # five tokens are in the cache, one more is known
        ({"eos": FIRST[3:4]}, {}, spelled(FIRST[:3]), "stop"),  # the end of the text, which is not part of it
        ({}, {"stop": [spelled(FIRST[2:4])]}, spelled(FIRST[:2]), "stop"),  # a stop word over two tokens
        ({}, {"max_tokens": 3, "stop": [spelled(FIRST[2:4])]}, spelled(FIRST[:3]), "length"),  # half a stop word
    ],
)
def test_how_an_answer_ends(options: dict[str, Any], asked: dict[str, Any], text: str, reason: str) -> None:
    writer = Writer(ListDecoder(context=options.get("context", 64)), eos=options.get("eos", ()))
    reply = writer.ask([1, 2], **asked).wait()
    writer.scheduler.close()
    assert (reply.text, reply.reason) == (text, reason)
    assert [part[1] for part in reply.parts[:-1]] == [""] * (len(reply.parts) - 1)
    assert reply.parts[-1][2:] == (2, len(reply.parts))
