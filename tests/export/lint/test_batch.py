"""What is said of a configuration that batches a graph whose rows do not stay apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper
from small_models import write_onnx

from export.lint.finding import Finding
from export.lint.lint import lint

TENSORS = """
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
"""
WHOLE = TENSORS.replace("[ 2 ]", "[ -1, 2 ]")
ONNX, ENGINE = 'backend: "onnxruntime"\n', 'backend: "tensorrt"\n'
RAGGED = TENSORS.replace("dims: [ 2 ] } ]\noutput", "dims: [ 2 ] allow_ragged_batch: true } ]\noutput")

# (the operator that makes `y`, config.pbtxt, how many warnings about it, the row in a sentence)
CONFIGS = [
    ("Softmax", f"{ONNX}max_batch_size: 4 {TENSORS}", 1, "rows that meet are batched"),
    ("Neg", f"{ONNX}max_batch_size: 4 {TENSORS}", 0, "rows that stay apart are batched"),
    ("Softmax", f"{ONNX}max_batch_size: 0 {WHOLE}", 0, "requests are whole"),
    ("Softmax", ONNX, 1, "Triton completes the configuration, and batches"),
    ("Neg", ONNX, 0, "Triton completes the configuration of rows that stay apart"),
    ("Softmax", f"{ENGINE}max_batch_size: 4 {TENSORS}", 1, "an engine of the graph beside it is batched"),
    ("Softmax", f"{ONNX}max_batch_size: 4 {RAGGED}", 0, "ragged requests, which the graph tells apart itself"),
]


def about_rows(repository: Path) -> list[Finding]:
    return [finding for finding in lint(repository) if finding.rule == "rows-that-meet"]


@pytest.mark.parametrize(("operator", "config", "count", "why"), CONFIGS, ids=[row[-1] for row in CONFIGS])
def test_rows_that_meet_are_warned_of_where_they_are_batched(
    operator: str, config: str, count: int, why: str, tmp_path: Path
) -> None:
    axis = {"axis": 0} if operator == "Softmax" else {}
    tensor = (TensorProto.FLOAT, ["n", 2])
    node = helper.make_node(operator, ["x"], ["y"], **axis)
    write_onnx(tmp_path / "m" / "1" / "model.onnx", [node], [("x", *tensor)], [("y", *tensor)])
    (tmp_path / "m" / "config.pbtxt").write_text(config)
    found = about_rows(tmp_path)
    assert [finding.severity for finding in found] == ["warning"] * count
    assert {finding.field for finding in found} <= {"max_batch_size", ""}
