"""Each rule of Triton's batcher by a case that is worked out by hand; a batch takes 20 ms and 5 ms a row."""

from __future__ import annotations

import math

import pytest

from loadtests.errors import BadRequestError
from loadtests.simulation import Batcher, BatchTimes, Pipeline, Step, simulate

TIMES = BatchTimes.constant(0.020, 0.005)
REFUSED = math.inf
BOUNDED = {"max_batch": 8, "max_queue": 9}

RULES = [
    ("a lone request starts at once", Batcher(max_batch=8), [0], [25]),
    ("what waits goes together", Batcher(max_batch=8), [0, 5, 10], [25, 55, 55]),
    ("never more rows than max_batch", Batcher(max_batch=2), [0, 1, 2, 3], [25, 55, 55, 80]),
    ("without batching each alone", Batcher(max_batch=8, dynamic=False), [0, 1, 2], [25, 50, 75]),
    ("two instances, two batches", Batcher(2, 8), [0, 1, 2, 3], [25, 26, 55, 55]),
    ("a queue delay holds a lone request", Batcher(max_batch=8, delay_s=0.01), [0], [35]),
    ("a full batch does not wait", Batcher(max_batch=2, delay_s=0.01), [0, 4], [34, 34]),
    ("a preferred size starts before the delay is over", Batcher(1, 8, preferred=(2,), delay_s=0.01), [0, 4], [34, 34]),
    ("preferred sizes split what waits", Batcher(1, 8, preferred=(2,)), [0, 1, 2, 3], [25, 55, 55, 80]),
    ("after the delay any size starts", Batcher(1, 8, preferred=(4,), delay_s=0.01), [0, 4], [40, 40]),
    (
        "with a delay, an instance takes its batch before the batcher adds to it",
        Batcher(1, 8, delay_s=0.005, overtakes=0),
        [0, 10, 20],
        [30, 55, 80],
    ),
    ("or the batcher is quicker", Batcher(1, 8, delay_s=0.005, overtakes=1), [0, 10, 20], [30, 60, 60]),
    ("a queue policy ends prefetching: seen when free", Batcher(**BOUNDED, overlooks=0), [0, 5], [25, 50]),
    ("or overlooked until the half-second poll", Batcher(**BOUNDED, overlooks=1), [0, 5], [25, 550]),
    ("or until the next arrival", Batcher(**BOUNDED, overlooks=1), [0, 5, 40], [25, 70, 70]),
    ("another free instance is seen", Batcher(2, **BOUNDED, overlooks=1), [0, 1, 2, 500], [25, 26, 51, 525]),
    ("a full queue refuses", Batcher(1, 8, max_queue=1, overlooks=0), [0, 1, 2], [25, 50, REFUSED]),
    ("who waited too long is refused", Batcher(1, 8, timeout_s=0.01, overlooks=0), [0, 5, 20], [25, REFUSED, 50]),
]


@pytest.mark.parametrize(("what", "batcher", "arrivals_ms", "done_ms"), RULES, ids=[row[0] for row in RULES])
def test_requests_are_answered_when_the_rule_says(what, batcher, arrivals_ms, done_ms):
    assert done(one(batcher), arrivals_ms) == pytest.approx(done_ms)


def test_requests_with_several_rows_fill_a_batch_sooner():
    run = simulate(one(Batcher(max_batch=4)), [0, 0.001, 0.002], [1, 3, 2])
    assert run.batches == {"model": {1: 1, 2: 1, 3: 1}}


def test_only_equal_shapes_share_a_batch_and_order_is_kept():
    shapes = [0, 0, 1, 0, 0]
    assert done(one(Batcher(max_batch=8, equal_shapes=True)), [0, 1, 2, 3, 4], shapes=shapes) == [25, 50, 75, 105, 105]
    assert done(one(Batcher(max_batch=8)), [0, 1, 2, 3, 4], shapes=shapes) == [25, 65, 65, 65, 65]


def test_steps_run_one_after_another_or_side_by_side():
    slow = BatchTimes.constant(0.1)
    first, left, right = (
        Step("first", Batcher(), TIMES),
        Step("left", Batcher(), TIMES, ("first",)),
        Step("right", Batcher(), slow, ("first",)),
    )
    assert done(Pipeline((first, left)), [0, 10]) == [50, 75]
    last = Step("last", Batcher(), TIMES, ("left", "right"))
    assert done(Pipeline((first, left, right, last), overhead_s=0.001), [0, 10]) == [151, 251]


def test_a_request_that_one_step_refuses_reaches_no_other():
    refusing = Step("first", Batcher(max_batch=1, max_queue=1, overlooks=0), TIMES)
    pipeline = Pipeline((refusing, Step("second", Batcher(), TIMES, ("first",))))
    run = simulate(pipeline, [0, 0.001, 0.002])
    assert (run.refused, run.batches["second"]) == (1, {1: 2})
    assert run.percentile(0.5) == pytest.approx(0.074)
    assert run.percentile(0.99) == math.inf


def test_a_run_ends_early_when_too_many_are_late():
    arrivals_s = [number / 1000 for number in range(200)]
    run = simulate(one(Batcher()), arrivals_s, late_s=0.1, most_late=3)
    assert 5 < sum(math.isfinite(latency) for latency in run.latencies_s.tolist()) < 10


TABLES = [
    ("between sizes on a line", {1: {1: 0.01, 5: 0.05}}, (3, 1), 0.03),
    ("beyond the largest as between the last two", {1: {1: 0.01, 5: 0.05}}, (9, 1), 0.09),
    ("never below the smallest", {1: {2: 0.05, 4: 0.02}}, (9, 1), 0.02),
    ("between busy instances on a line", {1: {1: 0.01}, 3: {1: 0.02}}, (1, 2), 0.015),
    ("beyond those measured as many as were", {1: {1: 0.01}, 3: {1: 0.02}}, (1, 8), 0.02),
]


@pytest.mark.parametrize(("what", "table", "asked", "seconds"), TABLES, ids=[row[0] for row in TABLES])
def test_batch_times_lie_on_lines(what, table, asked, seconds):
    times = BatchTimes(table)
    assert times(*asked) == pytest.approx(seconds)
    assert BatchTimes.from_json(times.to_json()) == times


WRONG = [
    (lambda: Batcher(instances=0), "instances"),
    (lambda: Batcher(max_batch=4, preferred=(8,)), "preferred"),
    (lambda: Batcher(delay_s=math.nan), "delay_s"),
    (lambda: BatchTimes({}), "seconds"),
    (lambda: BatchTimes({1: {1: 0.0}}), "seconds"),
    (lambda: Pipeline((Step("a", Batcher(), TIMES, ("b",)),)), "steps"),
]


@pytest.mark.parametrize(("make", "field"), WRONG, ids=[row[1] for row in WRONG])
def test_what_cannot_be_simulated_is_refused(make, field):
    with pytest.raises(BadRequestError) as raised:
        make()
    assert raised.value.field == field


def one(batcher: Batcher) -> Pipeline:
    return Pipeline((Step("model", batcher, TIMES),))


def done(pipeline: Pipeline, arrivals_ms: list[float], **options: object) -> list[float]:
    """When each request was answered, in ms."""
    run = simulate(pipeline, [at_ms / 1e3 for at_ms in arrivals_ms], **options)
    answered = zip(arrivals_ms, run.latencies_s, strict=True)
    return [round(at_ms + latency_s * 1e3, 6) for at_ms, latency_s in answered]
