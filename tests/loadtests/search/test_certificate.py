"""A server that freezes: no short run between two freezes certifies a rate, and no rate is made up for it."""

import dataclasses
import functools

import numpy as np
import pytest
from queueing import freezing_s
from simulated import run_search, simulate

from loadtests.records.point import Probe
from loadtests.report.prose import explain
from loadtests.results.result import CapacityResult, summarise
from loadtests.search.certificate import is_certified
from loadtests.search.monotonicity import monotonicity_violation
from loadtests.slo import Slo

P99 = Slo.parse("p99=50ms")


def searched(every_s: float, freeze_s: float, seed: int) -> CapacityResult:
    server = functools.partial(freezing_s, service_s=0.002, every_s=every_s, freeze_s=freeze_s)
    points = run_search(P99, 0.002, budget_s=90, seed=seed, server=server)
    return summarise(points, [P99], model="m", server="s", base_seed=seed)


def test_the_reference_freezes_as_said():
    arrivals_s = np.arange(0.0, 100.0, 0.01)
    latency_s = freezing_s(arrivals_s, 0.002, 10.0, 1.0)
    assert latency_s.min() == pytest.approx(0.002)
    assert latency_s.max() == pytest.approx(1.0, abs=0.02)
    assert np.mean(latency_s > 0.05) == pytest.approx(0.1 * 0.95 * 1.25, rel=0.15)  # and a fifth more to catch up


@pytest.mark.parametrize(
    ("every_s", "freeze_s", "seen"),
    [(5.0, 1.0, 3), (10.0, 1.0, 3), pytest.param(10.0, 0.2, 1, id="1.5 % late at any rate, where 1 % may be")],
)
def test_a_server_that_freezes_is_never_certified_and_hardly_estimated(every_s, freeze_s, seen):
    found = [searched(every_s, freeze_s, seed) for seed in range(4)]
    assert [result.capacity_per_s for result in found] == [None] * 4
    told = [result for result in found if result.capacity_estimate_per_s is None]
    assert len(told) >= seen
    for result in told:
        assert result.verdict in ("undecided", "fail")
        if result.verdict == "undecided":
            contradiction = monotonicity_violation(result.points)
            assert contradiction
            assert contradiction in result.reason
            assert "budget" not in explain(result)


def test_an_ordinary_queue_contradicts_itself_nowhere():
    for seed in range(3):
        assert not monotonicity_violation(run_search(P99, 0.002, budget_s=60, seed=seed, exponential=True))


def test_a_certificate_rests_on_an_eighth_of_the_search_or_ten_seconds():
    def points(before_s, run_s):
        run = simulate(Probe(1, "confirm", 200.0, round(200 * run_s), 1), P99, 0.001, None)
        before = simulate(Probe(0, "double", 300.0, 300, 0), P99, 0.001, None)
        return [dataclasses.replace(before, took_s=before_s), dataclasses.replace(run, took_s=run_s)]

    assert is_certified(points(20.0, 4.0), 200.0)
    assert not is_certified(points(40.0, 4.0), 200.0)
    assert not is_certified(points(500.0, 9.0), 200.0)
    assert is_certified(points(500.0, 10.5), 200.0)


def test_where_probes_contradict_a_capacity_a_certificate_takes_twice_as_long_as_they_took():
    def probe(number, phase, rate_per_s, seconds, **changes):
        point = simulate(Probe(number, phase, rate_per_s, round(rate_per_s * seconds), number), P99, 0.001, None)
        return dataclasses.replace(point, took_s=seconds, **changes)

    failed = {"verdict": "fail", "passes": False, "stopped": "hopeless"}
    before = [
        probe(0, "bisect", 450.0, 2.0),
        probe(1, "confirm", 250.0, 9.0, **failed),
        probe(2, "confirm", 200.0, 9.0, **failed),
    ]
    for seconds, certified in ((11.0, False), (17.0, False), (19.0, True)):
        assert is_certified([*before, probe(3, "confirm", 160.0, seconds)], 160.0) == certified
        assert is_certified([*before[:2], probe(3, "confirm", 160.0, seconds)], 160.0)
