"""Which requests count where the generator stood still, and that a server that stands still hides behind none of it."""

import numpy as np
import pytest
from queueing import md1_capacity_per_s, mm1_capacity_per_s
from simulated import Stalls, run_search, simulate

from loadtests.judge.unaffected import unaffected_requests
from loadtests.records.point import Point, Probe
from loadtests.records.record import Record
from loadtests.search.budget import Plan
from loadtests.search.estimate import estimate
from loadtests.search.search import search
from loadtests.slo import Slo

P99 = Slo.parse("p99=20ms")
ALWAYS = Stalls(per_s=3.0, of_probes=1.0)
"""More than 1 % of the requests are sent late in nearly every probe, so nearly every probe is invalid."""


def record(intended_ms, sent_ms, done_ms):
    intended_s, sent_s, done_s = (np.asarray(times, dtype=float) / 1e3 for times in (intended_ms, sent_ms, done_ms))
    return Record(intended_s, sent_s, done_s, np.zeros(len(intended_s), np.uint8))


def test_all_count_where_none_was_sent_late():
    assert unaffected_requests(record([0, 10, 20], [0, 11, 20], [5, 15, 90]), 2.0).all()


def test_late_ones_and_those_before_and_behind_them_do_not_count():
    """A stall from 18 to 33: one request was under way, two were due, and the next two waited for these."""
    intended = [0, 10, 17, 20, 30, 34, 36, 60, 70]
    sent = [0, 10, 17, 33, 33, 34, 36, 60, 70]
    done = [5, 15, 34, 40, 45, 50, 55, 65, 75]
    kept = unaffected_requests(record(intended, sent, done), 2.0)
    assert kept.tolist() == [True, True, False, False, False, False, False, True, True]


def test_where_the_server_never_catches_up_nothing_counts_any_more():
    intended = np.arange(100.0)
    sent = np.where(intended == 40, 50.0, intended)
    done = np.where(intended < 40, intended + 0.5, 1000 + intended)
    assert np.flatnonzero(~unaffected_requests(record(intended, sent, done), 2.0)).tolist() == list(range(40, 100))


def test_a_server_that_stands_still_is_not_excused():
    """The generator was in time: whatever came late counts."""
    intended = np.arange(0.0, 1000.0, 5.0)
    done = np.where((intended > 300) & (intended < 600), 600.0, intended) + 1.0
    assert unaffected_requests(record(intended, intended, done), 2.0).all()


def probe_of(rate_per_s: float, stalls: Stalls | None) -> Point:
    return simulate(Probe(0, "bisect", rate_per_s, 6000, 4), P99, 0.001, None, stalls=stalls)


def test_an_invalid_probe_shows_by_its_unaffected_requests_where_to_go():
    calm, stalled = probe_of(500.0, None), probe_of(500.0, ALWAYS)
    assert (calm.verdict, calm.unaffected, calm.counts) == ("pass", (), calm.slos)
    assert (stalled.verdict, stalled.passes, stalled.usable) == ("invalid", True, True)
    assert stalled.slos[0].over > 0.01 * stalled.slos[0].requests
    (count,) = stalled.counts
    assert (count.over, count.within) == (0, True)
    assert 0.5 < count.requests / stalled.requests < 1
    assert not probe_of(1100.0, ALWAYS).passes


def test_a_point_is_read_back_with_its_unaffected_requests():
    stalled = probe_of(700.0, ALWAYS)
    assert Point.from_json(stalled.to_json()) == stalled
    assert stalled.to_json()["punctual"][0]["over"] == 0
    old = {name: value for name, value in stalled.to_json().items() if name != "punctual"}
    assert Point.from_json(old).unaffected == ()


@pytest.mark.parametrize("exponential", [False, True], ids=["M/D/1", "M/M/1"])
def test_the_estimate_holds_on_a_machine_that_stalls(exponential):
    """Taken at face value, such probes put the capacity at a quarter of what it is."""
    capacity_per_s = (mm1_capacity_per_s if exponential else md1_capacity_per_s)(0.001, 0.02, 0.99)
    found, invalid = [], []
    for seed in range(3):
        points = run_search(P99, 0.001, budget_s=90, seed=seed, exponential=exponential, stalls=ALWAYS)
        fitted = estimate(points, [P99])
        assert fitted is not None
        found.append(fitted.rate_per_s / capacity_per_s)
        invalid += [point.verdict == "invalid" for point in points]
    assert np.mean(invalid) > 0.6
    assert np.mean(found) == pytest.approx(1.0, abs=0.08)
    assert min(found) > 0.85


def test_an_invalid_confirmation_does_not_lower_the_next():
    searching, rates = search(Plan((P99,), 500.0, 1, budget_s=120)), []
    probe = next(searching)
    while len(rates) < 3:
        confirms = probe.phase == "confirm"
        rates += [probe.rate_per_s] if confirms else []
        point = simulate(probe, P99, 0.001, None, stalls=ALWAYS if confirms and len(rates) < 3 else None)
        assert (point.verdict == "invalid") == (confirms and len(rates) < 3)
        probe = searching.send(point)
    assert rates[1] == rates[0]
    assert rates[2] > 0.9 * rates[0]
