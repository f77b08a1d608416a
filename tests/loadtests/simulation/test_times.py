"""Batch times beside other work: `BatchTimes.beside`."""

from __future__ import annotations

import pytest

from loadtests.simulation.times import BatchTimes

TIMES = BatchTimes({1: {1: 0.010}, 2: {1: 0.010}})


@pytest.mark.parametrize(
    ("busy", "threads", "cores", "work_s", "expected_s"),
    [
        (1, 1, 2, 0.004, 0.010),  # the idle core does the other work
        (1, 1, 2, 0.014, 0.012),  # more than it can do in that time
        (2, 1, 2, 0.004, 0.014),  # no core is idle: each batch waits for its part
        (1, 2, 2, 0.004, 0.012),  # one batch on both cores: they share the other work
        (2, 2, 2, 0.004, 0.014),  # four threads on two cores: the measured time has their waiting already
        (1, 0, 2, 0.004, 0.010),  # a GPU computes, the cores only handle requests
        (1, 0, 2, 0.030, 0.015),  # and they are the bottleneck
    ],
)
def test_a_batch_takes_as_long_as_the_cores_need_for_it_and_the_other_work(busy, threads, cores, work_s, expected_s):
    assert TIMES.beside(work_s, instances=2, threads=threads, cores=cores)(1, busy) == pytest.approx(expected_s)


def test_each_row_brings_its_work():
    times = BatchTimes.constant(0.010).beside(0.004, instances=1, threads=1, cores=1)
    assert (times(1), times(2)) == pytest.approx((0.014, 0.018))
