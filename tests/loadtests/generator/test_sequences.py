"""Sequences under load, against a server in this process that keeps state as Triton does: slots, start and end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from loadtests.generator.messages import EarlyStop, Limits
from loadtests.generator.sequences import SequenceRun
from loadtests.records.record import DEADLINE_EXCEEDED, NOT_SENT, OK, UNANSWERED, UNAVAILABLE
from loadtests.target.parameters import flagged
from loadtests.workload.schedule import constant
from loadtests.workload.sequences import Sequences

ROOMY = Limits(10_000)
INTERVAL_S = 0.01
FAILS, SILENT = b"fails", b"silent"


@dataclass
class Keeper:
    """Answers each request after its service time, those of one sequence in their order; sequences beyond the slots
    wait for one."""

    slots: int = 1000
    service_s: float = 0.0
    seen: dict[int, list[tuple[bytes, bool, bool]]] = field(default_factory=dict)
    """By sequence: content, start and end of each request. Requests without a sequence are under 0."""
    places: dict[int, set[int]] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    on_their_way: dict[int, int] = field(default_factory=dict)
    """Requests of each sequence that are not answered."""
    most_on_their_way: int = 0
    waiting: deque[tuple[int, int, service_pb2.ModelInferRequest]] = field(default_factory=deque)

    def take(self, transport: Scripted, index: int, place: int, content: bytes) -> None:
        request = service_pb2.ModelInferRequest.FromString(content)
        number = request.parameters["sequence_id"].int64_param
        self.on_their_way[number] = self.on_their_way.get(number, 0) + 1
        self.most_on_their_way = max(self.most_on_their_way, self.on_their_way[number]) if number else 0
        self.places.setdefault(number, set()).add(place)
        if number and number not in self.open and len(self.open) >= self.slots:
            self.waiting.append((index, number, request))
        else:
            self.work(transport, index, number, request)

    def work(self, transport: Scripted, index: int, number: int, request: service_pb2.ModelInferRequest) -> None:
        start, end = (request.parameters[f"sequence_{name}"].bool_param for name in ("start", "end"))
        self.seen.setdefault(number, []).append((request.raw_input_contents[0], start, end))
        if number:
            self.open.add(number)
        if request.raw_input_contents[0] != SILENT:
            asyncio.get_running_loop().call_later(self.service_s, self.answer, transport, index, number, request, end)

    def answer(self, transport: Scripted, index: int, number: int, request, end: bool) -> None:
        self.on_their_way[number] -= 1
        if end:
            self.open.discard(number)
            if self.waiting:
                self.work(transport, *self.waiting.popleft())
        failed = request.raw_input_contents[0] == FAILS
        transport.report(index, UNAVAILABLE if failed else OK, "no room" if failed else "")


class Scripted:
    """What a run sends with."""

    lost, broken, connections = False, "", 3

    def __init__(self, on_done, keeper: Keeper) -> None:
        self._on_done, self._keeper = on_done, keeper
        self._offered: dict[int, bytes] = {}
        self._open: set[int] = set()
        self._turn = 0

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def offer(self, payload: int, request: bytes) -> None:
        self._offered[payload] = request

    def forget(self, payload: int) -> None:
        del self._offered[payload]

    def place(self) -> int:
        self._turn += 1
        return self._turn % self.connections

    def send_at(self, place: int, index: int, payload: int) -> None:
        self._open.add(index)
        self._keeper.take(self, index, place, self._offered[payload])

    def flush(self) -> None: ...

    def cancel(self, index: int) -> None:
        self._open.discard(index)

    def report(self, index: int, status: int, message: str) -> None:
        if index in self._open:
            self._open.discard(index)
            self._on_done(index, time.monotonic(), status, message)


def request(content: bytes) -> bytes:
    return service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[content]).SerializeToString()


def run(keeper: Keeper, pool, starts_s, *, limits=ROOMY, timeout_s=5.0, choices=None, stop_s: float | None = None):
    """`pool` has the contents of the requests of each sequence; a text alone is a request without one."""
    payloads = [[request(each)] if isinstance(each, bytes) else flagged(list(map(request, each))) for each in pool]
    intervals_s = tuple(0.0 if isinstance(each, bytes) else INTERVAL_S for each in pool)
    sequences = Sequences(tuple(map(len, payloads)), intervals_s)
    chosen = np.arange(len(starts_s), dtype=np.int32) % len(pool) if choices is None else choices
    intended_s, chosen = sequences.ends(np.asarray(starts_s), chosen)

    async def fire():
        running = SequenceRun(
            intended_s,
            chosen,
            limits,
            sequences=sequences,
            requests=[each for payload in payloads for each in payload],
            timeout_s=timeout_s,
            make_transport=lambda on_done, on_first: Scripted(on_done, keeper),
        )
        if stop_s is not None:
            asyncio.get_running_loop().call_later(stop_s, running.stop, "asked")
        return await running.run()

    record, outcome = asyncio.run(fire())
    return sequences.marked(record, chosen[: len(record)]), outcome


UNLIKE = [[b"a1", b"a2", b"a3"], [b"b1"], [b"c1", b"c2", b"c3", b"c4", b"c5"]]


def test_each_sequence_is_sent_in_order_as_one():
    keeper = Keeper(service_s=0.001)
    record, outcome = run(keeper, UNLIKE, constant(300, count=30))
    assert record.ok.all()
    assert outcome.stopped == ""
    assert sorted(keeper.seen.values()) == sorted(
        [(content, number == 0, number == len(contents) - 1) for number, content in enumerate(contents)]
        for contents in UNLIKE * 10
    )
    assert {len(places) for places in keeper.places.values()} == {1}
    assert {place for places in keeper.places.values() for place in places} == {0, 1, 2}
    assert sorted(record.requests.tolist()) == [1] * 10 + [3] * 10 + [5] * 10
    assert np.all(np.diff(record.intended_s) >= 0)
    assert record.intended_s - record.begun_s == pytest.approx((record.requests - 1) * INTERVAL_S)
    assert not keeper.open


def test_no_two_runs_use_the_same_number():
    keeper = Keeper()
    for _ in range(2):
        run(keeper, UNLIKE, constant(500, count=20))
    assert len(keeper.seen) == 40
    assert all(1 << 62 <= number < 1 << 63 for number in keeper.seen)


def test_requests_of_a_slow_server_wait_for_one_another_and_the_wait_counts():
    """Five requests 10 ms apart that take 30 ms each end at 150 ms; the last was due at 40 ms."""
    keeper = Keeper(service_s=0.03)
    record, _ = run(keeper, [UNLIKE[2]], [0.0])
    assert keeper.most_on_their_way == 1
    assert record.ok.all()
    assert record.latencies_ms()[0] >= 110
    assert record.gaps_ms() == pytest.approx(record.latencies_ms())
    assert record.send_lags_ms()[0] < 100  # the wait is not the generator's


def test_of_a_sequence_the_slowest_request_is_known():
    keeper = Keeper(slots=1, service_s=0.002)
    record, _ = run(keeper, [[b"a1", b"a2", b"a3"]], [0.0, 0.001])
    assert record.ok.all()
    assert record.gaps_ms()[1] >= record.latencies_ms()[1]
    assert record.gaps_ms()[1] >= 20  # its first request waited for the other's slot


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_failed_request_fails_its_sequence_and_frees_the_slot(at):
    contents = [b"1", b"2", b"3", b"4"]
    contents[at] = FAILS
    keeper = Keeper(slots=1)
    record, outcome = run(keeper, [contents, [b"x", b"y"]], [0.0, 0.1])
    assert record.status.tolist() == [UNAVAILABLE, OK]
    assert outcome.messages == {str(UNAVAILABLE): "no room"}
    assert not keeper.open
    sent = next(requests for requests in keeper.seen.values() if len(requests) > 2 or requests[0][0] in (b"1", FAILS))
    assert [content for content, *_ in sent] == [*contents[: at + 1], *([b"4"] if at < 3 else [])]
    assert sent[-1][2]


def test_a_request_without_an_answer_fails_its_sequence():
    keeper = Keeper()
    record, _ = run(keeper, [[b"1", SILENT, b"3"]], [0.0], timeout_s=0.1)
    assert record.status.tolist() == [DEADLINE_EXCEEDED]
    assert [content for content, *_ in next(iter(keeper.seen.values()))] == [b"1", SILENT, b"3"]
    assert not keeper.open


LONG = [[bytes([number]) for number in range(100)]]
ENDED = {
    "because it was asked": ({"stop_s": 0.1}, Keeper(service_s=0.001), "asked"),
    "because the backlog grows": ({"limits": Limits(5)}, Keeper(service_s=0.2), "backlog"),
    "because its limit is out of reach": (
        {"limits": Limits(10_000, (EarlyStop(1.0, 1, "gap"),))},
        Keeper(service_s=0.3),
        "",
    ),
    "at the end of its budget": ({"limits": Limits(10_000, until_s=0.2)}, Keeper(service_s=0.001), "budget"),
}


@pytest.mark.parametrize("case", ENDED)
def test_a_run_that_ends_early_leaves_no_sequence_open(case):
    options, keeper, stopped = ENDED[case]
    if stopped == "":
        pool, stopped = [*LONG, [b"1", b"2"]], "hopeless"
    else:
        pool = LONG
    record, outcome = run(keeper, pool, constant(100, count=8), **options)
    assert outcome.stopped == stopped
    assert not keeper.open
    assert not keeper.waiting
    assert {*record.status.tolist()} <= {OK, UNANSWERED, NOT_SENT}
    assert (record.status == NOT_SENT).any()


def test_sequences_that_only_keep_up_the_load_are_ended_and_not_recorded():
    keeper = Keeper(service_s=0.001)
    record, _ = run(keeper, [[b"1", b"2", b"3"]], constant(100, count=30), limits=Limits(10_000, cooldown=20))
    assert record.ok.all()
    assert len(record) == 10
    assert not keeper.open


def test_requests_of_other_models_stand_for_themselves():
    keeper = Keeper(service_s=0.001)
    record, _ = run(keeper, [b"alone", [b"1", b"2", b"3"]], constant(200, count=20))
    assert record.ok.all()
    assert keeper.seen[0] == [(b"alone", False, False)] * 10
    assert len(keeper.seen) == 11
    assert (record.requests == 0).sum() == np.isnan(record.begun_s).sum() == 10


def test_a_limit_on_the_slowest_request_stops_a_run():
    keeper = Keeper(slots=1, service_s=0.004)
    limits = Limits(10_000, (EarlyStop(5.0, 3, "gap"),))
    assert run(keeper, [[b"1", b"2", b"3"]], constant(200, count=60), limits=limits)[1].stopped == "hopeless"
    assert not keeper.open
