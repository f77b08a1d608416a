"""The best guess of the capacity, with its uncertainty, from all points together.

Each point says how many of its requests were over the limit. Near the capacity the log-odds of being over grow in a
straight line with the logarithm of the rate, so two numbers describe the curve: the rate where the share equals what
the SLO allows, and how steep it is there. Both are given by Bayes' rule on a grid: the likelihood is binomial in
independent requests (`observations`), points far from the crossing weigh less (the line is only local), and the
prior is flat in the crossing and wide in the steepness. Unlike a bootstrap this needs no luck when every point below
the capacity is clean and every point above is hopeless, which is what a short search looks like.

A machine is not the same in every probe: something else runs, a clock changes, and a rate that was met is not met a
minute later. So each probe meets the crossing times a factor of its own, log-normal around 1 (a random effect), and
how far these factors spread is decided by the points as well: agreeing probes make the interval narrow, contradicting
ones make it as wide as they are apart.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtests.records.point import Point
from loadtests.search.observations import Observations, observe
from loadtests.slo import Slo

Floats = NDArray[np.float64]

_SLOPE_SPREAD = 0.8
"""Standard deviation of the prior in ln(slope): queues differ from M/M/1 by a factor of two and more."""
_FLATTEST = 5.0
"""The least slope to expect, of limits so short that only a few requests arrive within them."""
_LATE_BEFORE = 0.1
"""Late requests at the expected crossing that the prior adds to those seen: without, estimates are 1 % higher."""
DRIFTS = (0.0, 0.02, 0.05, 0.1, 0.2)
"""Standard deviations in ln(rate) of the machine's own factor from probe to probe, ..."""
DRIFT_PRIOR = (0.35, 0.2, 0.2, 0.15, 0.1)
"""... and how likely each is beforehand: with equal ones, slow queues are estimated 1 % higher."""
_REACH = 0.45
"""Points further than this in ln(rate) from the crossing do not count: the line is only local."""
_OFFSETS = np.linspace(-1.2 * _REACH, 1.2 * _REACH, 320)
"""The crossings that are considered, in ln(rate) from the one that is expected: steps of 0.3 %."""


@dataclass(frozen=True)
class Estimate:
    """The rate at which the share over the limit is what the SLO allows; an end of the interval may be open."""

    rate_per_s: float
    low_per_s: float
    high_per_s: float
    slope: float
    """How fast the log-odds of being over grow with ln(rate)."""
    slo: Slo
    crossings_per_s: tuple[float, ...]
    """Where the capacity may be: equally likely values."""

    def shares_over(self, rate_per_s: float) -> list[float]:
        """The share over the limit at a rate, for each of `crossings_per_s`."""
        odds = (
            _logit(self.slo.allowed_share) + self.slope * math.log(rate_per_s / crossing_per_s)
            for crossing_per_s in self.crossings_per_s
        )
        return [1 / (1 + math.exp(-min(max(value, -50.0), 50.0))) for value in odds]


def estimate(points: Sequence[Point], slos: Sequence[Slo]) -> Estimate | None:
    """The capacity for the SLO that is missed first. None until there is a point below and one above the capacity."""
    found = [fitted for slo in slos if (fitted := _fit(points, slo)) is not None]
    return min(found, key=lambda fitted: fitted.rate_per_s) if found else None


def _fit(points: Sequence[Point], slo: Slo) -> Estimate | None:
    observed = observe(points, slo)
    above = observed.shares > slo.allowed_share
    if not above.any() or above.all():
        return None
    # The first guess: between the highest rate that was met and the lowest that was not.
    rates = observed.rates_per_s
    centre = math.log(math.sqrt(float(rates[~above].max()) * float(rates[above].min())))
    for _ in range(3):
        expected = _likely_slope(slo, math.exp(centre), streamed=any(point.streaming for point in points))
        grid, posterior, slope = _posterior(observed, slo, centre, expected)
        cumulative = np.cumsum(posterior)
        low, median, high = np.interp([0.025, 0.5, 0.975], cumulative, grid)
        centre = float(median)
    crossings = tuple(np.exp(np.interp(np.arange(0.05, 1, 0.1), cumulative, grid)).tolist())
    return Estimate(math.exp(median), math.exp(low), math.exp(high), slope, slo, crossings)


def _posterior(observed: Observations, slo: Slo, centre: float, expected: float) -> tuple[Floats, Floats, float]:
    """Crossings (ln rate), the probability of each, and the mean slope, where one is `expected`."""
    grid = centre + _OFFSETS
    spread = _SLOPE_SPREAD * np.linspace(-2.5, 2.5, 20)
    slopes = expected * np.exp(spread)
    by_point = log_likelihood(observed, slo, centre, grid, slopes)
    by_drift = _drifting(by_point)
    at_centre = _logit(slo.allowed_share) + slopes * (centre - grid[:, None])
    prior = -0.5 * (spread / _SLOPE_SPREAD) ** 2 - _LATE_BEFORE * np.logaddexp(0, -at_centre)
    likelihood = by_drift + np.log(DRIFT_PRIOR)[:, None, None] + prior
    posterior = np.exp(likelihood - likelihood.max()).sum(axis=0)
    posterior /= posterior.sum()
    return grid, posterior.sum(axis=1), float(posterior.sum(axis=0) @ slopes)


def log_likelihood(observed: Observations, slo: Slo, centre: float, grid: Floats, slopes: Floats) -> Floats:
    """Of each point, as [crossing of the grid, slope, point]; those far from the `centre` weigh less."""
    distance = np.log(observed.rates_per_s)
    weights = np.clip(1 - np.abs((distance - centre) / _REACH) ** 3, 0.02, None) ** 3
    odds = _logit(slo.allowed_share) + slopes[None, :, None] * (distance[None, None, :] - grid[:, None, None])
    # A lower bound agrees with every larger share as well as with its own.
    bound = np.where(observed.at_least, _logits(observed.shares), np.inf)
    odds = np.minimum(odds, bound)
    # log(share) and log(1 - share) without overflow
    log_over, log_under = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
    return np.asarray(weights * (observed.over * log_over + (observed.requests - observed.over) * log_under))


def _drifting(by_point: Floats) -> Floats:
    """Log-likelihoods [drift, crossing, slope] where each point's own crossing lies around the common one."""
    best = by_point.max(axis=0)
    each = np.exp(by_point - best).reshape(len(_OFFSETS), -1)
    mixed = [np.log(np.maximum(_kernel(drift) @ each, 1e-300)).reshape(by_point.shape) + best for drift in DRIFTS[1:]]
    return np.stack([found.sum(axis=-1) for found in (by_point, *mixed)])


@functools.cache
def _kernel(drift: float) -> Floats:
    """How likely each crossing of the grid (column) is a point's own, where the common one is at a row."""
    kernel = np.exp(-0.5 * ((_OFFSETS[:, None] - _OFFSETS[None, :]) / drift) ** 2)
    return np.asarray(kernel / kernel.sum(axis=1, keepdims=True))


def _likely_slope(slo: Slo, rate_per_s: float, *, streamed: bool) -> float:
    """What to expect of d log-odds / d ln(rate) before looking.

    An M/M/1 queue is late with the probability exp(-(service rate - rate) * limit), whose slope is rate * limit: the
    requests that arrive within the limit. An M/D/1 queue is twice as steep. Of answers in parts only the first token
    waits in a queue; how long the whole takes is mostly a matter of its length.
    """
    waits = slo.measure == "ttft" or not (streamed or slo.measure)
    arrivals = rate_per_s * (slo.limit_ms or 0.0) / 1e3 if waits else 0.0
    return max(1.4 * arrivals, _FLATTEST)


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _logits(shares: Floats) -> Floats:
    inside = np.clip(shares, 1e-9, 1 - 1e-9)
    return np.log(inside / (1 - inside))
