"""Several generator processes on this machine that run one schedule together.

A generator that dies or hangs makes the probe of that moment invalid and nothing else: the others stop, and the next
probe finds a fresh process in its place.
"""

from __future__ import annotations

import contextlib
import math
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import BadRequestError, GeneratorError
from loadtests.generator.messages import Limits
from loadtests.generator.process import GeneratorProcess, GeneratorSettings, RunInterrupted
from loadtests.records.record import NOT_SENT, Outcome, Record, StopReason

_HEAD_START_S = 0.03
OnReady = Callable[[], None]


class Generators(Protocol):
    """What a capacity search sends with: one process, several, or the workers of a Locust master."""

    def __enter__(self) -> Generators: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run_schedule(
        self,
        intended_s: NDArray[np.float64],
        choices: NDArray[np.int32],
        limits: Limits,
        *,
        seed: int,
        on_ready: OnReady,
    ) -> tuple[Record, Outcome]:
        """Fires one schedule, split by the seed; see `GeneratorProcess.run_schedule`."""


class GeneratorPool:
    """A context manager around `count` workers."""

    def __init__(self, target: GeneratorSettings, count: int = 1) -> None:
        split(np.zeros(0), np.zeros(0, np.int32), Limits(1), count, seed=0)  # refuses an impossible count
        self.workers = [GeneratorProcess(target) for _ in range(count)]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> GeneratorPool:
        for worker in self.workers:
            self._stack.enter_context(worker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run_schedule(
        self,
        intended_s: NDArray[np.float64],
        choices: NDArray[np.int32],
        limits: Limits,
        *,
        seed: int = 0,
        on_ready: OnReady = lambda: None,
    ) -> tuple[Record, Outcome]:
        """One schedule, run by all; Ctrl-C stops them all and then raises RunInterrupted.

        TargetLostError: no connection. GeneratorError: a generator cannot even be started.
        """
        parts = split(intended_s, choices, limits, len(self.workers), seed=seed)
        for worker, part in zip(self.workers, parts, strict=True):
            _hand_over(worker, part, restart=not worker.alive)
        for worker, part in zip(self.workers, parts, strict=True):
            try:
                worker.wait_ready()
            except GeneratorError:  # it died before it had sent anything, so nothing is lost
                _hand_over(worker, part, restart=True)
                worker.wait_ready()
        on_ready()
        start_s = time.monotonic() + _HEAD_START_S
        lost: dict[int, str] = {}
        for number, worker in enumerate(self.workers):
            with _noting(lost, number):
                worker.go(start_s)
        found: dict[int, tuple[Record, Outcome]] = {}
        try:
            self._collect(found, lost)
        except KeyboardInterrupt:
            self._stop(range(len(self.workers)))
            self._collect(found, lost)
            raise RunInterrupted(*_together(parts, found, lost)) from None
        return _together(parts, found, lost)

    def _collect(self, found: dict[int, tuple[Record, Outcome]], lost: dict[int, str]) -> None:
        """Waits for all; the first that stops early, dies or hangs, stops the others."""
        waiting = {w: number for number, w in enumerate(self.workers) if number not in lost and number not in found}
        while waiting:
            due_s = min(worker.due_s for worker in waiting)
            readable, _, _ = select.select(list(waiting), [], [], max(due_s - time.monotonic(), 0.0))
            for worker in readable or [worker for worker in waiting if worker.due_s <= due_s]:
                number = waiting.pop(worker)
                with _noting(lost, number):
                    found[number] = worker.result()
                if number in lost or found[number][1].stopped:
                    self._stop(waiting.values())

    def _stop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            with contextlib.suppress(GeneratorError):
                self.workers[number].stop()


_NOTHING = Outcome(wall_s=0.0, cpu_s=0.0, stopped="", started_unix_s=0.0)


def _together(
    parts: Sequence[Part], found: Mapping[int, tuple[Record, Outcome]], lost: Mapping[int, str]
) -> tuple[Record, Outcome]:
    broken = {number: f"failed: {outcome.lost}" for number, (_, outcome) in found.items() if outcome.lost}
    results = [found.get(number, (part.unsent(), _NOTHING)) for number, part in enumerate(parts)]
    return merge(results, lost={**broken, **lost})


def _hand_over(worker: GeneratorProcess, part: Part, *, restart: bool) -> None:
    if restart:
        worker.start()
    worker.prepare(part.intended_s, part.choices, part.limits)


@contextlib.contextmanager
def _noting(lost: dict[int, str], number: int) -> Iterator[None]:
    """A generator that has ended is written down instead of raised."""
    try:
        yield
    except GeneratorError as error:
        lost[number] = str(error).removeprefix("the generator process ")


# One schedule over several generators, and their records as one again: pure functions.
#
# Each request goes to a generator drawn from the probe's seed, so a Poisson schedule becomes independent Poisson
# schedules (thinning) and the whole stays the schedule that the seed says. What comes back is ordered by intended time,
# so every figure of the merged record is that of the pooled requests, not an average of averages.

_STREAM = 3
MOST_WORKERS = 255


@dataclass(frozen=True)
class Part:
    """What one generator is to send."""

    intended_s: NDArray[np.float64]
    choices: NDArray[np.int32]
    limits: Limits

    @property
    def measured(self) -> int:
        """Requests that will be recorded."""
        return len(self.intended_s) - self.limits.cooldown

    def unsent(self) -> Record:
        """The record of a generator that reported nothing."""
        intended_s = self.intended_s[: self.measured]
        nothing = np.full(len(intended_s), np.nan)
        return Record(intended_s, nothing, nothing, np.full(len(intended_s), NOT_SENT, np.uint8))


def split(
    intended_s: NDArray[np.float64], choices: NDArray[np.int32], limits: Limits, workers: int, *, seed: int
) -> list[Part]:
    """One part per generator; the parts together are the schedule, each in its order."""
    if not 1 <= workers <= MOST_WORKERS:
        raise BadRequestError(f"{workers} workers: give a number from 1 to {MOST_WORKERS}", field="workers")
    if workers == 1:
        return [Part(intended_s, choices, limits)]
    owners = np.random.default_rng([seed, _STREAM]).integers(0, workers, len(intended_s))
    measured = len(intended_s) - limits.cooldown
    parts = []
    for worker in range(workers):
        own = np.flatnonzero(owners == worker)
        share = Limits(
            max_outstanding=math.ceil(limits.max_outstanding / workers),
            early_stop=tuple(replace(stop, count=_share_of(stop.count, workers)) for stop in limits.early_stop),
            cooldown=int((own >= measured).sum()),
            until_s=limits.until_s,
        )
        parts.append(Part(intended_s[own], choices[own], share))
    return parts


def _share_of(count: int, workers: int) -> int:
    """One generator's share of `count`: its mean and twice its scatter."""
    mean = count / workers
    return math.ceil(mean + 2 * math.sqrt(mean))


def merge(found: Sequence[tuple[Record, Outcome]], *, lost: Mapping[int, str] | None = None) -> tuple[Record, Outcome]:
    """The records as one, each request marked with its generator; `lost` says which of them ended and how.

    The earliest early stop decides why and until when requests are known.
    """
    lost = lost or {}
    records = [
        replace(record, worker=np.full(len(record), number, np.uint8)) for number, (record, _) in enumerate(found)
    ]
    outcomes = [outcome for _, outcome in found]
    stopped = [outcome for outcome in outcomes if outcome.stopped]
    first = min(stopped, key=lambda outcome: (outcome.stopped == "asked", outcome.wall_s)) if stopped else None
    reason: StopReason = first.stopped if first and not lost else ""
    messages: dict[str, str] = {}
    for outcome in reversed(outcomes):
        messages |= outcome.messages
    return Record.merge(records), Outcome(
        wall_s=min(outcome.wall_s for outcome in stopped) if stopped else max(o.wall_s for o in outcomes),
        cpu_s=sum(outcome.cpu_s for outcome in outcomes),
        stopped=reason,
        started_unix_s=min(outcome.started_unix_s for outcome in outcomes),
        messages=messages,
        priority=", ".join(sorted({outcome.priority for outcome in outcomes if outcome.priority})),
        workers=tuple((outcome.cpu_s, outcome.wall_s) for outcome in outcomes),
        lost="; ".join(f"generator {number + 1} of {len(found)} {how}" for number, how in sorted(lost.items())),
    )
