"""One schedule over several generators, and their records as one again: pure functions.

Each request goes to a generator drawn from the probe's seed, so a Poisson schedule becomes independent Poisson
schedules (thinning) and the whole stays the schedule that the seed says. What comes back is ordered by intended time,
so every figure of the merged record is that of the pooled requests, not an average of averages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import BadRequestError
from loadtests.job import Limits
from loadtests.record import NOT_SENT, Outcome, Record, StopReason

_STREAM = 3
MOST_WORKERS = 255


@dataclass(frozen=True)
class Part:
    """What one generator is to fire."""

    intended_s: NDArray[np.float64]
    choices: NDArray[np.int32]
    limits: Limits

    @property
    def measured(self) -> int:
        """Requests that will be recorded."""
        return len(self.intended_s) - self.limits.cooldown

    def unsent(self) -> Record:
        """The record of a generator that told nothing."""
        intended_s = self.intended_s[: self.measured]
        nothing = np.full(len(intended_s), np.nan)
        return Record(intended_s, nothing, nothing, np.full(len(intended_s), NOT_SENT, np.uint8))


def split(
    intended_s: NDArray[np.float64], choices: NDArray[np.int32], limits: Limits, workers: int, *, seed: int
) -> list[Part]:
    """One part per generator; the parts together are the schedule, each in its order."""
    if not 1 <= workers <= MOST_WORKERS:
        raise BadRequestError(f"{workers} workers: give a number from 1 to {MOST_WORKERS}")
    if workers == 1:
        return [Part(intended_s, choices, limits)]
    owners = np.random.default_rng([seed, _STREAM]).integers(0, workers, len(intended_s))
    measured = len(intended_s) - limits.cooldown
    parts = []
    for worker in range(workers):
        own = np.flatnonzero(owners == worker)
        share = Limits(
            max_outstanding=math.ceil(limits.max_outstanding / workers),
            hopeless=tuple((limit_ms, _share_of(count, workers)) for limit_ms, count in limits.hopeless),
            cooldown=int((own >= measured).sum()),
            until_s=limits.until_s,
        )
        parts.append(Part(intended_s[own], choices[own], share))
    return parts


def _share_of(count: int, workers: int) -> int:
    """So many for one of them that all together have about `count`: its mean and twice its scatter."""
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
        workers=tuple((outcome.cpu_s, outcome.wall_s) for outcome in outcomes),
        lost="; ".join(f"generator {number + 1} of {len(found)} {how}" for number, how in sorted(lost.items())),
    )
