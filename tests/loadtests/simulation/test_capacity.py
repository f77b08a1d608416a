"""The capacity of simulated pipelines where theory knows it, and what two configurations differ by."""

from __future__ import annotations

import dataclasses

import pytest
from queueing import mm1_capacity_per_s

from loadtests.errors import BadRequestError
from loadtests.simulation import Batcher, BatchTimes, Pipeline, Step, capacity
from loadtests.slo import Slo

P99 = [Slo.parse("p99=50ms")]
BATCHED = Step("model", Batcher(max_batch=8), BatchTimes.constant(0.004, 0.001))


def test_it_is_that_of_theory_within_its_own_error():
    single = Pipeline((Step("model", Batcher(), BatchTimes.constant(0.005, variation=1)),))
    found = capacity(single, [Slo.parse("p90=50ms")], requests=2000)
    assert found.rate_per_s == pytest.approx(mm1_capacity_per_s(0.005, 0.05, 0.9), abs=3 * found.error_per_s)
    assert found.error_per_s < 0.06 * found.rate_per_s


def test_equal_draws_show_a_difference_smaller_than_the_error():
    quicker = dataclasses.replace(BATCHED, times=BatchTimes.constant(0.004 * 0.98, 0.001 * 0.98))
    slow, quick = (capacity(Pipeline((step,)), P99, replications=2) for step in (BATCHED, quicker))
    assert 1.01 < quick.rate_per_s / slow.rate_per_s < 1.03


def test_nothing_exceeds_what_keeps_all_instances_busy():
    found = capacity(Pipeline((BATCHED,)), [Slo.parse("p99=1s")], sizes=(1, 3), replications=2)
    assert found.limit_per_s == pytest.approx(4 / 0.012)
    assert 0.93 * found.limit_per_s < found.rate_per_s <= found.limit_per_s


def test_an_slo_below_the_batch_time_is_never_kept():
    assert capacity(Pipeline((BATCHED,)), [Slo.parse("p99=4ms")], replications=2).rate_per_s == 0


def test_refused_requests_break_an_slo_on_errors():
    bounded = dataclasses.replace(BATCHED, batcher=Batcher(2, 8, max_queue=4))
    loose = [Slo.parse("p90=100ms")]
    strict = [*loose, Slo.parse("errors=0.1%")]
    rates = [capacity(Pipeline((bounded,)), slos, replications=2).rate_per_s for slos in (loose, strict)]
    assert rates[1] < 0.9 * rates[0]


def test_shapes_that_may_not_mix_cost_capacity():
    equal = dataclasses.replace(BATCHED, batcher=dataclasses.replace(BATCHED.batcher, equal_shapes=True))
    one, two = (capacity(Pipeline((equal,)), P99, shapes=range(count), replications=2) for count in (1, 3))
    assert two.rate_per_s < 0.7 * one.rate_per_s


def test_a_class_of_shape_has_batch_times_of_its_own():
    slow = BatchTimes.constant(0.008, 0.002)
    both = dataclasses.replace(BATCHED, times={16: BATCHED.times, 64: slow})
    assert both.times_of(16) == BATCHED.times
    assert both.times_of(20) == both.times_of(99) == slow


@pytest.mark.parametrize(
    ("asked", "field"),
    [({"slos": [Slo.parse("errors=1%")]}, "slos"), ({"slos": P99, "sizes": (1, 2), "shapes": (1, 2, 3)}, "shapes")],
)
def test_what_makes_no_sense_is_refused(asked, field):
    with pytest.raises(BadRequestError) as raised:
        capacity(Pipeline((BATCHED,)), **asked)
    assert raised.value.field == field
