"""What is simulated, read from the ModelConfigs that a server gives."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from loadtests.simulation import Batcher, BatchTimes, Pipeline

POLICY = "dynamic_batching { default_queue_policy { %s } }"
OPEN = 'input { name: "x" data_type: TYPE_FP32 dims: -1 %s }'

BATCHERS = [
    ("no batching at all", "", Batcher(dynamic=False)),
    ("the defaults of dynamic batching", "max_batch_size: 8 dynamic_batching { }", Batcher(max_batch=8)),
    ("instances of all groups", "instance_group { count: 2 } instance_group { count: 1 }", Batcher(3, dynamic=False)),
    ("an instance a GPU", "instance_group { count: 2 gpus: [ 0, 1 ] }", Batcher(4, dynamic=False)),
    (
        "preferred sizes and delay",
        "max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 2000 }",
        Batcher(max_batch=8, preferred=(4,), delay_s=0.002),
    ),
    ("a bound of the queue", POLICY % "max_queue_size: 9", Batcher(max_queue=9)),
    (
        "a time-out that refuses",
        POLICY % "default_timeout_microseconds: 2000000",
        Batcher(timeout_s=2.0, policy=True),
    ),
    (
        "a time-out that delays",
        POLICY % "default_timeout_microseconds: 2000000 timeout_action: DELAY",
        Batcher(policy=True),
    ),
    ("time-outs of clients", POLICY % "allow_timeout_override: true", Batcher(policy=True)),
    ("priorities", "dynamic_batching { priority_levels: 2 default_priority_level: 1 }", Batcher(policy=True)),
    ("an input of open size", OPEN % "", Batcher(dynamic=False, equal_shapes=True)),
    ("a ragged input", OPEN % "allow_ragged_batch: true", Batcher(dynamic=False)),
    ("an optional input", OPEN.replace("-1", "1") % "optional: true", Batcher(dynamic=False, equal_shapes=True)),
]


@pytest.mark.parametrize(("what", "config", "expected"), BATCHERS, ids=[row[0] for row in BATCHERS])
def test_a_batcher_is_what_its_config_says(what, config, expected):
    batcher = Batcher.from_config(text_format.Parse(config, ModelConfig()))
    assert batcher == expected
    assert batcher.prefetch == (not (expected.policy or expected.max_queue or expected.timeout_s))


INNER = """
input { name: "a" } output { name: "d" }
ensemble_scheduling {
  step { model_name: "join" input_map { key: "l" value: "b" } input_map { key: "r" value: "c" }
         output_map { key: "y" value: "d" } }
  step { model_name: "left" input_map { key: "x" value: "a" } output_map { key: "y" value: "b" } }
  step { model_name: "right" input_map { key: "x" value: "a" } output_map { key: "y" value: "c" } }
}
"""
OUTER = """
input { name: "a" } output { name: "e" }
ensemble_scheduling {
  step { model_name: "inner" input_map { key: "a" value: "a" } output_map { key: "d" value: "d" } }
  step { model_name: "left" input_map { key: "x" value: "d" } output_map { key: "y" value: "e" } }
}
"""


def test_an_ensemble_is_its_steps_each_after_those_that_it_needs():
    configs = {"outer": OUTER, "inner": INNER, "left": "", "right": "", "join": ""}
    times = dict.fromkeys(("left", "right", "join"), BatchTimes.constant(0.01))
    pipeline = Pipeline.from_configs("outer", lambda name: text_format.Parse(configs[name], ModelConfig()), times)
    assert [(step.name, step.after) for step in pipeline.steps] == [
        ("left", ()),
        ("right", ()),
        ("join", ("left", "right")),
        ("left#2", ("join",)),
    ]
