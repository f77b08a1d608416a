"""The observations of one SLO in a search, for the estimate: rates, independent requests, and how many were over.

Three things would make the estimate too high if points were taken at face
value, as simulated queues show:

- A lucky probe has few late requests *and* shows few signs that they come in runs. Dividing each probe by its own
  dependence would let the lucky ones weigh more, so all probes together say how long the runs are at a rate.
- A probe begins with an empty server. Its first requests are left out, as many as the queue needs to fill.
- A probe that was stopped early because too many were late does not show how many there would have been: it counts
  as "at least so many".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtests.records.point import Point, SloCount
from loadtests.slo import Slo

Floats = NDArray[np.float64]

_NEAR, _GROWTH = 0.2, 3.0
"""How near in ln(rate) a probe must be to show another's dependence well; how that grows with rate in queues."""
_WARM_RUNS = 8
"""A queue near its limit is full after about so many times the requests that carry the information of one."""
LEAST_LIMITS = 8.0
"""The runs of a certificate last so many times the largest limit: a queue that grows slowly takes its time to pass it.
Or of answers in parts so many times an answer: their number takes so long to become what it will be."""


@dataclass(frozen=True)
class Observations:
    """One entry per usable point."""

    rates_per_s: Floats
    requests: Floats
    """Independent ones."""
    over: Floats
    at_least: NDArray[np.bool_]
    """Where `over` is a lower bound."""
    numbers: NDArray[np.int_]
    """Of the points."""

    @property
    def shares(self) -> Floats:
        return self.over / self.requests


def observe(points: Sequence[Point], slo: Slo) -> Observations:
    """Of the usable points. An invalid one never shows that a rate is low enough, and that it is too high
    only where no other point shows a rate that is: its requests may have been late because they were sent late."""
    usable = _observe([point for point in points if point.usable], slo)
    if np.any(usable.shares > slo.allowed_share):
        return usable
    return _observe([point for point in points if point.usable or not point.passes], slo)


def _observe(points: Sequence[Point], slo: Slo) -> Observations:
    """Without the points in which the server went away: these show nothing."""
    rows = []
    for point in points:
        count = slo_count(point, slo)
        if count is None or not count.requests or point.stopped == "connection lost":
            continue
        late = count.over > slo.allowed_share * count.requests
        cut_short = bool(point.stopped) and late
        factor = dependence_near(points, slo, point.rate_per_s) or count.dependence
        if cut_short:  # a single run, however long, is one observation
            factor = min(max(factor, count.dependence), count.over)
        requests, over = (count.requests, count.over) if cut_short else _without_warm_up(count, _WARM_RUNS * factor)
        effective = requests / factor
        rows.append((point.rate_per_s, effective, effective * over / requests, cut_short, point.number))
    table = np.asarray(rows, dtype=np.float64).reshape(-1, 5)
    return Observations(table[:, 0], table[:, 1], table[:, 2], table[:, 3].astype(bool), table[:, 4].astype(int))


def slo_count(point: Point, slo: Slo) -> SloCount | None:
    """How this SLO fared in a point."""
    return next((count for count in point.counts if count.slo == str(slo)), None)


def own_share(points: Sequence[Point], slo: Slo) -> float:
    """The part of all requests that the SLO is about: 1, or in a mix that of its model."""
    counted = [(count.requests, point.requests) for point in points if (count := slo_count(point, slo))]
    own, all_requests = (sum(column) for column in zip(*counted, strict=True)) if counted else (0, 0)
    return own / all_requests if own and slo.model else 1.0


def dependence_near(points: Sequence[Point], slo: Slo, rate_per_s: float) -> float | None:
    """How many requests at a rate carry the information of one (`judge.verdict.dependence`), by all probes around it.

    Slow requests come in longer runs the nearer a server is to its limit; in queues with and without randomness in the
    service, the runs grow at least with the third power of the rate. Longer probes count more, for short ones cannot
    see long runs. None without a whole probe.
    """
    expected, total = 0.0, 0.0
    for point in points:
        distance = math.log(rate_per_s / point.rate_per_s)
        count = slo_count(point, slo)
        if point.stopped or count is None:
            continue
        weight = float(count.requests) ** 2 * math.exp(-((distance / _NEAR) ** 2))
        expected += weight * max(math.log(count.dependence) + _GROWTH * distance, 0.0)
        total += weight
    return math.exp(expected / total) if total else None


def filling_s(slo: Slo, rate_per_s: float) -> float:
    """How much late time a run lacks because it begins with an empty server, if the rate is the capacity.

    Reflected Brownian motion from 0 spends limit / a seconds less above the limit, for each second of it in balance,
    where a queue drains by `a` seconds of work a second: 1 - its load (Harrison, "Brownian Motion and Stochastic Flow
    Systems", 1985). That is exact for long queues; one of a few requests lacks up to half as much again. The load
    follows from the hypothesis: 1 / a = 1 + slope / ln(1 / q), where q is the allowed share and the log-odds of being
    late grow with ln(rate) by `slope`: in M/D/1 queues twice the arrivals within the limit, in M/M/1 queues half of it.
    Of a fast server `a` may be a thousandth, and half a minute of each run would count for nothing. So LEAST_LIMITS
    times the limit are left out at most: by then a queue is late that is offered an eighth more than it holds.
    """
    limit_s = slo.request_limit_ms / 1e3
    return min(limit_s * (1 + 2 * rate_per_s * limit_s / -math.log(slo.allowed_share)), LEAST_LIMITS * limit_s)


def _without_warm_up(count: SloCount, warm_requests: float) -> tuple[float, float]:
    """Requests and late ones without the first `warm_requests`, but never without more than half of a probe."""
    if not count.over_by_part:
        return count.requests, count.over
    parts = len(count.over_by_part)
    skipped = min(math.ceil(warm_requests / count.requests * parts), parts // 2)
    return count.requests * (1 - skipped / parts), sum(count.over_by_part[skipped:])
