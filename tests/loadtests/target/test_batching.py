"""How a server batches, by the configuration that it gives of a model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from loadtests.records.batching import Batching
from loadtests.target.batching import batching_of

PLAIN = 'backend: "onnxruntime" max_batch_size: 8 instance_group { count: 2 kind: KIND_CPU }'
DYNAMIC = f"{PLAIN} dynamic_batching {{ %s }}"
USUAL = Batching("onnxruntime", 8, "dynamic", instances=2, on_gpu=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DYNAMIC % "", USUAL),
        (PLAIN, replace(USUAL, batcher="none")),
        (f"{PLAIN} sequence_batching {{ oldest {{ }} }}", replace(USUAL, batcher="sequence")),
        (DYNAMIC % "default_queue_policy { timeout_action: DELAY }", USUAL),
        (DYNAMIC % "default_queue_policy { max_queue_size: 9 }", replace(USUAL, prefetches=False)),
        (DYNAMIC % "default_queue_policy { allow_timeout_override: true }", replace(USUAL, prefetches=False)),
        (DYNAMIC % "default_queue_policy { default_timeout_microseconds: 1 }", replace(USUAL, prefetches=False)),
        (DYNAMIC % "priority_levels: 2", replace(USUAL, prefetches=False)),
        (
            DYNAMIC % "preferred_batch_size: [ 2, 4, 8 ] max_queue_delay_microseconds: 500",
            replace(USUAL, preferred=(2, 4), delay_us=500),
        ),
        (
            f'{DYNAMIC % ""} input {{ name: "ids" dims: [ -1 ] }} input {{ name: "fixed" dims: [ 3 ] }}'
            ' input { name: "ragged" dims: [ -1 ] allow_ragged_batch: true }',
            replace(USUAL, open_inputs=("ids",)),
        ),
        (
            'platform: "tensorrt_plan" max_batch_size: 8 dynamic_batching { }'
            " instance_group { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] } instance_group { count: 1 gpus: [ 0 ] }",
            Batching("tensorrt_plan", 8, "dynamic", instances=5, on_gpu=True),
        ),
    ],
    ids=[
        "dynamic batching as it comes",
        "none",
        "of sequences",
        "an action alone is no queue policy",
        "a bound on the queue",
        "deadlines of callers",
        "a deadline of its own",
        "priorities",
        "preferred sizes below the largest, and a delay",
        "of the inputs only those of open size that are not ragged",
        "each GPU of a group has its instances",
    ],
)
def test_what_a_configuration_says_of_batches(text: str, expected: Batching) -> None:
    assert batching_of(text_format.Parse(text, model_config_pb2.ModelConfig())) == expected
