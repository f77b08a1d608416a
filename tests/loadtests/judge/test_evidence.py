"""The evidence of runs: what it takes, and that chance alone gathers none."""

import math

import numpy as np
import pytest

from loadtests.judge.evidence import ENOUGH_NATS, STAKE, gain, gain_for, most_over, nats, requests_needed


@pytest.mark.parametrize(("allowed", "requests"), [(0.01, 520), (0.1, 50), (0.001, 5200)])
def test_so_many_clean_requests_are_enough(allowed, requests):
    needed = requests_needed(0.0, allowed, gain_for(ENOUGH_NATS))
    assert needed == pytest.approx(requests, rel=0.03)
    assert nats(gain(needed, 0, allowed)) == pytest.approx(ENOUGH_NATS)
    assert requests_needed(allowed, allowed, gain_for(ENOUGH_NATS)) == math.inf


def test_no_rate_costs_more_than_the_stake():
    assert nats(-math.inf) == nats(gain(1e6, 1e6, 0.01)) == pytest.approx(math.log(1 - STAKE))
    assert nats(gain(0, 0, 0.01)) == pytest.approx(0.0)


@pytest.mark.parametrize("wanted_nats", [0.5, 2.0, ENOUGH_NATS, 6.0])
def test_the_most_over_the_limit_is_where_the_evidence_ends(wanted_nats):
    wanted = gain_for(wanted_nats)
    assert nats(gain(2000, most_over(2000, 0.01, wanted), 0.01)) == pytest.approx(wanted_nats)
    assert most_over(10, 0.01, wanted) < 0


def test_at_the_capacity_chance_reaches_enough_in_one_search_of_a_hundred_at_most():
    """Independent requests, however often one looks and however long the runs are."""
    rng = np.random.default_rng(0)
    reached = 0
    for _ in range(2000):
        lengths = rng.integers(20, 600, 40)
        trials = zip(lengths, rng.binomial(lengths, 0.01), strict=True)
        reached += np.cumsum([gain(length, over, 0.01) for length, over in trials]).max() >= gain_for(ENOUGH_NATS)
    assert reached / 2000 <= 0.01
