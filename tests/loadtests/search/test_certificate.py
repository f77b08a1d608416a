"""What a certificate rests on, and a server that freezes: no short run between two freezes certifies a rate."""

import dataclasses
import functools

import numpy as np
import pytest
from queueing import freezing_s, md1_capacity_per_s
from simulated import run_search, simulate

from loadtests.records.point import Point, Probe
from loadtests.report.prose import explain
from loadtests.results.result import CapacityResult, summarise
from loadtests.search.certificate import certificates, proven_rate_per_s
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

    for before_s, run_s, certified in ((20.0, 4.0, True), (40.0, 4.0, False), (500.0, 9.0, False), (500.0, 10.5, True)):
        assert bool(certificates(points(before_s, run_s))) == certified


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
        assert bool(certificates([*before, probe(3, "confirm", 160.0, seconds)])) == certified
        assert certificates([*before[:2], probe(3, "confirm", 160.0, seconds)])


def run(rate_per_s: float, requests: int, over: int = 0, *, dependence: float = 1.0, **changes: object) -> Point:
    """A confirmation run of a minute with the given counts."""
    point = simulate(Probe(0, "confirm", rate_per_s, requests, 0), P99, 1e-6, None)
    count = dataclasses.replace(point.slos[0], over=over, dependence=dependence)
    told = {"verdict": "undecided", "passes": over <= requests / 100, "slos": (count,), "took_s": 60.0}
    return dataclasses.replace(point, **{**told, **changes})


def of_a_mix(point: Point, rare: int) -> Point:
    """With an SLO of its own for a model that has so many of the requests."""
    (count,) = point.slos
    return dataclasses.replace(point, slos=(count, dataclasses.replace(count, slo="rare:p99=50ms", requests=rare)))


FAILED = run(60.0, 800, 100, verdict="fail")
CERTIFIED = {
    "so many clean requests": ([run(50.0, 530)], 50.0),
    "too few": ([run(50.0, 450)], 0.0),
    "two runs add up": ([run(50.0, 300)] * 2, 50.0),
    "and so does a third": ([run(50.0, 200)] * 3, 50.0),
    "dependent requests count less": ([run(50.0, 400, dependence=2.0)] * 2, 0.0),
    "a run speaks for lower rates as well": ([run(60.0, 300), run(50.0, 300)], 50.0),
    "but not for higher ones": ([run(50.0, 300), run(60.0, 300)], 50.0),
    "what failed above makes it dearer": ([FAILED, run(50.0, 600)], 0.0),
    "which more requests outweigh": ([FAILED, run(50.0, 900)], 50.0),
    "what failed later takes nothing away": ([run(50.0, 530), FAILED], 50.0),
    "below a rate that is not certified none is": ([run(50.0, 600, 100, verdict="fail"), run(60.0, 600)], 0.0),
    "a spoiled run does not count": ([run(50.0, 600, verdict="invalid"), run(50.0, 300)], 0.0),
    "nor does another probe": ([run(50.0, 600, phase="refine")], 0.0),
    "a run that was cut off is none that was met": ([run(50.0, 900, stopped="budget")], 0.0),
    "of a mix, the rare model has enough too": ([of_a_mix(run(1000.0, 20_000), 600)], 1000.0),
    "or has not": ([of_a_mix(run(1000.0, 20_000), 500)], 0.0),
    "failed requests beyond one in a thousand": ([run(50.0, 1500, 2, errors=2)], 0.0),
}


@pytest.mark.parametrize("case", CERTIFIED)
def test_a_rate_is_certified_by_what_was_seen_at_it_and_above(case):
    points, rate_per_s = CERTIFIED[case]
    assert proven_rate_per_s(points) == rate_per_s


def test_a_certificate_names_the_runs_at_its_rate_and_counts_all_that_speak_for_it():
    higher, own, failed = run(60.0, 300), run(50.0, 300), run(55.0, 800, 100, verdict="fail")
    (found,) = certificates([higher, own])
    assert (found.points, found.runs, found.requests) == ((own,), (higher, own), 600)
    assert certificates([higher, failed, run(50.0, 900)])[0].requests == 1200


def test_a_lucky_run_counts_as_no_more_independent_than_its_neighbours():
    dependent = run(50.0, 2000, 10, dependence=20.0)
    assert proven_rate_per_s([run(50.0, 600)]) == 50.0
    assert proven_rate_per_s([dependent, run(50.0, 600)]) == 0.0
    assert proven_rate_per_s([dataclasses.replace(dependent, phase="refine"), run(50.0, 600)]) == 0.0


@pytest.mark.parametrize(
    ("slo", "service_s", "seconds", "runs", "searches"),
    [
        pytest.param("p99=60ms", 0.01, 15, 10, 45, id="each had its own test once: every tenth search was certified"),
        pytest.param("p99.9=60ms", 0.004, 3, 20, 15, id="too few late in a run to show that they come in clusters"),
    ],
)
def test_a_search_that_goes_on_and_on_at_exactly_the_capacity_hardly_ever_certifies_it(
    slo, service_s, seconds, runs, searches
):
    """Whatever the number of runs, and however short they are."""
    promise, certified = Slo.parse(slo), 0
    capacity_per_s = md1_capacity_per_s(service_s, promise.limit_ms / 1e3, promise.percentile)
    for seed in range(searches):
        probes = (
            Probe(n, "confirm", capacity_per_s, round(capacity_per_s * seconds), 1000 * seed + n) for n in range(runs)
        )
        certified += bool(certificates([simulate(probe, promise, service_s, None) for probe in probes]))
    assert certified <= 1
