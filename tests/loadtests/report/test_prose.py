"""Where the time goes, for constructed cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated import simulate

from loadtests.records.point import ModelPoint, Probe, StepPoint
from loadtests.report.prose import busy_machine, describe_bottleneck, find_bottleneck, from_cache, from_failures
from loadtests.slo import Slo

PRE, MODEL = "image_preprocess", "mobilenet_v2"


def step(model, queue_ms, compute_ms):
    return StepPoint(model, queue_ms, 0.0, compute_ms, 0.0, compute_ms, 1.0, 10, 10, 0, {"1": 10})


def point(*steps, mean_ms=20.0, generator=0.1):
    made = simulate(Probe(0, "confirm", 100.0, 500, 1), Slo.parse("p99=50ms"), 1e-6, None)
    return replace(
        made,
        mean_ms=mean_ms,
        steps=steps,
        queue_ms=sum(entry.queue_ms for entry in steps) if steps else None,
        compute_ms=sum(entry.compute_ms for entry in steps) if steps else None,
        generator_cpu_share=generator,
    )


@pytest.mark.parametrize(
    ("measured", "kind", "model", "part_ms"),
    [
        (point(step(PRE, 0.1, 15.0), step(MODEL, 0.2, 3.0)), "compute", PRE, 15.0),
        (point(step(PRE, 0.1, 2.0), step(MODEL, 0.2, 16.0)), "compute", MODEL, 16.0),
        (point(step(PRE, 0.1, 2.0), step(MODEL, 6.0, 9.0)), "compute", MODEL, 9.0),
        (point(step(PRE, 0.1, 2.0), step(MODEL, 14.0, 3.0)), "queue", MODEL, 14.0),
        (point(step(PRE, 14.0, 2.0), step(MODEL, 0.1, 3.0)), "queue", PRE, 14.0),
        (point(step("rain", 0.1, 18.0)), "compute", "rain", 18.0),
        (point(step("rain", 0.1, 1.0)), "outside", None, 18.9),
    ],
    ids=["pre-processing", "model", "model with a queue", "queue", "queue of the first step", "single model",
         "network"],
)  # fmt: skip
def test_names_what_takes_longest(measured, kind, model, part_ms):
    found = find_bottleneck(measured)
    assert (found.kind, found.step and found.step.model) == (kind, model)
    assert found.part_ms == pytest.approx(part_ms)
    assert found.share == pytest.approx(part_ms / 20)
    assert (model or kind) in describe_bottleneck(measured)


def test_a_busy_generator_comes_first():
    found = find_bottleneck(point(step("rain", 0.1, 18.0), generator=0.8))
    assert (found.kind, found.share) == ("generator", 0.8)


@pytest.mark.parametrize(("cached", "doubted"), [(0, False), (1, False), (20, True)])
def test_requests_that_the_response_cache_answered_are_a_doubt(cached, doubted):
    steps = [replace(step("next_word", 0.1, 90.0), requests=100, cached=count) for count in (0, cached)]
    assert bool(from_cache([point(each) for each in steps])) == doubted


@pytest.mark.parametrize(
    ("failed", "doubted"),
    [
        ({}, ""),
        ({"UNAVAILABLE: Exceeds maximum queue size": 9, "DEADLINE_EXCEEDED: no answer within 10 s": 2}, ""),
        ({"UNAVAILABLE: full": 9, "INTERNAL: Stub process 'm_0_0' is not healthy.": 4}, "is not healthy"),
    ],
    ids=["none", "as a busy server's do", "a process that was killed"],
)
def test_failures_that_are_not_those_of_a_busy_server_are_a_doubt(failed, doubted):
    found = from_failures([point(), replace(point(), error_messages=failed), replace(point(), error_messages=failed)])
    assert len(found) == bool(doubted)
    assert doubted in "".join(found)


def test_a_mix_is_weighed_by_what_is_asked():
    """`rare` takes four times as long as `common`, but one request in twenty goes there."""
    steps = (replace(step("common", 0.1, 4.0), share=0.95), replace(step("rare", 0.1, 16.0), share=0.05))
    asked = tuple(ModelPoint(name, 10, 0, 4.0, 16.0, "pass") for name in ("common", "rare"))
    found = find_bottleneck(replace(point(*steps, mean_ms=6.0), models=asked, queue_ms=0.1, compute_ms=4.6))
    assert (found.kind, found.step.model) == ("compute", "common")
    assert found.part_ms == pytest.approx(0.95 * 4.0)


def test_says_nothing_without_the_servers_figures():
    assert find_bottleneck(point()) is None
    assert describe_bottleneck(point()) == ""


def test_only_a_machine_that_was_busy_is_in_doubt():
    assert busy_machine(None) == busy_machine(0.05) == []
    (doubt,) = busy_machine(0.6)
    assert "60 %" in doubt
