"""One schedule over several generators: nothing lost, nothing doubled, and percentiles of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.errors import BadRequestError
from loadtests.generator.messages import EarlyStop, Limits
from loadtests.generator.pool import merge, split
from loadtests.records.record import Outcome, Record, histogram, percentile
from loadtests.workload.schedule import payload_choices, poisson

SCHEDULE = poisson(1000, seed=1, count=8000)
CHOICES = payload_choices(8000, 7, seed=1)
LIMITS = Limits(max_outstanding=400, early_stop=(EarlyStop(50.0, 100),), cooldown=500, until_s=30.0)


def test_the_parts_are_the_schedule():
    parts = split(SCHEDULE, CHOICES, LIMITS, 4, seed=3)
    order = np.argsort(np.concatenate([part.intended_s for part in parts]), kind="stable")
    assert np.array_equal(np.concatenate([part.intended_s for part in parts])[order], SCHEDULE)
    assert np.array_equal(np.concatenate([part.choices for part in parts])[order], CHOICES)
    assert sum(part.measured for part in parts) == 7500
    assert max(part.intended_s[: part.measured].max() for part in parts) == SCHEDULE[7499]


def test_each_part_is_poisson_of_its_share_and_follows_from_the_seed():
    parts, again = (split(SCHEDULE, CHOICES, LIMITS, 4, seed=3) for _ in range(2))
    for part, same in zip(parts, again, strict=True):
        gaps = np.diff(part.intended_s)
        assert len(part.intended_s) == pytest.approx(2000, rel=0.1)
        assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)
        assert np.array_equal(part.intended_s, same.intended_s)
    other = split(SCHEDULE, CHOICES, LIMITS, 4, seed=4)
    assert not np.array_equal(parts[0].intended_s, other[0].intended_s)


def test_limits_are_shared_with_room_for_scatter():
    part = split(SCHEDULE, CHOICES, LIMITS, 4, seed=3)[0]
    assert part.limits.until_s == 30.0
    assert part.limits.max_outstanding == 100
    assert part.limits.early_stop == (EarlyStop(50.0, 35),)


def test_one_worker_gets_everything():
    (part,) = split(SCHEDULE, CHOICES, LIMITS, 1, seed=3)
    assert part.intended_s is SCHEDULE
    assert part.limits is LIMITS


@pytest.mark.parametrize("workers", [0, -1, 256])
def test_refuses_impossible_counts(workers):
    with pytest.raises(BadRequestError) as refused:
        split(SCHEDULE, CHOICES, LIMITS, workers, seed=0)
    assert refused.value.field == "workers"


def test_merged_percentiles_are_those_of_the_pooled_latencies():
    """Four workers of very different speed: the mean of their p99s would be far off."""
    rng = np.random.default_rng(0)
    found, pooled = [], []
    for number, part in enumerate(split(SCHEDULE, CHOICES, LIMITS, 4, seed=3)):
        latency_s = rng.exponential(0.01 * 4**number, part.measured)
        intended_s = part.intended_s[: part.measured]
        record = Record(intended_s, intended_s, intended_s + latency_s, np.zeros(part.measured, np.uint8))
        found.append((record, Outcome(8.0, 1.0, "", 0.0)))
        pooled.append(record.latencies_ms())
    merged, outcome = merge(found)
    everything = np.concatenate(pooled)
    for share in (0.5, 0.9, 0.99, 0.999, 1.0):
        assert percentile(merged.latencies_ms(), share) == percentile(everything, share)
    together = histogram(pooled[0])
    for one in pooled[1:]:
        together.add(histogram(one))
    assert together.equals(histogram(everything))
    assert np.bincount(merged.worker).tolist() == [len(one) for one in pooled]
    assert outcome.cpu_s == 4.0
    assert outcome.workers == ((1.0, 8.0),) * 4


def test_an_early_stop_decides_for_all():
    record = split(SCHEDULE, CHOICES, LIMITS, 1, seed=0)[0].unsent()
    stopped = Outcome(2.0, 1.0, "backlog", 5.0, {"14": "full"})
    asked = Outcome(2.1, 1.0, "asked", 5.1)
    _, outcome = merge([(record, asked), (record, stopped)])
    assert (outcome.stopped, outcome.wall_s, outcome.messages) == ("backlog", 2.0, {"14": "full"})


def test_a_lost_generator_is_named_and_is_no_early_stop():
    record = split(SCHEDULE, CHOICES, LIMITS, 1, seed=0)[0].unsent()
    _, outcome = merge([(record, Outcome(2.0, 1.0, "asked", 5.0))] * 2, lost={1: "ended unexpectedly (killed)"})
    assert outcome.lost == "generator 2 of 2 ended unexpectedly (killed)"
    assert outcome.stopped == ""
