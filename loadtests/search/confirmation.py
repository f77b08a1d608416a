"""Which rate is confirmed next and for how long, from the points measured so far; and when a probe stops early."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

from loadtests.judge.evidence import most_over, requests_needed
from loadtests.judge.sample import SHARED
from loadtests.judge.verdict import at_most
from loadtests.records.point import Point, Probe
from loadtests.search.budget import PROBE_SHARE, Plan, clean_s
from loadtests.search.certificate import confirmation_runs, lasted_s, least_s, missing_gain, proven_rate_per_s
from loadtests.search.estimate import Estimate, estimate
from loadtests.search.observations import dependence_near, filling_s, own_share
from loadtests.slo import Slo

RUN_SHARE = 0.4
"""Of the time left: the most that one run takes, so that one at too high a rate leaves enough for a lower one."""
_FIRST_PART = 0.5
"""Of the time that a rate is expected to need: after so much, what was seen decides whether to go on with it."""
_CLUSTER = 8
"""A single slow moment may make this many requests late."""
_DEPENDENCE_SPREAD = 0.5
"""Standard deviation in ln(dependence) of a confirmation, from what shorter probes around it showed."""


def early_stop_threshold(probe: Probe, slo: Slo, at_once: float = 0.0) -> int:
    """Number of requests over the limit after which a probe stops early: by then twice the allowed share is over.

    Of sequences as many as run `at_once` are late together.
    """
    return math.ceil(2 * slo.allowed_share * probe.requests + max(_CLUSTER, SHARED * at_once))


@dataclass(frozen=True)
class Confirmation:
    """One run to make."""

    rate_per_s: float
    seconds: float


def next_confirmation(points: Sequence[Point], plan: Plan, fallback_per_s: float) -> Confirmation | None:
    """The next run, at the rate that promises most in all the time left. None where no rate is worth one.

    A run speaks for all lower rates as well, so it pays to begin high and to step down when it does not go well.
    `fallback_per_s` is tried where no estimate can be made.
    """
    left_s, proven, runs = plan.left_s(points), proven_rate_per_s(points), confirmation_runs(points)
    fitted = estimate(points, plan.slos)
    if fitted is None:
        rate_per_s, chance = min(fallback_per_s, plan.max_per_s), 1.0
    else:
        rate_per_s, chance = _most_promising(points, fitted, left_s, proven, plan.max_per_s)
    if not chance or chance * (rate_per_s - proven) <= plan.tolerance * proven:
        return None
    needed_s = max(clean_s([slo], rate_per_s * own_share(points, slo), plan.lasting_s) for slo in plan.slos)
    if fitted is not None:
        needed_s = _FIRST_PART * _needed_s(points, fitted, rate_per_s, missing_gain(runs, rate_per_s))
    needed_s += max(filling_s(slo, rate_per_s) for slo in plan.slos)
    least_left_s = least_s(points, plan.budget_s) - lasted_s(runs, rate_per_s)
    seconds = max(min(needed_s, RUN_SHARE * left_s), least_left_s, PROBE_SHARE * plan.budget_s)
    too_short = left_s - seconds < PROBE_SHARE * plan.budget_s  # for another run
    return Confirmation(rate_per_s, left_s if too_short else seconds)


def _needed_s(points: Sequence[Point], fitted: Estimate, rate_per_s: float, gain: float) -> float:
    """About how long runs at a rate take to gain that."""
    dependence = dependence_near(points, fitted.slo, rate_per_s) or 1.0
    share = median(fitted.shares_over(rate_per_s))
    return (
        dependence * requests_needed(share, fitted.slo.allowed_share, gain) / rate_per_s / own_share(points, fitted.slo)
    )


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
    return None if fitted is None else _most_promising(points, fitted, seconds, above_per_s, ceiling_per_s)


def _most_promising(
    points: Sequence[Point], fitted: Estimate, seconds: float, above_per_s: float, ceiling_per_s: float
) -> tuple[float, float]:
    spread = NormalDist(0.0, _DEPENDENCE_SPREAD)
    factors = [math.exp(spread.inv_cdf(share)) for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    best_per_s, best, runs = above_per_s, 0.0, confirmation_runs(points)
    top_per_s = min(fitted.rate_per_s, ceiling_per_s)
    own = own_share(points, fitted.slo)
    tried = {point.rate_per_s for point in points if point.phase == "confirm"}
    for rate_per_s in sorted({top_per_s * 0.98**step for step in range(100)} | tried):
        if not max(fitted.rate_per_s / 8, above_per_s) < rate_per_s <= top_per_s:
            continue
        near = dependence_near(points, fitted.slo, rate_per_s) or 1.0
        missing, full_s = missing_gain(runs, rate_per_s), max(seconds - filling_s(fitted.slo, rate_per_s), 0.0)
        shares, allowed, chance = fitted.shares_over(rate_per_s), fitted.slo.allowed_share, 0.0
        for factor in factors:
            independent = rate_per_s * own * full_s / max(near * factor, 1.0)
            most = most_over(independent, allowed, missing)
            if most >= 0:
                chance += sum(at_most(most, independent, share) for share in shares) / len(shares) / len(factors)
        if chance * (rate_per_s - above_per_s) > best * (best_per_s - above_per_s):
            best_per_s, best = rate_per_s, chance
    return best_per_s, best
