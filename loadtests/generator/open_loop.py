"""Runs one schedule: sends what is due at each wake-up, notes when answers come, and stops early when it must."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import gc
import resource
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from loadtests.generator.clock import Alarm
from loadtests.generator.messages import DRAIN_S, Limits
from loadtests.generator.parts import Parts, Timelines
from loadtests.generator.transport import OnDone, OnFirst, Transport
from loadtests.records.record import (
    DEADLINE_EXCEEDED,
    EMPTY_RESPONSE,
    NOT_SENT,
    OK,
    UNANSWERED,
    Outcome,
    Record,
    StopReason,
)
from loadtests.slo import Measure

SWEEP_S, LONGEST_BATCH = 0.05, 256
_HEAD_START_S = 0.02
_HURRIED_DRAIN_S = 0.5
PENDING = -1


class OpenLoopRun:
    """One pass over a schedule. Everything per request is a list access; numpy comes in at the end."""

    def __init__(
        self,
        intended_s: NDArray[np.float64],
        choices: NDArray[np.int32],
        limits: Limits,
        *,
        timeout_s: float,
        make_transport: Callable[[OnDone, OnFirst], Transport],
    ) -> None:
        self._offsets: list[float] = intended_s.tolist()
        self._choices: list[int] = choices.tolist()
        self._intended_s = intended_s
        self._limits = limits
        self._measured = len(self._offsets) - limits.cooldown
        self._measured_answered = 0
        self._timeout_s = timeout_s
        self._sent = [float("nan")] * len(self._offsets)
        self._done = [float("nan")] * len(self._offsets)
        self._status = [NOT_SENT] * len(self._offsets)
        self._messages: dict[str, str] = {}
        self._parts: dict[int, Parts] = {}  # of streamed answers
        self._timelines = Timelines()
        self._early_stop = [(stop.measure, stop.limit_ms / 1e3) for stop in limits.early_stop]
        self._over = [0] * len(self._early_stop)
        self._next = 0
        self._oldest = 0
        self._answered = 0
        self._start_s = 0.0
        self._stopped: StopReason = ""
        self._given_up: set[int] = set()
        self._drained = asyncio.Event()
        self.transport = make_transport(self._on_done, self._on_first)
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, start_s: float | None = None) -> tuple[Record, Outcome]:
        """Sends until every request is answered or given up; the schedule begins at `start_s` (time.monotonic()).

        The transport must be open.
        """
        alarm = Alarm(asyncio.get_running_loop(), self._wake)
        self._alarm = alarm
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            cpu_before_s = _cpu_s()
            self._start_s = start_s or time.monotonic() + _HEAD_START_S
            started_unix_s = time.time() + self._start_s - time.monotonic()
            alarm.set(self._begin())
            await self._finished
            wall_s, cpu_s = time.monotonic() - self._start_s, _cpu_s() - cpu_before_s
            record = self._record()  # before streams that are given up go on
            await self._drain()
        finally:
            gc.enable()
            gc.unfreeze()
            alarm.close()
            await self.transport.close()
        broken = self.transport.broken
        return record, Outcome(wall_s, cpu_s, self._stopped, started_unix_s, self._messages, lost=broken)

    def stop(self, reason: StopReason) -> None:
        """Ends the run now; what is unanswered counts as such, whatever becomes of it."""
        if not self._stopped:
            self._stopped = reason
        self._give_up(self._oldest)

    def _begin(self) -> float:
        """Counts the schedule in `time.monotonic()` from now on; returns its first instant."""
        self._offsets = [offset_s + self._start_s for offset_s in self._offsets]
        return self._offsets[0] if self._offsets else 0.0

    # Hot path: called once per wake-up, once per answer, and once per streamed answer that begins.

    def _wake(self) -> None:
        if self._finished.done():
            return
        now_s = time.monotonic()
        first = self._next
        # One batch at a time, so that answers are read and stamped in between after a stall.
        due = bisect.bisect_right(self._offsets, now_s, first, min(first + LONGEST_BATCH, len(self._offsets)))
        if due > first:
            send, choices = self.transport.send, self._choices
            self._next = due
            self._status[first:due] = [PENDING] * (due - first)
            for index in range(first, due):
                send(index, choices[index])
            self.transport.flush()
            self._sent[first:due] = [time.monotonic()] * (due - first)
            if due - self._answered > self._limits.max_outstanding:
                self.stop("backlog")
                return
        self._sweep(now_s)
        if not self._finished.done():
            next_s = self._offsets[due] if due < len(self._offsets) else now_s + SWEEP_S
            self._alarm.set(min(next_s, now_s + SWEEP_S))

    def _on_done(self, index: int, when_s: float, status: int, message: str) -> None:
        if self._status[index] != PENDING:
            self._given_up.discard(index)
            if not self._given_up:
                self._drained.set()
            return
        self._done[index] = when_s
        self._status[index] = status
        self._answered += 1
        if index >= self._measured:
            return
        self._measured_answered += 1
        if status != OK:
            self._messages.setdefault(str(status), message[:500])
        for number, (measure, limit_s) in enumerate(self._early_stop):
            if measure:
                is_over = self._is_over(index, measure, limit_s, when_s, status)
            else:
                is_over = status != OK or when_s - self._offsets[index] > limit_s
            if is_over:
                self._count_over(number, index)
        if self._measured_answered == self._measured:
            self._give_up(max(self._oldest, self._measured))

    def _on_first(self, index: int, parts: Parts) -> None:
        if self._status[index] != PENDING or index >= self._measured:
            return
        self._parts[index] = parts
        self._timelines.follow(index, parts)
        for number, (measure, limit_s) in enumerate(self._early_stop):
            if measure == "ttft" and parts.first_s - self._offsets[index] > limit_s:
                self._count_over(number, index)

    def _is_over(self, index: int, measure: Measure, limit_s: float, when_s: float, status: int) -> bool:
        """Whether a streamed answer that ends is over a limit, and was not counted when it began."""
        parts = self._parts.get(index)
        if status != OK:
            return measure != "ttft" or parts is None or parts.first_s - self._offsets[index] <= limit_s
        if parts is None or measure == "ttft":
            return False
        return (parts.itl_s(when_s) if measure == "itl" else parts.gap_s) > limit_s

    def _count_over(self, number: int, index: int) -> None:
        stop = self._limits.early_stop[number]
        if stop.payloads is not None and not stop.payloads[0] <= self._choices[index] < stop.payloads[1]:
            return
        self._over[number] += 1
        if self._over[number] >= stop.count and not self._stopped:
            self._stopped = "hopeless"
            asyncio.get_running_loop().call_soon(self.stop, "hopeless")

    def _give_up(self, first: int) -> None:
        """Need no answer from `first` on: what is left only kept the load up, or comes too late."""
        for index in range(first, self._next):
            if self._status[index] == PENDING:
                self._status[index] = UNANSWERED
                self._given_up.add(index)
        if not self._finished.done():
            self._finished.set_result(None)

    async def _drain(self) -> None:
        """Let the server answer what it was asked, for a while, and no longer than its deadline for each request."""
        left_s = self._limits.until_s - (time.monotonic() - self._start_s)
        patience_s = min(_HURRIED_DRAIN_S if self._stopped == "asked" else DRAIN_S, self._timeout_s)
        patience_s = min(patience_s, max(left_s, _HURRIED_DRAIN_S))
        if self._given_up and not self.transport.lost:
            self._drained.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), patience_s)
        for index in self._given_up:
            self._cancel(index)
        self.transport.flush()

    def _cancel(self, index: int) -> None:
        self.transport.cancel(index)

    def _sweep(self, now_s: float) -> None:
        """Gives up on requests past their deadline, and on all where the run cannot go on."""
        self._expire(now_s)
        if self.transport.broken:
            self._give_up(self._oldest)
        if self.transport.lost and not self._finished.done():
            self.stop("connection lost")
        if now_s - self._start_s > self._limits.until_s and not self._finished.done():
            self.stop("budget")

    def _expire(self, now_s: float) -> None:
        """The server knows the same deadline."""
        while self._oldest < self._next:
            index = self._oldest
            if self._status[index] == PENDING:
                if now_s - self._sent[index] <= self._timeout_s:
                    break
                self.transport.cancel(index)
                self._on_done(index, now_s, DEADLINE_EXCEEDED, f"no answer within {self._timeout_s:g} s")
            self._oldest += 1

    def _record(self) -> Record:
        status = np.asarray(self._status, dtype=np.int16)
        answered = (status == OK) | (status <= 16) | (status == EMPTY_RESPONSE)
        done_s = np.where(answered, np.asarray(self._done) - self._start_s, np.nan)
        measured = slice(self._measured)
        record = Record(
            self._intended_s[measured],
            (np.asarray(self._sent) - self._start_s)[measured],
            done_s[measured],
            status.astype(np.uint8)[measured],
            timelines={index: np.asarray(at) - self._start_s for index, at in self._timelines.times().items()},
        )
        for index, parts in self._parts.items():
            record.first_s[index] = parts.first_s - self._start_s
            record.gap_s[index] = parts.gap_s
            record.parts[index] = parts.count
        return record


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
