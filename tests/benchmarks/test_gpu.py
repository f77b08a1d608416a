"""The GPU script's dry run: the same steps on the CPU, against a real Triton."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks import gpu as script
from export.config import config as configs

pytestmark = pytest.mark.process

CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
dynamic_batching { preferred_batch_size: [ 4 ] }
instance_group [ { kind: KIND_CPU count: 2 }, { kind: KIND_CPU } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
model_warmup [ { name: "one" batch_size: 1 }, { name: "eight" batch_size: 8 } ]
"""


def test_a_variant_changes_device_instances_and_batch_alone():
    on_gpu = configs.parse(script.configuration(CONFIG, "cuda", (3, 4)))
    (group,) = on_gpu.instance_group
    assert (group.kind, group.count, on_gpu.max_batch_size) == (type(group).KIND_GPU, 3, 4)
    assert [each.name for each in on_gpu.model_warmup] == ["one"]
    assert "intra_op_thread_count" not in on_gpu.parameters

    committed = configs.parse(script.configuration(CONFIG, "cpu"))
    assert (committed.instance_group[0].count, committed.max_batch_size) == (2, 8)
    assert list(committed.dynamic_batching.preferred_batch_size) == [4]


def test_a_dry_run_measures_and_keeps_what_failed(exported_repository: Path, tmp_path: Path):
    (subject,) = script.subjects([exported_repository], ["mobilenet_v2"])
    gone = dataclasses.replace(subject, model="gone", folder=tmp_path)
    document = script.measure([gone, subject], script.DRY, ["accuracy", "served"], tmp_path / "gpu.json")

    assert [(each["step"], each["model"]) for each in document["failed"]] == [
        ("accuracy", "gone fp32"),
        ("served", "gone fp32"),
    ]
    (judged,), (served,) = document["accuracy"], document["served"]
    assert judged["min_cosine"] > 0.9999
    assert 0 < served["served_of_bare"] == served["lowest"] == served["highest"]
    assert served["served_rows_per_s"] / served["bare_rows_per_s"] == served["served_of_bare"]
    assert json.loads((tmp_path / "gpu.json").read_text())["served"] == document["served"]
    assert document["dry_run"] is True
