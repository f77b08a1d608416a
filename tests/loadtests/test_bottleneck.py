"""One sentence per constructed case."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated import simulate

from loadtests.records.point import ModelPoint, Probe, StepPoint
from loadtests.report.prose import describe_bottleneck
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
    ("measured", "words"),
    [
        (point(step(PRE, 0.1, 15.0), step(MODEL, 0.2, 3.0)), ["the pre-processing step image_preprocess", "short"]),
        (point(step(PRE, 0.1, 2.0), step(MODEL, 0.2, 16.0)), ["mobilenet_v2, step 2 of 2", "16 ms (80 %)"]),
        (point(step(PRE, 0.1, 2.0), step(MODEL, 6.0, 9.0)), ["work of mobilenet_v2", "its queue adds"]),
        (point(step(PRE, 0.1, 2.0), step(MODEL, 14.0, 3.0)), ["waiting in front of mobilenet_v2", "more instances"]),
        (point(step(PRE, 14.0, 2.0), step(MODEL, 0.1, 3.0)), ["waiting in front of the pre-processing step"]),
        (point(step("rain", 0.1, 18.0)), ["the model rain"]),
        (point(step("rain", 0.1, 1.0)), ["network, protocol"]),
        (point(step("rain", 0.1, 18.0), generator=0.8), ["generator itself used 80 % of a core"]),
    ],
    ids=["pre-processing", "model", "model with a queue", "queue", "queue of the first step", "single model", "network",
         "generator"],
)  # fmt: skip
def test_names_what_takes_longest(measured, words):
    told = describe_bottleneck(measured)
    assert all(word in told for word in words), told


def test_a_mix_is_weighed_by_what_is_asked():
    """`rare` takes four times as long as `common`, but one request in twenty goes there."""
    steps = (replace(step("common", 0.1, 4.0), share=0.95), replace(step("rare", 0.1, 16.0), share=0.05))
    asked = tuple(ModelPoint(name, 10, 0, 4.0, 16.0, "pass") for name in ("common", "rare"))
    told = describe_bottleneck(replace(point(*steps, mean_ms=6.0), models=asked, queue_ms=0.1, compute_ms=4.6))
    assert "3.8 ms (63 %), is the work of common, where 95 % of the requests go" in told


def test_says_nothing_without_the_servers_figures():
    assert describe_bottleneck(point()) == ""
