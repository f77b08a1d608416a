import contextlib
import math

import numpy as np
import pytest
from queueing import md1_capacity_per_s, mm1_capacity_per_s
from simulated import OVERHEAD_S, Stalls, run_search, simulate

from loadtests.errors import BadRequestError
from loadtests.records.point import Probe
from loadtests.results.result import summarise
from loadtests.search.budget import Plan
from loadtests.search.certificate import certificates
from loadtests.search.estimate import estimate
from loadtests.search.search import gap_reached, search
from loadtests.slo import Slo

P99 = Slo.parse("p99=20ms")
RUNS = 8


@pytest.fixture(scope="module")
def searches():
    """Searches of an M/D/1 queue with 1 ms of service: 886 requests/s keep a p99 of 20 ms."""
    return [run_search(P99, 0.001, budget_s=60, seed=seed) for seed in range(RUNS)]


CAPACITY_PER_S = md1_capacity_per_s(0.001, 0.02, 0.99)


def test_certified_rate_stays_below_the_capacity_and_not_far(searches):
    found = [next(iter(certificates(points)), None) for points in searches]
    rates = [certificate.rate_per_s / CAPACITY_PER_S for certificate in found if certificate]
    assert len(rates) >= RUNS - 1  # 60 s are few
    assert max(rates) <= 1.0
    assert np.median(rates) > 0.78
    assert min(rates) > 0.4  # a search that certified a safe rate may find no better in its 60 s


def test_a_rate_that_was_met_by_chance_is_probed_again():
    """Above the capacity, a short probe ends before the queue is full: bisection from there would only see failures."""
    service_s = 0.001
    plan = Plan((P99,), 500.0, 0, budget_s=60)
    searching = search(plan)
    probe, rates = next(searching), []
    while len(rates) < 4:
        rates.append(probe.rate_per_s)
        point = simulate(probe, P99, service_s, None)
        lucky = probe.rate_per_s == 1000 and rates.count(1000) == 1
        probe = searching.send(replace(point, verdict="undecided", passes=True, stopped="") if lucky else point)
    assert rates == [500, 1000, 2000, 1000]


def test_a_rate_whose_probes_were_invalid_is_tried_again_when_a_lower_one_is_met():
    searching = search(Plan((P99,), 500.0, 0, budget_s=60))
    probe, rates = next(searching), []
    while len(rates) < 6:
        rates.append(probe.rate_per_s)
        point = simulate(probe, P99, 0.0005, None)
        probe = searching.send(replace(point, verdict="invalid", passes=True) if len(rates) <= 2 else point)
    assert rates == [500, 500, 250, 500, 1000, 2000]


def test_exponential_service_is_certified_too():
    limit = Slo.parse("p99=50ms")
    capacity = mm1_capacity_per_s(0.005, 0.05, 0.99)
    rates = []
    for seed in range(4):
        certified = certificates(run_search(limit, 0.005, budget_s=240, seed=seed, exponential=True))
        rates.append(certified[0].rate_per_s / capacity if certified else 0.0)
    assert max(rates) <= 1.0
    assert np.median(rates) > 0.5


def test_a_short_search_on_a_machine_that_stalls_certifies_more_often_than_not():
    """Short probes there say little about how long the runs of slow requests are: the first certificate must not need
    them to be right."""
    limit, stalls = Slo.parse("p99=100ms"), Stalls(per_s=1.5, mean_s=0.012, of_probes=1.0)
    found = [certificates(run_search(limit, 0.0066, budget_s=50, seed=seed, stalls=stalls)) for seed in range(8)]
    rates = [certified[0].rate_per_s for certified in found if certified]
    assert len(rates) >= 5
    assert max(rates) <= md1_capacity_per_s(0.0066, 0.1, 0.99)


def test_budget_is_kept(searches):
    for points in searches:
        assert sum(point.took_s for point in points) < 60 * 1.1


SLOW = {
    "a p99 of three service times on a budget for one run": (2.0, "p99=6s", 630.0),
    "the same with room for a certificate": (2.0, "p99=6s", 6304.0),
    "a p90 that fits many service times": (5.0, "p90=25s", 1522.0),
    "half a minute a request": (30.0, "p90=90s", 9000.0),
    "one probe at most": (5.0, "p50=10s", 60.0),
}


@pytest.mark.parametrize("case", SLOW)
def test_a_slow_model_keeps_the_budget_and_is_not_flattered(case):
    service_s, limit, budget_s = SLOW[case]
    slo = Slo.parse(limit)
    capacity_per_s = md1_capacity_per_s(service_s, slo.limit_ms / 1e3, slo.percentile)
    for seed in range(3):
        points = run_search(slo, service_s, budget_s=budget_s, seed=seed)
        assert sum(point.took_s for point in points) <= budget_s + service_s + OVERHEAD_S
        assert all(best.rate_per_s <= capacity_per_s for best in certificates(points))
        fitted = summarise(points, [slo], model="m", server="s", base_seed=seed).capacity_estimate_interval_per_s
        assert fitted is None or fitted[0] < 1.2 * capacity_per_s


def test_a_slow_model_is_certified_in_twice_the_least_that_is_named():
    slo = Slo.parse("p90=25s")
    plan = Plan((slo,), 0.1, 0, unloaded_s=5.0)
    found = [certificates(run_search(slo, 5.0, budget_s=2 * plan.least_s, seed=seed)) for seed in range(6)]
    assert sum(bool(certified) for certified in found) >= 4
    assert all(certified[0].rate_per_s > 0.05 for certified in found if certified)


@pytest.mark.parametrize(
    ("budget_s", "unloaded_took_s"),
    [(5.0, 0.0), (5.0, 4.0), (200.0, 190.0), (60.0, 60.1)],
    ids=["shorter than one probe", "and most of it gone", "what is left is shorter", "nothing left"],
)
def test_no_time_for_a_probe_is_no_probe(budget_s, unloaded_took_s):
    slo = Slo.parse("p99=6s")
    assert next(search(Plan((slo,), 0.25, 0, budget_s, unloaded_s=2.0, unloaded_took_s=unloaded_took_s)), None) is None


def test_what_is_not_proven_names_the_confirmation_and_no_later_probe():
    slo = Slo.parse("p99=60ms")
    tried = (("double", 90.0, 400), ("confirm", 40.0, 300), ("refine", 70.0, 100), ("refine", 60.0, 100))
    points = [
        simulate(Probe(n, phase, rate, count, n), slo, 0.01, None) for n, (phase, rate, count) in enumerate(tried)
    ]
    result = summarise(points, [slo], model="m", server="s", base_seed=0)
    assert result.verdict == "undecided"
    assert "40/s" in result.reason


def test_a_probe_that_the_budget_cut_off_counts_only_when_it_failed():
    slo = Slo.parse("p99=6s")
    young, behind = (
        simulate(Probe(0, "double", rate_per_s, 60, 1, until_s=20.0), slo, 2.0, None) for rate_per_s in (0.1, 4.0)
    )
    assert (young.stopped, young.verdict) == ("", "undecided")  # all that had come was answered
    assert (behind.stopped, behind.verdict, behind.passes) == ("hopeless", "fail", False)
    cut = simulate(Probe(0, "double", 1.0, 60, 1, until_s=20.0), slo, 2.0, None)
    assert (cut.stopped, cut.verdict) == ("budget", "undecided")
    result = summarise([cut], [slo], model="m", server="s", base_seed=0)
    assert result.verdict == "undecided"


def test_phases_come_in_order_with_seeds_of_their_own(searches):
    for points in searches:
        phases = [point.phase for point in points if point.phase != "refine"]
        assert phases == sorted(phases, key=["double", "bisect", "confirm"].index)
        assert len({point.seed for point in points}) == len(points)
        assert [point.number for point in points] == list(range(len(points)))


def test_same_seed_same_search(searches):
    again = run_search(P99, 0.001, budget_s=60, seed=3)
    assert [(p.rate_per_s, p.requests, p.verdict) for p in again] == [
        (p.rate_per_s, p.requests, p.verdict) for p in searches[3]
    ]


@pytest.mark.parametrize("kept", [1, 2, 3, 5, 7])
def test_goes_on_from_known_points(searches, kept):
    known = searches[3][:kept]
    points = list(known)
    searching = search(Plan((P99,), 500.0, 3, budget_s=60), known)
    try:
        probe = next(searching)
        while True:
            points.append(simulate(probe, P99, 0.001, None))
            probe = searching.send(points[-1])
    except StopIteration:
        pass
    assert [point.number for point in points] == list(range(len(points)))
    assert len({point.seed for point in points}) == len(points)
    assert sum(point.took_s for point in points) < 60 * 1.1
    assert 0.5 < certificates(points)[0].rate_per_s / CAPACITY_PER_S <= 1.0


def test_a_longer_budget_goes_on_from_a_finished_search(searches):
    known = searches[3]
    first = next(search(Plan((P99,), 500.0, 3, budget_s=240), known))
    assert first.number == len(known)
    assert first.rate_per_s > 0.7 * CAPACITY_PER_S


def test_halves_when_the_first_rate_is_too_high():
    rates = [point.rate_per_s for point in drive(Plan((P99,), 8000.0, 0, budget_s=30), lambda rate: rate < 900)]
    assert rates[:5] == [8000, 4000, 2000, 1000, 500]


def test_gives_up_when_nothing_passes():
    points = drive(Plan((P99,), 100.0, 0, budget_s=20), lambda rate: False)
    assert not certificates(points)
    assert estimate(points, [P99]) is None
    assert len(points) < 20


def test_never_exceeds_the_maximum_and_confirms_there():
    points = drive(Plan((P99,), 100.0, 0, budget_s=60, max_per_s=700), lambda rate: True)
    assert max(point.rate_per_s for point in points) == 700
    assert certificates(points)[0].rate_per_s == 700


@pytest.mark.parametrize(("slo", "budget_s"), [("p90=500ms", 20), ("p99=1s", 60)])
def test_a_generous_limit_takes_no_longer_to_confirm_than_its_runs_must_last(slo, budget_s):
    """The time that a queue would take to fill counts for nothing in each run, so no run is planned without it."""
    points = drive(Plan((Slo.parse(slo),), 400.0, 0, budget_s=budget_s, max_per_s=400), lambda rate: True)
    assert certificates(points)[0].rate_per_s == 400


def test_an_invalid_probe_is_repeated_once_with_a_fresh_seed():
    plan = Plan((P99,), 100.0, 0, budget_s=60)
    searching = search(plan)
    first = next(searching)
    point = simulate(first, P99, 0.0001, None)
    second = searching.send(replace(point, verdict="invalid", took_s=1.0))
    assert second.rate_per_s == first.rate_per_s
    assert second.seed != first.seed


def test_with_a_gap_it_ends_when_the_proven_rate_is_near_the_estimate_and_the_longest_budget_otherwise():
    def seconds(gap, budget_s):
        points, searching = [], search(Plan((P99,), 500.0, 3, budget_s=budget_s, gap=gap))
        with contextlib.suppress(StopIteration):
            probe = next(searching)
            while True:
                points.append(simulate(probe, P99, 0.001, None))
                probe = searching.send(points[-1])
        assert gap_reached(points, [P99], gap) == (gap == 0.2)
        return sum(point.took_s for point in points)

    assert seconds(0.2, 600.0) < 120.0
    assert 60.0 < seconds(0.001, 90.0) < 99.0


@pytest.mark.parametrize(
    "change",
    [
        {"tolerance": 0},
        {"gap": 0},
        {"gap": 1},
        {"tolerance": 1},
        {"budget_s": 0},
        {"start_per_s": 0},
        {"max_per_s": -1},
    ],
)
def test_refuses_impossible_plans(change):
    with pytest.raises(BadRequestError):
        Plan(**{"slos": (P99,), "start_per_s": 1.0, "seed": 0, **change})


def replace(value, **changes):
    import dataclasses

    return dataclasses.replace(value, **changes)


def drive(plan, meets_slo):
    """The points of a search against a server that meets a rate or is hopeless at it."""
    searching = search(plan)
    points = []
    try:
        probe = next(searching)
        while True:
            service_s = 1e-6 if meets_slo(probe.rate_per_s) else 3 / probe.rate_per_s
            points.append(simulate(probe, plan.slos[0], service_s, None))
            assert math.isfinite(points[-1].took_s)
            probe = searching.send(points[-1])
    except StopIteration:
        return points
