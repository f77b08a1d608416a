"""The knobs of a configuration: read, changed, and written so that Triton reads the same."""

from __future__ import annotations

import pytest

from export.config.config import parse
from export.config.knobs import knobs_of, on_gpu, with_knobs, written

NET = """
name: "net" backend: "onnxruntime" max_batch_size: 32
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
dynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 1500
  default_queue_policy { max_queue_size: 64 } }
instance_group [ { count: 2 kind: KIND_CPU } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
model_warmup [ { name: "8" batch_size: 8 }, { name: "32" batch_size: 32 } ]
"""
TOKENS = 'name: "t" backend: "python" parameters { key: "pad_to_multiple_of" value { string_value: "16" } }'


def test_every_knob_is_read():
    assert knobs_of(parse(NET), embedded=True) == {
        "instances": 2, "max_batch": 32, "preferred": 8, "delay_ms": 1.5, "queue_policy": "bounded",
        "intra_threads": 1, "inter_threads": 1, "rows_per_run": "off",
    }  # fmt: skip
    assert knobs_of(parse(TOKENS)) == {"instances": 1, "pad_to_multiple_of": 16}


@pytest.mark.parametrize(
    ("text", "knob", "value"),
    [
        (NET, "instances", 1),
        (NET, "preferred", 0),
        (NET, "preferred", 16),
        (NET, "delay_ms", 0),
        (NET, "queue_policy", "none"),
        (NET, "intra_threads", 4),
        (NET, "inter_threads", 2),
        (NET, "rows_per_run", 4),
        (NET, "rows_per_run", "auto"),
        (TOKENS, "instances", 3),
        (TOKENS, "pad_to_multiple_of", 8),
    ],
)
def test_a_knob_changes_itself_alone_and_survives_the_file(text, knob, value):
    before = parse(text)
    changed = with_knobs(before, {knob: value})
    expected = {**knobs_of(before, embedded=True), knob: value}
    assert knobs_of(changed, embedded=True) == expected
    assert parse(written(changed, "why\n\nand how", {knob: "reason"})) == changed
    assert parse(text) == before


def test_a_smaller_batch_takes_its_preferred_sizes_and_warm_ups_along():
    changed = with_knobs(parse(NET), {"max_batch": 4})
    assert list(changed.dynamic_batching.preferred_batch_size) == []
    assert len(changed.model_warmup) == 0


def test_a_parameter_that_is_turned_off_is_gone():
    changed = with_knobs(with_knobs(parse(NET), {"rows_per_run": 2}), {"rows_per_run": "off"})
    assert "rows_per_run" not in changed.parameters


def test_each_reason_stands_above_its_field():
    lines = written(parse(NET), "header", {"instances": "two of them", "intra_threads": "one thread"}).splitlines()
    assert lines[0] == "# header"
    assert lines[lines.index("# two of them") + 1].startswith("instance_group")
    assert "intra_op_thread_count" in lines[lines.index("# one thread") + 2]


@pytest.mark.parametrize(
    ("kind", "backend", "gpus", "expected"),
    [
        ("KIND_GPU", "onnxruntime", 1, True),
        ("KIND_AUTO", "onnxruntime", 1, True),
        ("KIND_AUTO", "onnxruntime", 0, False),
        ("KIND_AUTO", "python", 1, False),  # a python model chooses its device itself
        ("KIND_CPU", "onnxruntime", 1, False),
    ],
)
def test_where_instances_run(kind, backend, gpus, expected):
    message = parse(f'backend: "{backend}" instance_group [ {{ count: 1 kind: {kind} }} ]')
    assert on_gpu(message, gpus) is expected


@pytest.mark.parametrize(("knob", "value"), [("accelerator", "tensorrt"), ("accelerator", "cuda")])
def test_a_gpu_model_has_the_execution_provider_as_a_knob(knob, value):
    message = parse('backend: "onnxruntime" instance_group [ { count: 1 kind: KIND_GPU } ]')
    assert knobs_of(with_knobs(message, {knob: value}), gpus=1)[knob] == value


def test_a_tensorrt_model_has_cuda_graphs_as_a_knob():
    message = parse('backend: "tensorrt"')
    assert knobs_of(message)["cuda_graphs"] == "off"
    assert knobs_of(with_knobs(message, {"cuda_graphs": "on"}))["cuda_graphs"] == "on"
