"""Two simulated queues measured in turns: the machine becomes slower meanwhile, and the ratio does not."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

import numpy as np
import pytest
from queueing import md1_capacity_per_s, mm1_capacity_per_s
from simulated import simulate
from simulated_turns import run_in_turns

from loadtests.search.budget import Plan
from loadtests.search.turns import capacity_ratio, in_turns
from loadtests.slo import Slo

P99 = Slo.parse("p99=20ms")
SEARCHES = int(os.environ.get("FATHOM_SEARCHES", "100"))
"""How many pairs of searches the slow test makes of each case."""


@pytest.fixture(scope="module")
def drifting():
    """Two queues of which the second is a quarter faster, on a machine that becomes 20 % slower."""
    return run_in_turns(P99, (0.001, 0.0008), budget_s=30, seed=0, slower=0.2)


def test_both_sides_have_the_same_number_of_probes_with_the_same_seeds(drifting):
    one, other = drifting
    assert [point.seed for point in one] == [point.seed for point in other]
    assert [point.number for point in one] == list(range(len(one)))


def test_the_ratio_of_a_drifting_machine_is_that_of_a_steady_one(drifting):
    found = capacity_ratio(*drifting, [P99])
    assert 1 < found.low < md1_capacity_per_s(0.0008, 0.02, 0.99) / md1_capacity_per_s(0.001, 0.02, 0.99) < found.high
    back = capacity_ratio(*drifting[::-1], [P99])
    assert back.value == pytest.approx(1 / found.value, rel=0.01)
    assert back.high == pytest.approx(1 / found.low, rel=0.02)


def test_without_turns_that_show_both_capacities_there_is_no_ratio(drifting):
    one, other = drifting
    assert capacity_ratio(one, other[:3], [P99]) is None
    assert capacity_ratio(one, [point for point in other if point.verdict != "fail"][:2], [P99]) is None


def plan():
    return Plan((P99,), 500.0, 0, 20.0, unloaded_s=0.001)


def take_turns(points, count):
    """The sides of the next turns; their points are added."""
    taken, turns = [], in_turns((plan(), plan()), points)
    side, probe = next(turns)
    for _ in range(count):
        taken.append(side)
        points[side].append(simulate(probe, P99, 0.001, None))
        side, probe = turns.send(points[side][-1])
    return taken


def test_the_order_is_a_b_b_a_and_a_turn_that_was_cut_off_is_completed_first():
    points = ([], [])
    assert take_turns(points, 7) == [0, 1, 1, 0, 0, 1, 1]
    kept = (points[0][:2], points[1][:1])
    assert take_turns(kept, 4) == [1, 0, 1, 1]
    assert [point.seed for point in kept[0]] == [point.seed for point in points[0][:3]]


def test_a_side_that_has_nothing_more_to_probe_lets_the_other_end_its_search():
    idle = replace(plan(), max_per_s=400.0, start_per_s=400.0)  # which the queue sustains
    points, last = ([], []), None
    turns = in_turns((idle, plan()), points)
    with contextlib.suppress(StopIteration):
        while True:
            side, probe = turns.send(last)
            last = simulate(probe, P99, 0.001, None)
            points[side].append(last)
    assert points[0][-1].phase == "confirm"
    assert len(points[1]) > len(points[0])
    assert any(not point.passes for point in points[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exponential", "faster", "budget_s", "significant"),
    [
        (False, 1.0, 60, 0.07),
        (True, 1.0, 60, 0.07),
        (False, 1.1, 60, 1.0),
        (False, 1.1, 180, 1.0),
        (True, 1.1, 180, 1.0),
    ],
)
def test_the_interval_holds_the_ratio_of_a_machine_that_becomes_slower(exponential, faster, budget_s, significant):
    """In at least 93 of 100; equal queues differ significantly at most in 7."""
    capacity = mm1_capacity_per_s if exponential else md1_capacity_per_s
    true = capacity(0.001 / faster, 0.02, 0.99) / capacity(0.001, 0.02, 0.99)
    found = []
    for seed in range(SEARCHES):
        services_s = (0.001, 0.001 / faster)
        pair = run_in_turns(P99, services_s, budget_s=budget_s, seed=seed, exponential=exponential, slower=0.2)
        found.append(capacity_ratio(*pair, [P99]))
    assert None not in found
    held = np.mean([each.low <= true <= each.high for each in found])
    called = np.mean([not each.low <= 1 <= each.high for each in found])
    print(f"{'M/M/1' if exponential else 'M/D/1'} {faster:g} {budget_s} s: held {held:.2f}, significant {called:.2f}")
    assert held >= 0.93
    assert called <= significant
