"""Two servers measured in turns: whose probe is next, and the ratio of their capacities.

The order is A B, B A, A B, ...: both probes of a turn have the same seed, and nothing else is under load meanwhile. A
machine that becomes slower during the search slows both sides of each turn alike, so that the ratio stays what it is.

The ratio comes from the turns alone. Each probe says by its late requests where its side's capacity lay at that moment
(`estimate`). Within a turn the two capacities share a factor of the machine, and each has a small one of its own; the
turns decide how far these factors spread. Integrating them out leaves the ratio with its interval.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Generator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtests.records.point import Point, Probe
from loadtests.search.budget import PROBE_SHARE, Plan
from loadtests.search.estimate import DRIFT_PRIOR, DRIFTS, Estimate, estimate, log_likelihood
from loadtests.search.observations import observe
from loadtests.search.search import Searching, search
from loadtests.slo import Slo
from loadtests.workload.schedule import probe_seed

Floats = NDArray[np.float64]
Turns = Generator[tuple[int, Probe], Point, None]

_SEARCH_SHARE = 0.5
"""Of each side's budget: what its own search takes. The rest is for probes at both capacities."""
_PROBES = 8
"""As long as the search took, into so many probes split."""
_FEWEST_TURNS = 4
"""Fewer do not show how far the machine's factors spread."""
_HALF = 48
_LEAST_REACH, _MOST_REACH = 0.3, 0.6
"""How far in ln(rate) the grid goes to both sides."""


class Ratio(NamedTuple):
    """Capacity of the second over that of the first, with the interval that holds it with 95 % probability."""

    value: float
    low: float
    high: float


def in_turns(plans: tuple[Plan, Plan], points: tuple[list[Point], list[Point]]) -> Turns:
    """Yields (side, probe) and is sent the point, which the caller has added to the `points` of that side.

    Each side makes its own search with half of its budget, and then probes at its estimated capacity. That ends when a
    side has no time left or nothing to probe, and with a `gap` as soon as the ratio's interval is that narrow.
    """
    ended: set[int] = set()
    sides = [_side(plan, own, ended) for plan, own in zip(plans, points, strict=True)]
    sent: list[Point | None] = [None, None]
    while len(ended) < len(sides):
        one, other = map(len, points)
        if one == other and _narrow_enough(plans, points):
            return
        side = one % 2 if one == other else int(one > other)
        if side in ended:
            side = 1 - side
        try:
            probe = sides[side].send(sent[side])  # type: ignore[arg-type]
        except StopIteration:
            ended.add(side)
            continue
        sent[side] = yield side, probe


def _side(plan: Plan, points: list[Point], ended: Collection[int]) -> Searching:
    """A search, and then probes at the capacity for as long as no side has `ended`."""
    yield from search(replace(plan, budget_s=_SEARCH_SHARE * plan.budget_s), tuple(points))
    least_s = max(PROBE_SHARE * plan.budget_s, plan.short_s)
    seconds = max(sum(point.took_s for point in points) / _PROBES, plan.short_s)
    while not ended and plan.left_s(points) > least_s and (fitted := estimate(points, plan.slos)):
        rate_per_s = min(fitted.rate_per_s, plan.max_per_s)
        number = len(points)
        until_s = plan.left_s(points) + plan.unloaded_s
        requests = max(round(rate_per_s * seconds), 8)
        yield Probe(number, "refine", rate_per_s, requests, probe_seed(plan.seed, number), until_s)


def _narrow_enough(plans: tuple[Plan, Plan], points: tuple[list[Point], list[Point]]) -> bool:
    gap = plans[0].gap
    if gap is None or any(not own or own[-1].phase != "refine" for own in points):
        return False
    found = capacity_ratio(*points, plans[0].slos)
    return found is not None and found.high / found.low <= 1 + gap


def capacity_ratio(first: Sequence[Point], second: Sequence[Point], slos: Sequence[Slo]) -> Ratio | None:
    """Points of the same number are a turn. None where a side has no estimate, or too few turns show anything."""
    fitted = [estimate(points, slos) for points in (first, second)]
    if fitted[0] is None or fitted[1] is None:
        return None
    reach = _LEAST_REACH  # wide enough for both intervals
    for each in fitted:
        assert each is not None
        reach = max(reach, 2 * math.log(each.high_per_s / each.low_per_s))
    step = min(reach, _MOST_REACH) / _HALF
    one = _by_turn(first, fitted[0], step, _HALF)
    other = _by_turn(second, fitted[1], step, 2 * _HALF)
    turns = sorted(one.keys() & other.keys())
    if len(turns) < _FEWEST_TURNS:
        return None
    ratios = _posterior(np.stack([one[turn] for turn in turns]), np.stack([other[turn] for turn in turns]), step)
    cumulative = np.cumsum(ratios)
    logs = np.interp((0.025, 0.5, 0.975), cumulative, (np.arange(len(ratios)) + 0.5 - _HALF) * step)
    low, value, high = np.exp(logs + math.log(fitted[1].rate_per_s / fitted[0].rate_per_s)).tolist()
    return Ratio(value, low, high)


def _by_turn(points: Sequence[Point], fitted: Estimate, step: float, half: int) -> dict[int, Floats]:
    """The likelihood of each crossing around the estimate, at most 1, of each point by its number."""
    observed = observe(points, fitted.slo)
    centre = math.log(fitted.rate_per_s)
    grid = centre + np.arange(-half, half + 1) * step
    logs = log_likelihood(observed, fitted.slo, centre, grid, np.array([fitted.slope]))[:, 0, :]
    return {number: np.exp(row - row.max()) for number, row in zip(observed.numbers.tolist(), logs.T, strict=True)}


def _posterior(one: Floats, other: Floats, step: float) -> Floats:
    """The probability of each ratio of the crossings, in `step`s from -_HALF to _HALF, from [turn, crossing]."""
    shared = np.concatenate([_kernel(drift / step, _HALF) for drift in DRIFTS])
    logs = np.empty((len(DRIFTS), 2 * _HALF + 1, len(DRIFTS) * (2 * _HALF + 1)))
    for row, (own, prior) in enumerate(zip(DRIFTS, DRIFT_PRIOR, strict=True)):
        first, second = one @ _kernel(own / step, _HALF).T, other @ _kernel(own / step, 2 * _HALF).T
        for shift in range(2 * _HALF + 1):
            both = first * second[:, shift : shift + 2 * _HALF + 1]
            logs[row, shift] = np.log(np.maximum(shared @ both.T, 1e-300)).sum(axis=1) + math.log(prior)
    logs += np.repeat(np.log(DRIFT_PRIOR), 2 * _HALF + 1)
    posterior = np.exp(logs - logs.max()).sum(axis=(0, 2))
    return np.asarray(posterior / posterior.sum())


@functools.lru_cache(maxsize=64)
def _kernel(spread: float, half: int) -> Floats:
    """How likely each crossing (column) is, in steps, where the common one is at a row."""
    offsets = np.arange(-half, half + 1)
    if not spread:
        return np.eye(len(offsets))
    kernel = np.exp(-0.5 * ((offsets[:, None] - offsets[None, :]) / spread) ** 2)
    return np.asarray(kernel / kernel.sum(axis=1, keepdims=True))
