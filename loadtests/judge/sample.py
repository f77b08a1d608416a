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

from loadtests.judge.verdict import NEAR_LIMIT, SloJudgement, judge
from loadtests.records.record import UNANSWERED, Floats, Record
from loadtests.slo import Measure, Slo

SHARED = 2.0
"""So many times the answers or sequences that run at once count as one independent request (see `least_dependence`)."""
_FILLING = 5.0
"""Answers' times until a server that batches them in flight runs as many as it will."""
_LEAST_KNOWN = 0.1
"""Of the requests of a probe: the least that say something."""


@dataclass(frozen=True)
class Sample:
    """The values of the attempted requests that are known, in the order of their schedule."""

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
            known = known.ended_at(stopped_s)
        values_ms = known.measured_ms(slo.measure)
        if stopped_s is not None:
            limits_ms = (other.limit_ms for other in slos if other.measure == slo.measure and other.limit_ms)
            waited_ms = at_least_ms(known, slo.measure, stopped_s)
            values_ms = np.where(waited_ms < max(limits_ms, default=math.inf), waited_ms, values_ms)
        return cls(slo, known, values_ms, requests_of(slo, models, known))

    def judged(self, kept: NDArray[np.bool_] | Literal[True] = True) -> SloJudgement:
        """By those of its requests that are kept."""
        values_ms = self.values_ms[self.own & kept]
        return judge(self.slo, values_ms, least_dependence=self._least_dependence(values_ms))

    def _least_dependence(self, values_ms: Floats) -> float:
        """The dependence of streams, unless even the slowest are far from a limit between parts."""
        if self.slo.measure in ("itl", "gap") and self.slo.limit_ms is not None and len(values_ms):
            slowest_ms = np.quantile(values_ms, 1 - min(5 * self.slo.allowed_share, 0.5), method="lower")
            if slowest_ms < NEAR_LIMIT * self.slo.limit_ms and not self.known.requests.any():
                return 1.0
        if not self.slo.model:
            return least_dependence(self.known)
        return least_dependence(self.known.where(np.flatnonzero(self.known.attempted)[self.own]))


def least_dependence(record: Record) -> float:
    """How many requests whose answers come in parts, or sequences of them, count as one at least; 1 where none do.

    They share the server with all that run at the same time. How many these are is correlated over the time that one
    lasts (exponentially, in the M/M/inf queue), so that twice their number count as one. In simulated servers of 8 and
    16 slots the true figures are 8 to 27, and 3 to 7 answers; where 24 to 30 sequences run at once, they are 39 to 87.
    And a probe begins with an empty server: until it has as many answers as it will have, nothing is late, and the
    requests of that time say nothing (sequences of that time are not measured). Requests of a mix to models that answer
    at once stay independent.
    """
    if not len(record):
        return 1.0
    streams, sequences = record.of_streaming_models(), record.where(np.greater(record.requests, 0))
    came = streams.where(streams.ok & np.greater(streams.parts, 0))
    streaming = _at_once(came.done_s - came.first_s, len(streams), float(record.intended_s[-1]))
    ended = sequences.where(sequences.ok)
    running = _at_once(ended.done_s - ended.begun_s, len(sequences), float(np.ptp(record.intended_s)))
    known = max(len(streams) - _FILLING * streaming, _LEAST_KNOWN * len(streams))
    independent = known / max(SHARED * streaming, 1.0) + len(sequences) / max(SHARED * running, 1.0)
    return len(record) / (independent + len(record) - len(streams) - len(sequences))


def _at_once(lasted_s: Floats, count: int, span_s: float) -> float:
    """How many run at the same time of so many that begin within a span."""
    return float(lasted_s.mean()) * count / span_s if len(lasted_s) and span_s > 0 else 0.0


def requests_of(slo: Slo, models: Sequence[str], record: Record) -> NDArray[np.bool_]:
    """The attempted requests that an SLO is about."""
    of_model = record.model[record.attempted]
    return of_model == models.index(slo.model) if slo.model else np.ones(len(of_model), np.bool_)


def at_least_ms(record: Record, measure: Measure, stopped_s: float) -> Floats:
    """Values to show: a request still unanswered at an early stop has waited at least until then."""
    values_ms = record.measured_ms(measure)
    waited_ms = (stopped_s - record.intended_s[record.attempted]) * 1e3
    return np.where((record.status[record.attempted] == UNANSWERED) & np.isinf(values_ms), waited_ms, values_ms)
