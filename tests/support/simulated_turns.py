"""Two simulated queues measured in turns on a machine that becomes slower meanwhile: no clock, no process."""

from __future__ import annotations

import numpy as np
from simulated import simulate

from loadtests.records.point import Point
from loadtests.search.budget import Plan
from loadtests.search.turns import in_turns
from loadtests.slo import Slo


def run_in_turns(
    slo: Slo,
    services_s: tuple[float, float],
    *,
    budget_s: float,
    seed: int,
    exponential: bool = False,
    slower: float = 0.0,
    jitter: float = 0.0,
    gap: float | None = None,
) -> tuple[list[Point], list[Point]]:
    """The points of both sides. The machine's service times grow evenly by the share `slower` over both budgets, and
    each probe's own by a factor of standard deviation `jitter`."""
    rng = np.random.default_rng([seed, 9])
    plans = tuple(Plan((slo,), 0.5 / each, seed, budget_s, unloaded_s=each, gap=gap) for each in services_s)
    points: tuple[list[Point], list[Point]] = ([], [])
    now_s, turns = 0.0, in_turns(plans, points)  # type: ignore[arg-type]
    try:
        side, probe = next(turns)
        while True:
            factor = (1 + slower * now_s / (2 * budget_s)) * np.exp(jitter * rng.standard_normal())
            point = simulate(probe, slo, services_s[side] * factor, rng if exponential else None)
            now_s += point.took_s
            points[side].append(point)
            side, probe = turns.send(point)
    except StopIteration:
        return points
