"""The next confirmation rate, from the points measured so far, and the early-stop threshold of a probe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from loadtests.judge.verdict import CONFIRMATION_CONFIDENCE, at_most, most_over
from loadtests.records.point import Point, Probe
from loadtests.search.estimate import Estimate, estimate
from loadtests.search.observations import dependence_near
from loadtests.slo import Slo

_FEWEST_OVER, _CLUSTER = 4, 8
"""Never give up on fewer; a single slow moment may make that many late in the continuation of a confirmation."""
_CONTINUED = 2.5
"""A confirmation may be continued to this many times its requests."""
_CAUTIOUS = 0.7
"""Of the rate that short probes met: what to try when no rate can be expected to pass in the time there is."""


@dataclass(frozen=True)
class Lookahead:
    """How likely a confirmation has to pass, and how dependent its requests may turn out to be."""

    pass_probability: float
    dependence_factors: tuple[float, ...]
    """Equally likely multiples of the dependence that the probes around, too short to see long runs, have shown."""


FIRST = Lookahead(0.9, tuple(1.5 * math.exp(NormalDist().inv_cdf(share)) for share in (0.1, 0.3, 0.5, 0.7, 0.9)))
"""For the first certificate, without which the whole search was for nothing. Chosen with simulated searches of queues
on machines that stall, where few short probes say little about the runs of slow requests (docs/capacity.md)."""
HIGHER = Lookahead(0.6, (1.2,))
"""For a better one."""


def early_stop_threshold(probe: Probe, slo: Slo) -> int:
    """Number of requests over the limit after which a probe stops early.

    A confirmation ends when it cannot pass any more. A short probe also has to show by how much a rate misses, so it
    goes on until three times the allowed share is over.
    """
    if probe.phase == "confirm":
        most = most_over(probe.requests * _CONTINUED, slo.allowed_share, CONFIRMATION_CONFIDENCE)
        return max(most + 1, math.ceil(2 * slo.allowed_share * probe.requests) + _CLUSTER)
    return math.ceil(3 * slo.allowed_share * probe.requests) + _FEWEST_OVER


def next_confirmation_rate(
    points: Sequence[Point], slos: Sequence[Slo], seconds: float, fallback_per_s: float, lookahead: Lookahead
) -> tuple[float, float]:
    """The highest rate at which a probe of `seconds` passes with the wanted probability, by the estimated curve, and
    that probability.

    A probe cannot pass right at the capacity: the fewer its requests, the further below it must stay. When no rate is
    that likely, the likeliest one. The probability is 0 where no estimate can be made.
    """
    fitted = estimate(points, slos)
    if fitted is None:
        return fallback_per_s, 0.0
    best_per_s, best = _CAUTIOUS * min(fallback_per_s, fitted.rate_per_s), 0.0
    rate_per_s = fitted.rate_per_s
    while rate_per_s > fitted.rate_per_s / 4:
        near = dependence_near(points, fitted.slo, rate_per_s) or 1.0
        factors = [max(near * multiple, 1.0) for multiple in lookahead.dependence_factors]
        chance = fmean(_pass_probability(fitted, rate_per_s, rate_per_s * seconds / factor) for factor in factors)
        if chance >= lookahead.pass_probability:
            return rate_per_s, chance
        if chance > best:
            best_per_s, best = rate_per_s, chance
        rate_per_s *= 0.99
    return best_per_s, best


def _pass_probability(fitted: Estimate, rate_per_s: float, independent: float) -> float:
    """Averaged over where the capacity may really be."""
    allowed = fitted.slo.allowed_share
    most = most_over(independent, allowed, CONFIRMATION_CONFIDENCE)
    if most < 0:
        return 0.0
    shares = fitted.shares_over(rate_per_s)
    return sum(at_most(most, independent, share) for share in shares) / len(shares)
