"""Bytes and multiply-accumulates of a model, counted from its ONNX graph: what a roofline is drawn from.

Counted are the operators that multiply: convolutions, Gemm and MatMul. Everything between them is taken as fused into
them, so that a bound from these figures is one that no fusion can be blamed for. Shapes come from one run of the graph
in ONNX Runtime, which knows them all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.recipe import Arrays

PRODUCTS = ("Conv", "Gemm", "MatMul")
UNCOUNTED = {
    "Attention", "MultiHeadAttention", "Einsum", "LSTM", "GRU", "RNN", "ConvTranspose", "ConvInteger", "MatMulInteger",
    "QLinearConv", "QLinearMatMul", "FusedMatMul", "FusedConv", "TreeEnsembleClassifier", "TreeEnsembleRegressor",
    "TreeEnsemble", "Loop", "Scan", "If",
}  # fmt: skip
"""Operators that work, but are not counted: a graph with one of them is refused."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Product:
    """One multiplying operator at batch 1. `kind` is the type of what is multiplied: fp32, fp16 or int8."""

    name: str
    op_type: str
    kind: str
    macs: int
    weight_bytes: int
    activation_bytes: int

    def bytes(self, batch: int) -> int:
        """Read and written at a batch: weights once, activations for each row."""
        return self.weight_bytes + batch * self.activation_bytes


@dataclass(frozen=True)
class GraphCost:
    """A graph's multiplying operators, in its order."""

    products: tuple[Product, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one row; twice as many FLOPs."""
        return sum(product.macs for product in self.products)

    def bytes(self, batch: int) -> int:
        """Bytes of a batch, every product reading from and writing to memory."""
        return sum(product.bytes(batch) for product in self.products)

    def seconds(self, batch: int, bytes_per_s: float, macs_per_s: Mapping[str, float]) -> tuple[float, float]:
        """The least time of a batch under these ceilings, and the share of it that memory, not arithmetic, limits.

        A product takes the longer of its two times. `macs_per_s` is by kind. Raises KeyError for a missing kind.
        """
        total = by_memory = 0.0
        for product in self.products:
            moving = product.bytes(batch) / bytes_per_s
            multiplying = batch * product.macs / macs_per_s[product.kind]
            total += max(moving, multiplying)
            by_memory += moving if moving > multiplying else 0.0
        return total, by_memory / total if total else 0.0


def count(onnx_file: Path, example: Arrays) -> GraphCost:
    """Count a graph by one run on `example`, a batch of one row. Raises ExportError for work that cannot be counted."""
    import onnx

    model = onnx.load(str(onnx_file))
    if unknown := {node.op_type for node in model.graph.node} & UNCOUNTED:
        raise ExportError(f"{onnx_file.name} has {', '.join(sorted(unknown))}, whose work is not counted")
    products = [node for node in model.graph.node if node.op_type in PRODUCTS]
    made = {output: node for node in model.graph.node for output in node.output}
    constants = _constants(model)
    values = _values(model, {name for node in products for name in (*node.input, *node.output) if name}, example)
    found = []
    for node in products:
        stored = [_stored(name, made) for name in node.input if name]
        kind = _kind(node, stored[:2], values)
        weight_bytes = activation_bytes = 0
        for name, (_, width) in zip((name for name in node.input if name), stored, strict=True):
            size = math.prod(values[name][0]) * (width or values[name][1])
            if name in constants:
                weight_bytes += size
            else:
                activation_bytes += size
        (output,) = node.output
        activation_bytes += math.prod(values[output][0]) * values[output][1]
        found.append(
            Product(node.name or output, node.op_type, kind, _macs(node, values), weight_bytes, activation_bytes)
        )
    return GraphCost(tuple(found))


def _macs(node: Any, values: Mapping[str, tuple[Shape, int]]) -> int:
    first, second = values[node.input[0]][0], values[node.input[1]][0]
    out = math.prod(values[node.output[0]][0])
    if node.op_type == "Conv":
        return out * math.prod(second[1:])  # channels of one group x window
    if node.op_type == "MatMul":
        return out * first[-1]
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return out * first[0 if transposed else 1]


def _values(model: Any, names: set[str], example: Arrays) -> dict[str, tuple[Shape, int]]:
    """Shape and bytes per element of these tensors: initialisers' as they stand, the others' in a run."""
    import onnx
    import onnxruntime

    found = {}
    for tensor in model.graph.initializer:
        if tensor.name in names:
            size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            found[tensor.name] = (tuple(tensor.dims), size)
    found |= {name: (tuple(array.shape), array.itemsize) for name, array in example.items()}
    asked = sorted(names - found.keys())
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {output.name for output in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in asked if name not in present)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for name, array in zip(asked, session.run(asked, dict(example)), strict=True):
        found[name] = (tuple(array.shape), array.itemsize)
    return found


def _stored(name: str, made: Mapping[str, Any]) -> tuple[str, int | None]:
    """What an operand is read as: one byte per element behind a DequantizeLinear, else as it is (None)."""
    node = made.get(name)
    return ("int8", 1) if node is not None and node.op_type == "DequantizeLinear" else ("", None)


def _kind(node: Any, stored: list[tuple[str, int | None]], values: Mapping[str, tuple[Shape, int]]) -> str:
    if all(word == "int8" for word, _ in stored):
        return "int8"
    return "fp16" if values[node.input[0]][1] == 2 else "fp32"


def _constants(model: Any) -> set[str]:
    """The values that depend on initialisers alone, by way of what converts or rearranges them."""
    found = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:  # in topological order, as ONNX demands
        if all(name in found for name in node.input if name):
            found.update(node.output)
    return found
