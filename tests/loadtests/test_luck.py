"""The luck of a schedule: what the virtual queue makes of arrivals, against queues whose service is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from queueing import md1_capacity_per_s, md1_wait_at_most, sojourn_s
from simulated import simulate

from loadtests.evidence import gather
from loadtests.luck import fit, md1_rate_per_s, md1_waits_longer
from loadtests.point import Point, Probe
from loadtests.schedule import poisson
from loadtests.slo import Slo

LIMIT_MS = 60.0
SERVICE_S = 0.008
CAPACITY_PER_S = md1_capacity_per_s(SERVICE_S, LIMIT_MS / 1e3, 0.99)


@pytest.mark.parametrize("services", [0.5, 1.0, 1.5, 2.0, 4.0, 10.0])
@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_the_tail_of_a_deterministic_queue_is_that_of_the_exact_sum(services, load):
    exact = 1 - md1_wait_at_most(services, load, 1.0)
    assert md1_waits_longer(services, load) == pytest.approx(exact, rel=0.04)


def test_the_rate_at_which_a_share_is_late_is_the_capacity():
    assert md1_rate_per_s(SERVICE_S, LIMIT_MS / 1e3, 0.01) == pytest.approx(CAPACITY_PER_S, rel=0.002)


@pytest.mark.parametrize("seed", range(4))
def test_deterministic_service_is_found_from_few_late_requests_however_lucky_the_arrivals(seed):
    arrivals_s = poisson(CAPACITY_PER_S, seed=seed, count=4000)
    latencies_ms = sojourn_s(arrivals_s, np.full(4000, SERVICE_S)) * 1e3
    share = float(np.mean(latencies_ms > LIMIT_MS))
    virtual = fit(arrivals_s, arrivals_s, latencies_ms, LIMIT_MS)
    assert virtual is not None
    assert virtual.service_s == pytest.approx(SERVICE_S, rel=0.02)
    assert virtual.explains > 0.98
    assert virtual.ordinary_rate_per_s(CAPACITY_PER_S, 0.01, LIMIT_MS / 1e3) == pytest.approx(CAPACITY_PER_S, rel=0.03)
    told_per_s = virtual.ordinary_rate_per_s(CAPACITY_PER_S, share, LIMIT_MS / 1e3)
    assert (told_per_s > CAPACITY_PER_S) == (share > 0.01)  # unlucky arrivals are those of a higher rate


def test_random_service_is_explained_in_part_and_slowness_of_another_cause_not_at_all():
    arrivals_s = poisson(CAPACITY_PER_S, seed=3, count=8000)
    rng = np.random.default_rng([3, 9])  # not the stream of the arrivals
    exponential_ms = sojourn_s(arrivals_s, rng.exponential(0.0065, 8000)) * 1e3
    half = fit(arrivals_s, arrivals_s, exponential_ms, LIMIT_MS)
    assert half is not None
    assert 0.05 < half.explains < 0.5
    unrelated = fit(arrivals_s, arrivals_s, rng.lognormal(3, 0.5, 8000), LIMIT_MS)
    assert unrelated is None or unrelated.explains < 0.01


def test_failed_requests_are_late_and_few_requests_tell_nothing():
    arrivals_s = poisson(50.0, seed=1, count=500)
    virtual = fit(arrivals_s, arrivals_s, np.full(500, math.inf), LIMIT_MS)
    assert virtual is None or virtual.explains == 0
    assert fit(arrivals_s[:50], arrivals_s[:50], np.full(50, 5.0), LIMIT_MS) is None


def test_evidence_is_of_the_rate_that_ordinary_arrivals_would_need():
    """Two probes at one rate, of which one happened to meet no queue: with their luck known they agree."""
    slo = Slo.parse("p99=60ms")
    points = [simulate(Probe(n, "refine", CAPACITY_PER_S, 3000, n), slo, SERVICE_S, None) for n in range(8)]
    plain = [_without_luck(point) for point in points]
    assert set(gather(plain, slo).rates_per_s.tolist()) == {CAPACITY_PER_S}
    told = gather(points, slo)
    late = told.shares > 0.002
    assert late.sum() >= 4
    for rate_per_s, share in zip(told.rates_per_s[late], told.shares[late], strict=True):
        assert rate_per_s == pytest.approx(md1_rate_per_s(SERVICE_S, LIMIT_MS / 1e3, share), rel=0.05)
    assert np.all(told.requests > 5 * gather(plain, slo).requests)  # what is explained needs no averaging


def test_a_point_keeps_its_virtual_queue_in_the_results():
    point = simulate(Probe(0, "refine", CAPACITY_PER_S, 2000, 1), Slo.parse("p99=60ms"), SERVICE_S, None)
    assert point.slos[0].virtual is not None
    assert Point.from_json(point.to_json()) == point


def _without_luck(point: Point) -> Point:
    return dataclasses.replace(point, slos=tuple(dataclasses.replace(count, virtual=None) for count in point.slos))
