"""Searches of a computed server that keeps state, whose capacity is known from millions of its requests."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_sequences import StatefulServer

from loadtests.judge.sample import Sample
from loadtests.search.certificate import proven_rate_per_s
from loadtests.search.estimate import estimate
from loadtests.slo import Slo
from loadtests.workload.sequences import Sequences

SERVER = StatefulServer(Sequences((20, 30, 40), (0.08,) * 3), 0.002)
P90 = Slo.parse("p90=20ms")
CAPACITY_PER_S = 13.15
"""One in ten of 180,000 sequences then waits for its last answer for longer than the limit."""


def check(seed: int) -> None:
    points = SERVER.search(P90, 600.0, seed)
    fitted = estimate(points, (P90,))
    assert fitted is not None
    assert fitted.low_per_s < CAPACITY_PER_S < fitted.high_per_s
    assert CAPACITY_PER_S / 3 < proven_rate_per_s(points) < CAPACITY_PER_S


def test_a_search_finds_the_capacity():
    check(1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_searches_find_the_capacity(seed):
    check(seed)


def test_a_lucky_minute_at_the_capacity_does_not_pass():
    """30 sequences run at once, and are late together: counted as independent, one such minute in ten would pass."""
    verdicts = []
    for seed in range(40):
        record = SERVER.record(CAPACITY_PER_S, 900, seed)
        record = record.where(record.intended_s >= SERVER.sequences.lengths_s.max())
        verdicts.append(Sample.of(P90, record, (P90,), ()).judged().verdict)
    assert "pass" not in verdicts


def test_single_requests_beside_sequences_stay_independent():
    record = SERVER.record(1.0, 900, 0)
    sequences, single = np.arange(900) % 2 == 0, np.arange(900) % 2 == 1
    mixed = record.where(np.arange(900))
    mixed.requests[single], mixed.begun_s[single] = 0, np.nan
    dependence = {name: Sample.of(P90, part, (P90,), ()).judged().dependence for name, part in (
        ("all", mixed), ("sequences", mixed.where(sequences)), ("single", mixed.where(single)),
    )}  # fmt: skip
    assert dependence["single"] == 1.0
    assert dependence["sequences"] == pytest.approx(2 * 0.5 * SERVER.sequences.lengths_s.mean(), rel=0.1)
    assert 1.0 < dependence["all"] < 2.0
