"""Why batches are as small as they are and what pre-processing costs, by figures that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated import simulate

from loadtests.records.batching import Batching
from loadtests.records.point import ModelPoint, Point, Probe, StepPoint
from loadtests.report.batching import find_preprocessing, step_batching
from loadtests.slo import Slo

PRE, MODEL = "tokenizer", "encoder"
PYTHON = Batching("python", 32, "dynamic", instances=2, on_gpu=False)
ONNX = replace(PYTHON, backend="onnxruntime")
KNOWN = {PRE: PYTHON, MODEL: ONNX}


def step(model: str, queue_ms: float, execution_ms: float, *, executions: int = 100) -> StepPoint:
    """100 requests in so many executions, of which a tenth is the copying of inputs and a tenth that of outputs."""
    parts = [execution_ms * share for share in (0.1, 0.8, 0.1)]
    return StepPoint(
        model, queue_ms, *parts, execution_ms, 100 / executions, executions, 100, 0, {}, execution_ms=execution_ms
    )


def probe(*steps: StepPoint, rate_per_s: float = 100.0) -> Point:
    made = simulate(Probe(0, "confirm", 100.0, 500, 1), Slo.parse("p99=50ms"), 1e-6, None)
    return replace(made, achieved_per_s=rate_per_s, steps=steps)


def test_waiting_and_busy_follow_from_rate_and_times() -> None:
    alone, batched = step_batching(probe(step(PRE, 5.0, 4.0), step(MODEL, 20.0, 30.0, executions=50)), KNOWN)
    assert alone.waiting == pytest.approx(100 * 0.005)
    assert alone.busy_share == pytest.approx(100 * 0.004 / 2)
    assert batched.waiting == pytest.approx(100 * 0.020)
    assert batched.busy_share == pytest.approx(100 * 0.030 / 2 / 2)  # two requests share an execution


def test_what_an_earlier_version_did_not_record_is_left_open() -> None:
    old = replace(step(MODEL, 5.0, 4.0), execution_ms=None)
    (found,) = step_batching(probe(old), {})
    assert (found.busy_share, found.instances, found.reasons) == (None, None, ())


@pytest.mark.parametrize(
    ("steps", "known", "takes_ms", "more_share", "busiest"),
    [
        ((step(PRE, 1.0, 5.0), step(MODEL, 2.0, 10.0)), KNOWN, 6.0, 0.5, False),
        ((step(PRE, 1.0, 5.0), step(MODEL, 2.0, 20.0, executions=50)), KNOWN, 6.0, 0.5, False),
        ((step(PRE, 1.0, 30.0), step(MODEL, 0.0, 10.0)), {**KNOWN, MODEL: replace(ONNX, on_gpu=True)}, 31.0, 2.0, True),
        ((step(PRE, 1.0, 5.0), step(MODEL, 2.0, 10.0)), {**KNOWN, MODEL: replace(ONNX, on_gpu=True)}, 6.0, 0.0, False),
        ((step(PRE, 1.0, 5.0), step(MODEL, 2.0, 10.0)), {}, 6.0, None, False),
    ],
    ids=[
        "a third of the work on the CPUs that both share",
        "the same, where two requests share an execution of the model",
        "three times as busy as the model on its GPU",
        "less busy than the model on its GPU, which goes on to be the limit",
        "unknown instances",
    ],
)
def test_what_preprocessing_takes_and_how_much_room_it_leaves(
    steps: tuple[StepPoint, ...], known: dict[str, Batching], takes_ms: float, more_share: float | None, busiest: bool
) -> None:
    found = find_preprocessing(probe(*steps), known)
    assert found is not None
    assert (found.step.model, found.takes_ms, found.busiest) == (PRE, takes_ms, busiest)
    assert found.more_share == (None if more_share is None else pytest.approx(more_share))
    assert found.handed_ms == pytest.approx(steps[0].queue_ms + steps[0].compute_output_ms + steps[1].compute_input_ms)


def test_a_model_in_front_of_another_prepares_nothing() -> None:
    steps = (step(PRE, 1.0, 5.0), step(MODEL, 2.0, 10.0))
    assert find_preprocessing(probe(*steps), {**KNOWN, PRE: ONNX}) is None
    assert find_preprocessing(probe(steps[1]), KNOWN) is None
    asked = tuple(ModelPoint(name, 10, 0, 4.0, 16.0, "pass") for name in (PRE, MODEL))
    assert find_preprocessing(replace(probe(*steps), models=asked), KNOWN) is None
