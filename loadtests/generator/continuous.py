"""Sends requests until it is stopped, at a rate that may change at any time: the generator behind Locust's front.

Arrivals follow a law (`workload.arrivals`) and never wait for answers. When the rate changes, the rest of the gap to
the next arrival is stretched or compressed to the new one. What each request carries is drawn as for a schedule
(`mix`), a block at a time. What was answered is handed over every quarter of a second, by a thread: requests are due
meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import nan

import numpy as np

from loadtests.errors import GeneratorError
from loadtests.generator.clock import Alarm
from loadtests.generator.messages import DRAIN_S, Batch, unanswered
from loadtests.generator.parts import Parts
from loadtests.generator.transport import OnDone, OnFirst, Transport
from loadtests.records.record import DEADLINE_EXCEEDED, OK, UNANSWERED, Record
from loadtests.workload.arrivals import POISSON, Arrivals
from loadtests.workload.mix import ModelMix
from loadtests.workload.schedule import probe_seed

BATCH_S = 0.25
_SWEEP_S = 0.05
_LONGEST_BATCH = 256
_BLOCK = 4096
_NEVER = float("inf")


@dataclass(frozen=True)
class _Taken:
    """What the event loop gives away to be made into a batch."""

    ended: array[float]
    """Five numbers a request: intended, sent and done time, status, model."""
    ended_parts: array[float]
    """Four numbers a streamed answer: its place among those that ended, time of its first part, longest gap, parts."""
    waiting: list[list[float]]
    """Intended and sent time and model of each request."""
    begun: list[tuple[float, int]]
    """When the first part of each of these came, NaN where none has, and how many came; empty without streams."""
    rate_per_s: float
    since_s: float
    at_s: float
    cpu_s: float
    wall_s: float
    messages: dict[str, str]
    final: bool


class ContinuousRun:
    """Unlike `open_loop.OpenLoopRun`, which runs one schedule that is known beforehand."""

    def __init__(
        self,
        mix: ModelMix,
        make_transport: Callable[[OnDone, OnFirst], Transport],
        on_batch: Callable[[Batch], None],
        *,
        seed: int,
        arrivals: Arrivals = POISSON,
        timeout_s: float = 10.0,
        max_outstanding: int = 20_000,
        drain_s: float = DRAIN_S,
    ) -> None:
        self.transport = make_transport(self._on_done, self._on_first)
        self._on_batch = on_batch
        self._gaps = arrivals.gaps(seed=seed)
        self._left = next(self._gaps)
        """To the next arrival, at rate 1."""
        self._mix = mix
        self._seed = seed
        self._blocks = 0
        self._carried: Iterator[tuple[int, int]] = iter(())
        self._timeout_s = timeout_s
        self._max_outstanding = max_outstanding
        self._drain_s = drain_s
        self._rate_per_s = 0.0
        self._next_s = _NEVER
        self._since_s = time.monotonic()
        self._pending: dict[int, list[float]] = {}  # index -> intended time, sent time, model; oldest first
        self._count = 0
        self._ended = array("d")
        self._parts: dict[int, Parts] = {}  # of the streamed answers that are pending
        self._ended_parts = array("d")
        self._messages: dict[str, str] = {}
        self._measured_until_s = self._drained_s = _NEVER
        self._finished = asyncio.Event()
        self._batches = ThreadPoolExecutor(1, thread_name_prefix="batches")

    def set_rate(self, rate_per_s: float, *, rebalanced: bool = False) -> None:
        """Change the rate; 0 pauses. `rebalanced`: only this generator's share changes, not the total rate."""
        self._hand_over()
        now_s = time.monotonic()
        if self._rate_per_s > 0:
            self._left = max(self._next_s - now_s, 0.0) * self._rate_per_s
        self._rate_per_s = rate_per_s
        if not rebalanced:
            self._since_s = now_s
        self._next_s = now_s + self._left / rate_per_s if rate_per_s > 0 else _NEVER
        self._alarm.set(min(self._next_s, now_s + _SWEEP_S))

    def finish(self) -> None:
        """Measures no new requests; the load goes on until those before are answered."""
        self._measured_until_s = min(self._measured_until_s, time.monotonic())

    async def run(self) -> None:
        """Send until `finish` and until the last answers have arrived. The transport must be open.

        Raises GeneratorError when the transport broke by our own fault.
        """
        loop = asyncio.get_running_loop()
        self._unix_s = time.time() - time.monotonic()
        self._handed_s, self._handed_cpu_s = time.monotonic(), _cpu_s()
        self._alarm = Alarm(loop, self._wake)
        self._alarm.set(time.monotonic())
        gc.collect()
        gc.freeze()
        handing = asyncio.ensure_future(self._keep_handing_over())
        try:
            await self._finished.wait()
        finally:
            handing.cancel()
            self._alarm.close()
            await self.transport.close()
        self._hand_over(final=True)
        await asyncio.to_thread(self._batches.shutdown)
        if self.transport.broken:
            raise GeneratorError(self.transport.broken)

    # Hot path: called once per wake-up and once per answer.

    def _wake(self) -> None:
        now_s = time.monotonic()
        batch: list[list[float]] = []
        while self._next_s <= now_s and len(batch) < _LONGEST_BATCH:
            intended_s = self._next_s
            self._next_s += self._gap_s()
            index = self._count
            self._count += 1
            payload, model = self._carry()
            if len(self._pending) >= self._max_outstanding:
                self._end([intended_s, now_s, model], now_s, UNANSWERED, "not sent: too many requests are unanswered")
                continue
            times = [intended_s, now_s, model]
            self._pending[index] = times
            batch.append(times)
            self.transport.send(index, payload)
        if batch:
            self.transport.flush()
            sent_s = time.monotonic()
            for times in batch:
                times[1] = sent_s
        self._sweep(now_s)
        self._alarm.set(min(self._next_s, now_s + _SWEEP_S))

    def _on_done(self, index: int, when_s: float, status: int, message: str) -> None:
        times = self._pending.pop(index, None)
        if times is not None:
            self._end(times, when_s, status, message, self._parts.pop(index, None) if self._parts else None)

    def _on_first(self, index: int, parts: Parts) -> None:
        if index in self._pending:
            self._parts[index] = parts

    def _end(self, times: list[float], done_s: float, status: int, message: str, parts: Parts | None = None) -> None:
        intended_s, sent_s, model = times
        if intended_s <= self._measured_until_s:
            if parts is not None:
                self._ended_parts.extend((len(self._ended) // 5, parts.first_s, parts.gap_s, parts.count))
            self._ended.extend((intended_s, sent_s, done_s, status, model))
            if status != OK:
                self._messages.setdefault(str(status), message[:500])

    def _sweep(self, now_s: float) -> None:
        """Gives up on requests past their deadline, and ends when nothing measured is due any more."""
        while self._pending:
            index = next(iter(self._pending))
            if now_s - self._pending[index][1] <= self._timeout_s:
                break
            self.transport.cancel(index)
            self._on_done(index, now_s, DEADLINE_EXCEEDED, f"no answer within {self._timeout_s:g} s")
        if self.transport.broken:
            self._finished.set()
        if self._measured_until_s < now_s:
            oldest = next(iter(self._pending.values()), None)
            if oldest is None:
                self._finished.set()
            elif oldest[0] > self._measured_until_s:
                # Nothing measured is due any more. The rest is awaited too, for a while: Triton 2.51 can crash when
                # many requests are cancelled (docs/known-issues.md).
                if self._next_s != _NEVER:
                    self._next_s, self._drained_s = _NEVER, now_s + self._drain_s
                elif now_s > self._drained_s:
                    for index in self._pending:
                        self.transport.cancel(index)
                    self._pending.clear()
                    self._finished.set()

    def _begun(self) -> list[tuple[float, int]]:
        found = (self._parts.get(index) for index in self._pending)
        return [(parts.first_s, parts.count) if parts else (nan, 0) for parts in found]

    def _gap_s(self) -> float:
        return next(self._gaps) / self._rate_per_s

    def _carry(self) -> tuple[int, int]:
        """The payload and the model of the next request."""
        carried = next(self._carried, None)
        if carried is None:
            choices = self._mix.choices(_BLOCK, seed=probe_seed(self._seed, self._blocks))
            self._blocks += 1
            self._carried = zip(choices.tolist(), self._mix.owners_of(choices).tolist(), strict=True)
            carried = next(self._carried)
        return carried

    def _hand_over(self, *, final: bool = False) -> None:
        """Gives away what is known by now; one batch is made after the other."""
        now_s, cpu_s = time.monotonic(), _cpu_s()
        taken = _Taken(
            ended=self._ended,
            ended_parts=self._ended_parts,
            waiting=list(self._pending.values()),
            begun=self._begun() if self._parts else [],
            rate_per_s=self._rate_per_s,
            since_s=self._since_s + self._unix_s,
            at_s=now_s + self._unix_s,
            cpu_s=cpu_s - self._handed_cpu_s,
            wall_s=now_s - self._handed_s,
            messages=dict(self._messages),
            final=final,
        )
        self._ended, self._ended_parts = array("d"), array("d")
        self._handed_s, self._handed_cpu_s = now_s, cpu_s
        making = asyncio.get_running_loop().run_in_executor(self._batches, self._make_batch, taken)
        making.add_done_callback(lambda made: made.result())  # an error must not pass unseen

    def _make_batch(self, taken: _Taken) -> None:
        rows = np.frombuffer(taken.ended).reshape(-1, 5)
        times = rows[:, :3].T + self._unix_s
        status, model = rows[:, 3:].T.astype(np.uint8)
        record = Record(times[0], times[1], times[2], status, model)
        for place, first_s, gap_s, parts in np.frombuffer(taken.ended_parts).reshape(-1, 4):
            row = int(place)
            record.first_s[row], record.gap_s[row], record.parts[row] = first_s + self._unix_s, gap_s, parts
        begun = taken.begun or [(nan, 0)] * len(taken.waiting)
        waiting = np.column_stack([np.reshape(taken.waiting, (-1, 3)), np.reshape(begun, (-1, 2))])
        waiting = waiting[waiting[:, 0] <= self._measured_until_s]
        used = ("ended", "ended_parts", "waiting", "begun")
        given = {name: value for name, value in vars(taken).items() if name not in used}
        self._on_batch(
            Batch(
                record=record.where(np.argsort(rows[:, 0], kind="stable")),
                waiting=unanswered(
                    waiting[:, 0] + self._unix_s, waiting[:, 2], waiting[:, 3] + self._unix_s, waiting[:, 4]
                ),
                **given,
            )
        )

    async def _keep_handing_over(self) -> None:
        while True:
            await asyncio.sleep(BATCH_S)
            self._hand_over()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
