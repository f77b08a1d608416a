"""Runs a schedule of sequences, for models that keep state: each is a row of the record, whatever its length.

A request goes when it is due, or as soon as the one before is answered: Triton takes the requests of a sequence in the
order in which they arrive, and of two that are on their way at once either may be first. The wait counts as latency.
A sequence fails with its first failed request. Its slot in the server is then freed by its last request, and so are
those of sequences that a run leaves unfinished.
"""

from __future__ import annotations

import bisect
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from loadtests.generator.http2 import Http2Transport
from loadtests.generator.messages import Limits
from loadtests.generator.open_loop import LONGEST_BATCH, PENDING, SWEEP_S, OpenLoopRun
from loadtests.generator.transport import OnDone, OnFirst
from loadtests.records.record import DEADLINE_EXCEEDED, NOT_SENT, OK, UNANSWERED, Record
from loadtests.slo import Measure
from loadtests.target.parameters import new_sequence
from loadtests.workload.sequences import Sequences


class _Running:
    """A sequence that has begun. Times are `time.monotonic()`."""

    __slots__ = (
        "answered", "answered_s", "due", "first", "interval_s", "is_ending", "key", "last", "place", "row", "sent",
        "sent_s", "suffix",
    )  # fmt: skip

    def __init__(self, row: int, first: int, length: int, interval_s: float, place: int) -> None:
        self.row = row
        self.first, self.last = first, first + length - 1
        """Places of its requests in the pool."""
        self.interval_s = interval_s
        self.place = place
        self.suffix = new_sequence() if interval_s else b""
        self.due = self.sent = self.answered = 0
        """How many of its requests."""
        self.key: int | None = None
        """Of the request that is on its way."""
        self.sent_s = self.answered_s = 0.0
        """The request before."""
        self.is_ending = False


class SequenceRun(OpenLoopRun):
    """The rows are in the order in which their last requests are due, which are their intended times."""

    def __init__(
        self,
        intended_s: NDArray[np.float64],
        choices: NDArray[np.int32],
        limits: Limits,
        *,
        sequences: Sequences,
        requests: Sequence[bytes],
        timeout_s: float,
        make_transport: Callable[[OnDone, OnFirst], Http2Transport],
    ) -> None:
        self._sequences, self._requests = sequences, requests
        self._keys = itertools.count()
        self._on_their_way: dict[int, _Running] = {}  # by key, oldest first
        self._running: dict[int, _Running] = {}  # by row
        self._worst_s = [float("nan")] * len(intended_s)
        self._owed = self._seen = 0
        lengths = np.asarray(sequences.lengths)[choices]
        self._lengths, self._firsts = lengths.tolist(), sequences.firsts[choices].tolist()
        self._intervals_s: list[float] = np.asarray(sequences.intervals_s)[choices].tolist()
        rows = np.repeat(np.arange(len(choices)), lengths)
        left = np.repeat(np.cumsum(lengths), lengths) - np.arange(1, len(rows) + 1)  # requests until the last
        due_s = intended_s[rows] - left * np.repeat(self._intervals_s, lengths)
        order = np.argsort(due_s, kind="stable")
        self._due_s: list[float] = due_s[order].tolist()
        self._due_rows: list[int] = rows[order].tolist()

        def make(on_done: OnDone, on_first: OnFirst) -> Http2Transport:
            return make_transport(self._on_answer, on_first)

        super().__init__(intended_s, choices, limits, timeout_s=timeout_s, make_transport=make)

    transport: Http2Transport

    def _begin(self) -> float:
        super()._begin()
        self._due_s = [due_s + self._start_s for due_s in self._due_s]
        return self._due_s[0] if self._due_s else 0.0

    # Hot path: called once per wake-up and once per answer.

    def _wake(self) -> None:
        if self._finished.done():
            return
        now_s = time.monotonic()
        first = self._seen
        self._seen = until = bisect.bisect_right(
            self._due_s, now_s, first, min(first + LONGEST_BATCH, len(self._due_s))
        )
        sent: list[_Running] = []
        for row in self._due_rows[first:until]:
            if self._status[row] == NOT_SENT and not self._finished.done():
                self._begin_sequence(row)
            if self._status[row] != PENDING:
                continue  # it has failed
            sequence = self._running[row]
            sequence.due += 1
            self._owed += 1
            if sequence.key is None and sequence.sent < sequence.due:
                self._send(sequence)
                sent.append(sequence)
        if sent:
            self._flush(sent)
        if self._owed > self._limits.max_outstanding:
            self.stop("backlog")
            return
        self._sweep(now_s)
        if not self._finished.done():
            next_s = self._due_s[until] if until < len(self._due_s) else now_s + SWEEP_S
            self._alarm.set(min(next_s, now_s + SWEEP_S))

    def _begin_sequence(self, row: int) -> None:
        self._status[row] = PENDING
        self._running[row] = _Running(
            row, self._firsts[row], self._lengths[row], self._intervals_s[row], self.transport.place()
        )

    def _send(self, sequence: _Running, *, last: bool = False) -> None:
        """The next request, or instead of it the last."""
        place = sequence.last if last else sequence.first + sequence.sent
        sequence.is_ending = place == sequence.last
        sequence.sent += 1
        sequence.sent_s = time.monotonic()
        sequence.key = key = next(self._keys)
        self._on_their_way[key] = sequence
        self.transport.offer(key, self._requests[place] + sequence.suffix)
        self.transport.send_at(sequence.place, key, key)

    def _flush(self, sent: Sequence[_Running]) -> None:
        """Hands these requests over; the worst delay of a sequence that is the generator's own counts as its delay."""
        self.transport.flush()
        now_s = time.monotonic()
        for sequence in sent:
            row, sequence.sent_s = sequence.row, now_s
            late_s = now_s - max(self._due_at(sequence, sequence.sent - 1), sequence.answered_s)
            if not self._sent[row] > self._offsets[row] + late_s:
                self._sent[row] = self._offsets[row] + late_s

    def _due_at(self, sequence: _Running, number: int) -> float:
        return self._offsets[sequence.row] - (sequence.last - sequence.first - number) * sequence.interval_s

    def _on_answer(self, key: int, when_s: float, status: int, message: str) -> None:
        sequence = self._on_their_way.pop(key, None)
        if sequence is None:
            return
        self.transport.forget(key)
        sequence.key, sequence.answered_s, row = None, when_s, sequence.row
        if self._status[row] != PENDING:
            self._leave(sequence)
            return
        if status != OK:
            self._owed -= sequence.due - sequence.answered
            self._on_done(row, when_s, status, message)
            self._given_up.add(row)
            self._leave(sequence)
            return
        self._owed -= 1
        waited_s = when_s - self._due_at(sequence, sequence.answered)
        if not self._worst_s[row] > waited_s:
            self._worst_s[row] = waited_s
        sequence.answered += 1
        if sequence.is_ending:
            del self._running[row]
            self._on_done(row, when_s, OK, "")
        elif sequence.sent < sequence.due:
            self._send(sequence)
            self._flush([sequence])

    def _is_over(self, index: int, measure: Measure, limit_s: float, when_s: float, status: int) -> bool:
        return status != OK or self._worst_s[index] > limit_s

    # Endings.

    def _leave(self, sequence: _Running) -> None:
        """Nobody needs another answer of a sequence of which nothing is on its way: frees its slot."""
        if sequence.is_ending or not sequence.interval_s or self.transport.lost:
            self._running.pop(sequence.row, None)
            self._on_done(sequence.row, sequence.answered_s, OK, "")
        else:
            self._send(sequence, last=True)
            self.transport.flush()

    def _give_up(self, first: int) -> None:
        now_s = time.monotonic()
        pending = [sequence for row, sequence in self._running.items() if self._status[row] == PENDING]
        for sequence in pending:
            is_due = self._offsets[sequence.row] <= now_s
            self._status[sequence.row] = UNANSWERED if is_due else NOT_SENT  # else nobody waits for its end yet
            self._given_up.add(sequence.row)
        for sequence in pending:
            if sequence.key is None:
                self._leave(sequence)
        if not self._finished.done():
            self._finished.set_result(None)

    def _cancel(self, index: int) -> None:
        if (sequence := self._running.pop(index, None)) and sequence.key is not None:
            self.transport.cancel(sequence.key)

    def _expire(self, now_s: float) -> None:
        while self._on_their_way:
            key, sequence = next(iter(self._on_their_way.items()))
            if now_s - sequence.sent_s <= self._timeout_s:
                break
            self.transport.cancel(key)
            self._on_answer(key, now_s, DEADLINE_EXCEEDED, f"no answer within {self._timeout_s:g} s")

    def _record(self) -> Record:
        return replace(super()._record(), gap_s=np.asarray(self._worst_s[: self._measured]))
