"""Whether a probe was in balance: a server that falls behind answers late only later, so a short probe may miss it.

A streamed answer counts as answered with its first part. How many streams run at once grows in every probe, from none
to as many as begin while one lasts; only those that wait to begin show that the server falls behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtests.judge.verdict import CONFIDENCE, PARTS
from loadtests.records.record import Floats, Record

_LEAST_GROWTH = 3.0
"""Requests: a stable queue that begins empty grows by less on its way to its usual length."""
_LEAST_REQUESTS = 100
"""Fewer, and a single busy period fills half of the probe."""


@dataclass(frozen=True)
class Backlog:
    """Unanswered requests that a newly scheduled one found, on average, in each half of the probe."""

    first_half: float
    second_half: float
    growing: bool

    def describe(self) -> str:
        return f"the backlog grew from {self.first_half:.1f} to {self.second_half:.1f} requests"


def answered_s(record: Record) -> Floats:
    """When each request was answered, a streamed one when its first part came; NaN where it was not."""
    return np.asarray(np.fmin(record.first_s, record.done_s))


def backlog_at_arrivals(record: Record) -> NDArray[np.int64]:
    """For each attempted request, how many earlier ones were unanswered at its intended time."""
    attempted = record.attempted
    intended_s = record.intended_s[attempted]
    done_s = np.sort(np.nan_to_num(answered_s(record)[attempted], nan=np.inf))
    return np.maximum(np.arange(len(intended_s)) - np.searchsorted(done_s, intended_s, side="right"), 0)


def judge_backlog(record: Record) -> Backlog:
    """Compares the halves: growing is what exceeds the differences between the parts of each half (Welch's test)."""
    backlog = backlog_at_arrivals(record).astype(np.float64)
    if len(backlog) < _LEAST_REQUESTS:
        mean = float(backlog.mean()) if len(backlog) else 0.0
        return Backlog(mean, mean, growing=False)
    from scipy.special import stdtrit

    halves = np.array_split(backlog, 2)
    first, second = (float(half.mean()) for half in halves)
    each = PARTS // 2
    parts = np.asarray([[float(part.mean()) for part in np.array_split(half, each)] for half in halves])
    error = float(np.sqrt((parts.var(axis=1, ddof=1) / each).sum()))
    certain = float(stdtrit(2 * (each - 1), CONFIDENCE)) * error
    growing = second - first > max(_LEAST_GROWTH, 0.5 * first, certain)
    return Backlog(first, second, growing)
