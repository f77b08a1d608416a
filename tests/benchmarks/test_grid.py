"""The bisection of a grid: which rate is probed next."""

import pytest

from benchmarks.grid import next_rung

START = 100


def probed(held):
    """Rungs with what they showed, in order, until no further one is wanted."""
    met, rung = {}, START
    while rung is not None:
        met[rung] = held(rung)
        rung = next_rung(met)
    return met


@pytest.mark.parametrize("highest", [1, 60, 99, 100, 101, 131, 150])
def test_it_ends_with_the_crossing_and_one_rung_beyond_either(highest):
    met = probed(lambda rung: rung <= highest)
    assert {highest - 1, highest, highest + 1, highest + 2} <= met.keys()
    assert len(met) <= 12


def test_it_ends_where_no_rate_is_met():
    assert min(probed(lambda _: False)) == 0


def test_a_rate_that_is_missed_by_chance_does_not_end_it():
    met = probed(lambda rung: rung <= 131 and rung != 118)
    assert any(held for held in met.values())
    assert len(met) <= 12
