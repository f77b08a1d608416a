"""What one SLO is judged by: one value for each request, also of a probe that was cut off.

One request is one sample, whatever its answer consists of. The parts of an answer come from the same steps of a server
and wait for the same neighbours, so they say little more than one of them, and a request that is late once is late.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loadtests.judge.verdict import SloJudgement, judge
from loadtests.records.record import UNANSWERED, Floats, Record
from loadtests.slo import Measure, Slo


@dataclass(frozen=True)
class Sample:
    """Of the attempted requests that are known, in the order of their schedule."""

    slo: Slo
    known: Record
    values_ms: Floats
    """Infinite where a request failed: it is over every limit."""
    own: NDArray[np.bool_]
    """Those that the SLO is about."""

    @classmethod
    def of(
        cls, slo: Slo, known: Record, slos: Sequence[Slo], models: Sequence[str], stopped_s: float | None = None
    ) -> Sample:
        """`stopped_s` is when a probe was cut off. A request that was unanswered then and not late yet, by the largest
        limit on this measure, counts as in time. Where the measure is about parts, it is left out."""
        if stopped_s is not None and slo.measure in ("itl", "gap"):
            known = known.known_at(stopped_s, 0.0, slo.measure)
        values_ms = known.measured_ms(slo.measure)
        if stopped_s is not None:
            limits_ms = (other.limit_ms for other in slos if other.measure == slo.measure and other.limit_ms)
            waited_ms = at_least_ms(known, slo.measure, stopped_s)
            values_ms = np.where(waited_ms < max(limits_ms, default=math.inf), waited_ms, values_ms)
        return cls(slo, known, values_ms, requests_of(slo, models, known))

    def judged(self, kept: NDArray[np.bool_] | Literal[True] = True) -> SloJudgement:
        """By those of its requests that are kept."""
        return judge(self.slo, self.values_ms[self.own & kept])


def requests_of(slo: Slo, models: Sequence[str], record: Record) -> NDArray[np.bool_]:
    """The attempted requests that an SLO is about."""
    of_model = record.model[record.attempted]
    return of_model == models.index(slo.model) if slo.model else np.ones(len(of_model), np.bool_)


def at_least_ms(record: Record, measure: Measure, stopped_s: float) -> Floats:
    """Values to show: a request still unanswered at an early stop has waited at least until then."""
    values_ms = record.measured_ms(measure)
    waited_ms = (stopped_s - record.intended_s[record.attempted]) * 1e3
    return np.where((record.status[record.attempted] == UNANSWERED) & np.isinf(values_ms), waited_ms, values_ms)
