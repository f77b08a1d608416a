"""The estimate against queues whose capacity is known: simulated searches, so nothing but the statistics is tested."""

from __future__ import annotations

import dataclasses
import functools
import os

import numpy as np
import pytest
from queueing import (
    in_batches_s,
    md1_capacity_per_s,
    mm1_capacity_per_s,
    simulated_capacity_per_s,
    two_servers_s,
)
from simulated import run_search, simulate

from loadtests.records.point import Probe
from loadtests.search.estimate import estimate
from loadtests.search.observations import dependence_near, filling_s, observe
from loadtests.slo import Slo

P99 = Slo.parse("p99=20ms")
SEARCHES = int(os.environ.get("FATHOM_SEARCHES", "100"))
"""How many the slow test makes of each queue."""
QUEUES = {
    "M/D/1 p99, 886/s": (P99, 0.001, False, 60),
    "M/M/1 p99, 770/s": (P99, 0.001, True, 60),
    "M/D/1 p90, 379/s": (Slo.parse("p90=10ms"), 0.002, False, 60),
    "M/M/1 p90, 385/s": (Slo.parse("p90=20ms"), 0.002, True, 60),
    "M/D/1 p99, 193/s": (Slo.parse("p99=40ms"), 0.004, False, 120),
    "M/D/1 p99, 88/s": (Slo.parse("p99=60ms"), 0.008, False, 180),
    "M/M/1 p99, 108/s": (Slo.parse("p99=50ms"), 0.005, True, 180),
}


def errors_and_coverage(name: str, searches: int) -> tuple[np.ndarray, float]:
    slo, service_s, exponential, budget_s = QUEUES[name]
    formula = mm1_capacity_per_s if exponential else md1_capacity_per_s
    capacity_per_s = formula(service_s, slo.limit_ms / 1e3, slo.percentile)
    errors, held = [], []
    for seed in range(searches):
        found = estimate(run_search(slo, service_s, budget_s=budget_s, seed=seed, exponential=exponential), [slo])
        assert found is not None
        errors.append(found.rate_per_s / capacity_per_s - 1)
        held.append(found.low_per_s <= capacity_per_s <= found.high_per_s)
    return np.asarray(errors), float(np.mean(held))


@pytest.mark.parametrize("name", ["M/D/1 p99, 886/s", "M/M/1 p90, 385/s"])
def test_is_unbiased_and_its_interval_holds_the_capacity(name):
    errors, held = errors_and_coverage(name, 6)
    assert abs(np.mean(errors)) < 0.03, errors
    assert held >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("name", list(QUEUES))
def test_is_unbiased_over_many_searches(name):
    errors, held = errors_and_coverage(name, SEARCHES)
    print(f"{name}: {np.mean(errors):+.3f} +- {np.std(errors):.3f}, held {held:.2f}")
    assert abs(np.mean(errors)) < 0.02
    assert abs(np.median(errors)) < 0.02
    assert held >= 0.92


OTHERS = {
    "two servers": (Slo.parse("p99=40ms"), functools.partial(two_servers_s, service_s=0.01), 90),
    "batches of up to 8": (
        Slo.parse("p99=50ms"),
        functools.partial(in_batches_s, fixed_s=0.004, per_request_s=0.001, most=8),
        90,
    ),
}
"""Servers that are no M/D/1 or M/M/1 queue."""


@pytest.mark.slow
@pytest.mark.parametrize("name", list(OTHERS))
def test_servers_of_another_kind_are_estimated_as_well(name):
    slo, server, budget_s = OTHERS[name]
    capacity_per_s = simulated_capacity_per_s(server, slo.limit_ms / 1e3, slo.percentile, 50.0, 1000.0)
    errors, held = [], []
    for seed in range(SEARCHES // 4):
        points = run_search(slo, 2 / capacity_per_s, budget_s=budget_s, seed=seed, server=server)
        found = estimate(points, [slo])
        assert found is not None
        errors.append(found.rate_per_s / capacity_per_s - 1)
        held.append(found.low_per_s <= capacity_per_s <= found.high_per_s)
    print(f"{name}, {capacity_per_s:.0f}/s: {np.mean(errors):+.3f} +- {np.std(errors):.3f}, held {np.mean(held):.2f}")
    assert abs(np.mean(errors)) < 0.03
    assert np.mean(held) >= 0.85


def test_a_probe_that_was_cut_short_is_a_lower_bound():
    cut = simulate(Probe(0, "double", 1100.0, 5000, 1), P99, 0.001, None)
    assert cut.stopped == "hopeless"
    whole = simulate(Probe(1, "bisect", 700.0, 5000, 2), P99, 0.001, None)
    observed = observe([cut, whole], P99)
    assert observed.at_least.tolist() == [True, False]
    assert observed.over[0] >= 0.99  # one run of slow requests is at least one observation


def test_a_lucky_probe_does_not_weigh_more():
    """Both ran at the same rate: how far requests depend on one another there is told by both together."""
    first, second = (simulate(Probe(n, "bisect", 850.0, 6000, n + 1), P99, 0.001, None) for n in range(2))
    lucky = dataclasses.replace(first, slos=(dataclasses.replace(first.slos[0], over=0, dependence=1.0),))
    together = dependence_near([lucky, second], P99, 850.0)
    assert 1.0 < together < second.slos[0].dependence
    observed = observe([lucky, second], P99)
    assert observed.requests[0] == pytest.approx(observed.requests[1], rel=0.02)


def test_the_first_requests_of_a_probe_meet_an_empty_server():
    point = simulate(Probe(0, "bisect", 850.0, 6000, 5), P99, 0.001, None)
    count = point.slos[0]
    assert sum(count.over_by_part) == count.over
    early = dataclasses.replace(count, over=100, over_by_part=(100, *[0] * 19), dependence=3.0)
    late = dataclasses.replace(count, over=100, over_by_part=(*[0] * 19, 100), dependence=3.0)
    shares = [observe([dataclasses.replace(point, slos=(counts,))], P99).shares[0] for counts in (early, late)]
    assert shares[0] == 0.0
    assert shares[1] > 100 / 6000


def test_a_probe_in_which_the_server_went_away_says_nothing_of_its_rate():
    whole, died = (simulate(Probe(n, "bisect", 500.0 + n, 2000, n), P99, 0.001, None) for n in range(2))
    observed = observe([whole, dataclasses.replace(died, stopped="connection lost", verdict="fail")], P99)
    assert len(observed.rates_per_s) == 1


def test_a_probe_that_was_sent_late_is_only_listened_to_where_no_other_shows_the_edge():
    """A stalled generator made five rates below the capacity look too high, and took the estimate with them."""
    low, high = (simulate(Probe(n, "bisect", rate, 6000, n), P99, 0.001, None) for n, rate in enumerate((700.0, 960.0)))
    stalled = dataclasses.replace(
        low,
        rate_per_s=500.0,
        verdict="invalid",
        passes=False,
        slos=(dataclasses.replace(low.slos[0], over=300, over_by_part=()),),
    )
    assert observe([low, high, stalled], P99).rates_per_s.tolist() == observe([low, high], P99).rates_per_s.tolist()
    assert 500.0 in observe([low, stalled], P99).rates_per_s


def test_points_without_parts_are_read_too():
    """Results of earlier versions have none."""
    point = simulate(Probe(0, "bisect", 850.0, 6000, 5), P99, 0.001, None)
    old = dataclasses.replace(point.slos[0], over=60, over_by_part=())
    assert observe([dataclasses.replace(point, slos=(old,))], P99).shares[0] == pytest.approx(0.01)


def test_few_independent_requests_do_not_let_the_estimate_run_away():
    """A search of a real Triton, whose requests came in long runs: 4,134/s held, 8,269/s did not, 5,847/s once."""
    seen = [
        (2067.2, 2067, 0, 1.0, ""),
        (4134.4, 4134, 0, 1.0, ""),
        (8268.9, 1133, 459, 287.6, "hopeless"),
        (5847.0, 5847, 0, 119.8, ""),
        (5847.0, 5847, 71, 100.9, ""),
    ]
    any_point = simulate(Probe(0, "double", 500.0, 600, 1), P99, 0.001, None)
    points = []
    for rate_per_s, requests, over, dependence, stopped in seen:
        count = dataclasses.replace(
            any_point.slos[0], requests=requests, over=over, dependence=dependence, over_by_part=()
        )
        points.append(
            dataclasses.replace(any_point, rate_per_s=rate_per_s, requests=requests, slos=(count,), stopped=stopped)
        )
    found = estimate(points, [P99])
    assert found is not None
    assert 4134 < found.low_per_s < 5847 < found.high_per_s < 9500
    assert found.rate_per_s == pytest.approx(5847, rel=0.1)


@pytest.mark.parametrize(("limit", "service_s"), [("p99=60ms", 0.01), ("p99=20ms", 0.002), ("p99=40ms", 0.008)])
def test_the_time_that_a_queue_takes_to_fill_follows_from_capacity_and_limit(limit, service_s):
    slo = Slo.parse(limit)
    capacity_per_s = md1_capacity_per_s(service_s, slo.limit_ms / 1e3, slo.percentile)
    drains = 1 - capacity_per_s * service_s
    assert filling_s(slo, capacity_per_s) == pytest.approx(slo.limit_ms / 1e3 / drains, rel=0.03)
    assert filling_s(Slo.parse("errors=1%"), capacity_per_s) == 0.0


def test_a_fast_queue_counts_as_filled_once_it_is_late_an_eighth_above_the_capacity():
    """Exactly at the capacity it would take a minute and a half."""
    assert filling_s(Slo.parse("p99=100ms"), 20_000.0) == pytest.approx(0.8)
