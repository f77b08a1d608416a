"""Versions of the model `double` for roll-outs: as good, different, broken, and failing under load alone."""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto, helper
from small_models import write_onnx

CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching { }
model_warmup [
  { name: "one" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 2 ] zero_data: true } } }
]
"""
TENSOR = (TensorProto.FLOAT, ["n", 2])


def write(folder: Path, nodes: list, constants: list | None = None) -> Path:
    """A version's folder with model.onnx."""
    write_onnx(folder / "model.onnx", [*(constants or []), *nodes], [("x", *TENSOR)], [("y", *TENSOR)])
    return folder


def doubling(folder: Path) -> Path:
    return write(folder, [helper.make_node("Add", ["x", "x"], ["y"])])


def doubling_otherwise(folder: Path) -> Path:
    """Nearly the same function, by another operator: 2.001 x."""
    return write(folder, [helper.make_node("Mul", ["x", "two"], ["y"])], [_constant("two", 2.001)])


def tripling(folder: Path) -> Path:
    return write(folder, [helper.make_node("Mul", ["x", "three"], ["y"])], [_constant("three", 3.0)])


def broken(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"no model")
    return folder


def failing_for_large_inputs(folder: Path) -> Path:
    """Doubles, but fails for inputs of 2 and more, which no example and no warm-up shows."""
    return write(
        folder,
        [
            helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
            helper.make_node("Cast", ["largest"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "index"], ["two"]),
            helper.make_node("Mul", ["x", "two"], ["y"]),
        ],
        [_constant("table", [2.0, 2.0])],
    )


def _constant(name: str, value: float | list[float]) -> object:
    dims = [len(value)] if isinstance(value, list) else []
    values = value if isinstance(value, list) else [value]
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.FLOAT, dims, values))
