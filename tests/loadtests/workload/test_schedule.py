import numpy as np
import pytest

from loadtests.errors import BadRequestError
from loadtests.workload import schedule


def test_poisson_is_a_function_of_its_seed():
    first, again = (schedule.poisson(200, seed=7, count=1000) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, schedule.poisson(200, seed=8, count=1000))
    assert first.dtype == np.float64


def test_poisson_has_exponential_gaps_of_the_right_mean():
    gaps = np.diff(schedule.poisson(500, seed=1, count=100_000))
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(1 / 500, rel=0.02)
    assert gaps.std() == pytest.approx(1 / 500, rel=0.02)
    assert np.quantile(gaps, 0.9) == pytest.approx(np.log(10) / 500, rel=0.03)


def test_poisson_by_duration_ends_before_it():
    offsets = schedule.poisson(300, seed=3, duration_s=20)
    assert 0 <= offsets[0] <= offsets[-1] <= 20
    assert len(offsets) == pytest.approx(6000, rel=0.05)


def test_constant_is_a_metronome():
    assert np.allclose(schedule.constant(4, count=4), [0, 0.25, 0.5, 0.75])
    assert len(schedule.constant(10, duration_s=2)) == 20


def test_probe_seeds_follow_from_the_base_seed_and_differ():
    seeds = [schedule.probe_seed(0, number) for number in range(100)]
    assert seeds == [schedule.probe_seed(0, number) for number in range(100)]
    assert len({*seeds, *(schedule.probe_seed(1, number) for number in range(100))}) == 200
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_payloads_are_used_equally_in_an_order_of_the_seed():
    choices = schedule.payload_choices(10, 4, seed=5)
    assert sorted(choices[:4]) == sorted(choices[4:8]) == [0, 1, 2, 3]
    assert choices.tolist() == schedule.payload_choices(10, 4, seed=5).tolist()
    assert choices.tolist() != schedule.payload_choices(10, 4, seed=6).tolist()


@pytest.mark.parametrize(
    "arguments",
    [
        {"rate_per_s": 0, "count": 5},
        {"rate_per_s": float("nan"), "count": 5},
        {"rate_per_s": 5, "count": 0},
        {"rate_per_s": 5, "duration_s": 0},
        {"rate_per_s": 5},
        {"rate_per_s": 5, "count": 5, "duration_s": 5},
    ],
)
def test_refuses_what_cannot_be_scheduled(arguments):
    with pytest.raises(BadRequestError):
        schedule.poisson(seed=0, **arguments)
