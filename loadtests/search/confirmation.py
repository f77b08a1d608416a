"""Which rate is confirmed next and for how long, from the points measured so far; and when a probe stops early."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from loadtests.judge.verdict import CONFIRMATION_CONFIDENCE, at_most, most_over
from loadtests.records.point import Point, Probe
from loadtests.search.budget import Plan
from loadtests.search.certificate import certificates, is_certified, least_s, missing_requests
from loadtests.search.estimate import Estimate, estimate
from loadtests.search.observations import dependence_near
from loadtests.slo import Slo

RUN_SHARE = 0.3
"""Of the time left: what one run takes, so that a failed one leaves enough for a lower rate."""
_CLUSTER = 8
"""A single slow moment may make this many requests late."""
_DEPENDENCE_SPREAD = 0.7
"""Standard deviation in ln(dependence) of a confirmation, from what shorter probes around it showed."""


def early_stop_threshold(probe: Probe, slo: Slo) -> int:
    """Number of requests over the limit after which a probe stops early: by then twice the allowed share is over."""
    return math.ceil(2 * slo.allowed_share * probe.requests) + _CLUSTER


@dataclass(frozen=True)
class Confirmation:
    """One run to make."""

    rate_per_s: float
    seconds: float


def next_confirmation(points: Sequence[Point], plan: Plan, fallback_per_s: float) -> Confirmation | None:
    """The next run: a second one where the last ended undecided and time allows, otherwise one at the most promising
    rate. None where no rate is worth one. `fallback_per_s` is tried where no estimate can be made.
    """
    left_s = plan.left_s(points)
    rates = list(dict.fromkeys(point.rate_per_s for point in points if point.phase == "confirm"))
    if rates and 0 < (missing := missing_requests(points, rates[-1])) <= left_s * rates[-1]:
        return Confirmation(rates[-1], max(missing / rates[-1], RUN_SHARE * left_s))
    certified_per_s = max((certificate.rate_per_s for certificate in certificates(points)), default=0.0)
    ceiling_per_s = _ceiling_per_s(points, plan, rates)
    rate_per_s, chance = most_promising(points, plan.slos, left_s, certified_per_s, ceiling_per_s) or (
        min(fallback_per_s, ceiling_per_s),
        1.0,
    )
    if chance * (rate_per_s - certified_per_s) <= plan.tolerance * certified_per_s:
        return None
    shortest_s = max(least_s(points, plan.budget_s), plan.clean_requests / rate_per_s)
    if rates and shortest_s > left_s:
        return None
    return Confirmation(rate_per_s, max(RUN_SHARE * left_s, shortest_s))


def _ceiling_per_s(points: Sequence[Point], plan: Plan, rates: Sequence[float]) -> float:
    """No rate above is tried: each further failure in a row shows more clearly that the probes flatter the server."""
    ceiling_per_s, failures, next_s = plan.max_per_s, 0, RUN_SHARE * plan.left_s(points)
    for rate_per_s in rates:
        if is_certified(points, rate_per_s):
            failures = 0
        elif any(_refuses(point, next_s) for point in points if point.rate_per_s == rate_per_s):
            ceiling_per_s = min(ceiling_per_s, rate_per_s / (1 + plan.tolerance * 2**failures))
            failures += 1
    return ceiling_per_s


def _refuses(point: Point, next_s: float) -> bool:
    """Whether it is a valid confirmation run, or one that the generator alone does not explain. One that was met and
    only ended undecided says nothing once there is time for a run of twice its length."""
    if point.phase != "confirm":
        return False
    return not point.passes or (point.verdict != "invalid" and 2 * point.took_s > next_s)


def most_promising(
    points: Sequence[Point],
    slos: Sequence[Slo],
    seconds: float,
    above_per_s: float = 0.0,
    ceiling_per_s: float = math.inf,
) -> tuple[float, float] | None:
    """The rate for which probability to pass times gain over `above_per_s` is highest, and that probability.

    A run of `seconds` cannot pass right at the capacity: the fewer its requests, the further below it must stay. None
    without an estimate.
    """
    fitted = estimate(points, slos)
    if fitted is None:
        return None
    spread = NormalDist(0.0, _DEPENDENCE_SPREAD)
    factors = [math.exp(spread.inv_cdf(share)) for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    best_per_s, best = above_per_s, 0.0
    rate_per_s = min(fitted.rate_per_s, ceiling_per_s)
    while rate_per_s > max(fitted.rate_per_s / 8, above_per_s):
        near = dependence_near(points, fitted.slo, rate_per_s) or 1.0
        chance = fmean(
            _pass_probability(fitted, rate_per_s, rate_per_s * seconds / max(near * factor, 1.0)) for factor in factors
        )
        if chance * (rate_per_s - above_per_s) > best * (best_per_s - above_per_s):
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
