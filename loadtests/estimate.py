"""The best guess of the capacity, with its uncertainty, from all points together.

Each point says how many of its requests were over the limit. Near the capacity the log-odds of being over grow in a
straight line with the logarithm of the rate, so two numbers describe the curve: the rate where the share equals what
the SLO allows, and how steep it is there. Both are given by Bayes' rule on a grid: the likelihood is binomial in
independent requests (`verdict.dependence`), points far from the crossing weigh less (the line is only local), and the
prior is flat in the crossing and wide in the steepness. Unlike a bootstrap this needs no luck when every point below
the capacity is clean and every point above is hopeless, which is what a short search looks like.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtests.point import Point
from loadtests.slo import Slo

Floats = NDArray[np.float64]

_CROSSINGS, _SLOPES = 800, 48
_SLOPE_MEDIAN, _SLOPE_SPREAD = 9.0, 0.9
"""d log-odds / d ln rate: about 5 for a nearly idle M/M/1 limit, 60 for one at 95 % load."""
_REACH = 0.45
"""Points further than this in ln(rate) from the crossing do not count."""
_MOST_EVIDENCE = 600.0
"""Independent requests one point may count as: beyond that the machine's own drift decides, not the sample."""


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
    """Of the SLO that gives out first. None until there is a point below and one above the capacity."""
    found = [fitted for slo in slos if (fitted := _fit(points, slo)) is not None]
    return min(found, key=lambda fitted: fitted.rate_per_s) if found else None


def _fit(points: Sequence[Point], slo: Slo) -> Estimate | None:
    rates, requests, over = _evidence(points, slo)
    if not len(rates):
        return None
    share = over / requests
    above, below = share > slo.allowed_share, share <= slo.allowed_share
    if not above.any() or not below.any():
        return None
    # The first guess: between the highest rate that held and the lowest that did not.
    centre = math.log(math.sqrt(float(rates[below].max()) * float(rates[above].min())))
    for _ in range(3):
        grid, posterior, slopes = _posterior(np.log(rates), requests, over, slo.allowed_share, centre)
        cumulative = np.cumsum(posterior)
        low, median, high = np.interp([0.025, 0.5, 0.975], cumulative, grid)
        centre = float(median)
    crossings = tuple(np.exp(np.interp(np.arange(0.05, 1, 0.1), cumulative, grid)).tolist())
    return Estimate(math.exp(median), math.exp(low), math.exp(high), slopes, slo, crossings)


def _evidence(points: Sequence[Point], slo: Slo) -> tuple[Floats, Floats, Floats]:
    """Rates, independent requests and how many of them were over, of the points that can be believed."""
    rows = []
    for point in points:
        counts = next((count for count in point.slos if count.slo == str(slo)), None)
        # A spoiled point still shows that a rate is too high, never that it is low enough.
        if counts is None or not counts.requests or (point.verdict == "invalid" and point.passes):
            continue
        effective = min(counts.requests / counts.dependence, _MOST_EVIDENCE)
        rows.append((point.rate_per_s, effective, effective * counts.over / counts.requests))
    table = np.asarray(rows, dtype=np.float64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def _posterior(
    log_rates: Floats, requests: Floats, over: Floats, allowed: float, centre: float
) -> tuple[Floats, Floats, float]:
    """Crossings (ln rate), the probability of each, and the mean slope."""
    grid = np.linspace(centre - 1.2 * _REACH, centre + 1.2 * _REACH, _CROSSINGS)
    slopes = _SLOPE_MEDIAN * np.exp(_SLOPE_SPREAD * np.linspace(-2.5, 2.5, _SLOPES))
    weights = np.clip(1 - np.abs((log_rates - centre) / _REACH) ** 3, 0.02, None) ** 3
    odds = _logit(allowed) + slopes[None, :, None] * (log_rates[None, None, :] - grid[:, None, None])
    # log(share) and log(1 - share) without overflow
    log_over, log_under = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
    likelihood = (weights * (over * log_over + (requests - over) * log_under)).sum(axis=-1)
    likelihood += -0.5 * (np.log(slopes / _SLOPE_MEDIAN) / _SLOPE_SPREAD)[None, :] ** 2
    posterior = np.exp(likelihood - likelihood.max())
    posterior /= posterior.sum()
    return grid, posterior.sum(axis=1), float(posterior.sum(axis=0) @ slopes)


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
