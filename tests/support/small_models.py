"""Model folders for tests, made here in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

DOUBLE_CONFIG = """
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
dynamic_batching { }
instance_group [ { count: 1 kind: KIND_CPU } ]
"""
"""For `write_double`: nothing is left to the server, and one stub does it."""


def write_onnx(
    path: Path, nodes: list, inputs: list[tuple], outputs: list[tuple], values: Sequence[onnx.TensorProto] = ()
) -> None:
    """Write a small ONNX model; tensors are (name, onnx type, shape), `values` initializers, of inputs or others."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        initializer=values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def rows_together() -> list[onnx.NodeProto]:
    """Nodes that answer each row of `x` with `together`, the number of rows that were computed in the same run; `count`
    [1] is that number too."""
    return [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Shape", ["x"], ["count"], start=0, end=1),
        helper.make_node("Expand", ["count", "shape"], ["together"]),
    ]


def write_double(folder: Path, config: str = "") -> Path:
    """A model folder whose model doubles `x` FP32 [n, 2] into `y`; returns the folder."""
    tensor = (TensorProto.FLOAT, ["n", 2])
    write_onnx(
        folder / "1" / "model.onnx", [helper.make_node("Add", ["x", "x"], ["y"])], [("x", *tensor)], [("y", *tensor)]
    )
    (folder / "config.pbtxt").write_text(f'backend: "onnxruntime"\n{config}')
    return folder
