"""The next confirmation, chosen from constructed points."""

import dataclasses

import pytest
from simulated import simulate

from loadtests.records.point import Point, Probe
from loadtests.search.budget import Plan
from loadtests.search.confirmation import most_promising, next_confirmation
from loadtests.slo import Slo

P99 = Slo.parse("p99=20ms")
PLAN = Plan((P99,), 500.0, 0, budget_s=180.0)


def run(number: int, phase: str, rate_per_s: float, seconds: float, **changes: object) -> Point:
    """A probe of an M/D/1 queue with a capacity of 886/s."""
    probe = Probe(number, phase, rate_per_s, round(rate_per_s * seconds), number)
    return dataclasses.replace(simulate(probe, P99, 0.001, None), took_s=seconds, **changes)


EXPLORED = [
    run(0, "double", 500.0, 2),
    run(1, "double", 1000.0, 2),
    run(2, "bisect", 700.0, 15),
    run(3, "bisect", 870.0, 15),
]


def confirmed(number: int, rate_per_s: float, over: int, verdict: str) -> Point:
    point = run(number, "confirm", rate_per_s, 20)
    count = dataclasses.replace(point.slos[0], over=over, dependence=8.0, over_by_part=())
    return dataclasses.replace(point, slos=(count,), verdict=verdict, passes=verdict != "fail")


def test_the_first_rate_lies_below_the_capacity_and_leaves_time():
    chosen = next_confirmation(EXPLORED, PLAN, 700.0)
    assert chosen is not None
    assert 600 < chosen.rate_per_s < 886
    assert 10 <= chosen.seconds <= 0.5 * PLAN.left_s(EXPLORED)


def test_a_run_that_went_well_is_followed_by_another_at_its_rate():
    good = dataclasses.replace(run(4, "confirm", 780.0, 8), verdict="undecided", passes=True)
    good = dataclasses.replace(good, slos=(dataclasses.replace(good.slos[0], over=0, dependence=20.0),))
    chosen = next_confirmation([*EXPLORED, good], PLAN, 700.0)
    assert chosen is not None
    assert chosen.rate_per_s == 780.0


def test_failures_step_down():
    points, rates = list(EXPLORED), []
    for number in range(4, 7):
        chosen = next_confirmation(points, PLAN, 700.0)
        assert chosen is not None
        rates.append(chosen.rate_per_s)
        points.append(confirmed(number, chosen.rate_per_s, 900, "fail"))
        points[-1] = dataclasses.replace(points[-1], took_s=1.0)
    assert rates[1] <= rates[0] / 1.03
    assert rates[2] <= rates[1]


def test_a_short_undecided_run_does_not_keep_a_longer_search_from_higher_rates():
    short = run(4, "confirm", 600.0, 1, verdict="undecided", passes=True)  # 600 requests, of which none certifies
    short = dataclasses.replace(short, slos=(dataclasses.replace(short.slos[0], dependence=50.0),))
    chosen = next_confirmation([*EXPLORED, short, short], dataclasses.replace(PLAN, budget_s=600.0), 500.0)
    assert chosen is not None
    assert chosen.rate_per_s > 600.0


@pytest.mark.parametrize(("max_per_s", "highest"), [(600.0, 600.0), (float("inf"), 886.0)])
def test_no_rate_above_the_maximum(max_per_s, highest):
    chosen = next_confirmation(EXPLORED, dataclasses.replace(PLAN, max_per_s=max_per_s), 700.0)
    assert chosen is not None
    assert chosen.rate_per_s <= highest


def test_nothing_is_confirmed_where_no_rate_promises_more():
    certified = dataclasses.replace(confirmed(4, 885.0, 0, "pass"), took_s=20.0)
    assert next_confirmation([*EXPLORED, certified], PLAN, 700.0) is None


def test_more_time_promises_a_higher_rate():
    rates = [found[0] for seconds in (10.0, 60.0, 600.0) if (found := most_promising(EXPLORED, [P99], seconds))]
    assert rates == sorted(rates)
    assert rates[0] < 0.95 * rates[-1]


SLOW = Slo.parse("p99=2s")


def slow(number: int, phase: str, rate_per_s: float, seconds: float) -> Point:
    """A probe of the same queue a hundred times slower."""
    probe = Probe(number, phase, rate_per_s, round(rate_per_s * seconds), number)
    return dataclasses.replace(simulate(probe, SLOW, 0.1, None), took_s=seconds)


def of_one_model(point: Point) -> Point:
    """As if the SLO were for a model that gets a quarter of four times as many requests."""
    count = dataclasses.replace(point.slos[0], slo=f"m:{SLOW}")
    return dataclasses.replace(point, requests=4 * point.requests, slos=(count,), rate_per_s=4 * point.rate_per_s)


@pytest.mark.parametrize("probes", [1, 4], ids=["without an estimate", "with one"])
def test_an_slo_of_one_model_of_a_mix_takes_as_long_as_its_own_requests(probes):
    known = [
        slow(0, "double", 5.0, 5),
        slow(1, "double", 10.0, 5),
        slow(2, "bisect", 7.0, 30),
        slow(3, "bisect", 9, 30),
    ]
    plan = Plan((SLOW,), 5.0, 0, budget_s=600.0)
    alone = next_confirmation(known[:probes], plan, 5.0)
    mixed_plan = dataclasses.replace(plan, slos=(dataclasses.replace(SLOW, model="m"),), start_per_s=20.0)
    mixed = next_confirmation(list(map(of_one_model, known[:probes])), mixed_plan, 20.0)
    assert alone is not None
    assert mixed is not None
    assert mixed.rate_per_s == pytest.approx(4 * alone.rate_per_s, rel=0.1)
    assert mixed.seconds == pytest.approx(alone.seconds, rel=0.3)


def test_without_an_estimate_the_fallback_is_confirmed():
    chosen = next_confirmation(EXPLORED[:1], PLAN, 500.0)
    assert chosen is not None
    assert chosen.rate_per_s == 500.0
