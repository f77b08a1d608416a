"""One small model, the requests that it is sent, and what the embedded ONNX Runtime backend must do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper
from small_models import write_onnx

FLOAT, INT32, INT64, BOOL, TEXT = (
    TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING,
)  # fmt: skip


@dataclass(frozen=True)
class Graph:
    """The nodes of a graph and its tensors, (name, ONNX type, shape)."""

    nodes: Sequence[Any]
    inputs: Sequence[tuple[Any, ...]]
    outputs: Sequence[tuple[Any, ...]]
    values: Sequence[Any] = ()


@dataclass(frozen=True)
class Refused:
    """The model does not load, for a reason that names these."""

    names: tuple[str, ...]


def refused(*names: str) -> Refused:
    return Refused(names)


@dataclass(frozen=True)
class Request:
    """One request: its inputs, and the outputs or the status code that come back."""

    inputs: Mapping[str, Any]
    response: Mapping[str, Any] | str
    sequence: int | str = 0
    start: bool = False
    end: bool = False


Requests = Sequence[Request] | Refused


@dataclass(frozen=True)
class Case:
    """One model. `requests` are sent in their order, where it loads; `completed` is what auto-complete must add.

    `differs` is what the official backend does instead; with `read`, its part was read in its source, not measured.
    """

    feature: str
    what: str
    graph: Graph
    pbtxt: str | None  # None: there is no config.pbtxt
    requests: Requests
    completed: Mapping[str, Any] = field(default_factory=dict)
    file: str = "model.onnx"
    differs: str = ""
    read: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """What becomes of the model or its first request, in a word or two."""
        if isinstance(self.requests, Refused):
            return "refused at load"
        first = self.requests[0].response
        return first if isinstance(first, str) else "answered"


def write_case(repository: Path, name: str, case: Case) -> None:
    """The model folder of `case`, named `name`."""
    folder, graph = repository / name, case.graph
    write_onnx(folder / "1" / case.file, [*graph.nodes], [*graph.inputs], [*graph.outputs], graph.values)
    if case.pbtxt is not None:
        (folder / "config.pbtxt").write_text(f'backend: "onnxruntime"\n{ONE}{case.pbtxt}')
    for path, content in case.files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)


def tensors(kind: str, *written: str) -> str:
    """`input` or `output` entries of config.pbtxt, each written "name TYPE dims" with more fields behind."""
    lines = []
    for text in written:
        name, data_type, rest = text.split(" ", 2)
        lines.append(f'{kind} [ {{ name: "{name}" data_type: TYPE_{data_type} dims: {rest} }} ]\n')
    return "".join(lines)


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def texts(*values: bytes) -> np.ndarray:
    return np.array([[value] for value in values], dtype=object)


def bf16(*values: Any) -> np.ndarray:
    return np.array(values, dtype=ml_dtypes.bfloat16)


def f32(*values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float32)


ONE = "instance_group [ { count: 1 kind: KIND_CPU } ]\n"

# y = 2 x, rows of two.
DOUBLE = Graph([helper.make_node("Add", ["x", "x"], ["y"])], [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])])
DOUBLE_IO = tensors("input", "x FP32 [ 2 ]") + tensors("output", "y FP32 [ 2 ]")
DOUBLED = [Request({"x": f32([1, 2])}, {"y": f32([2, 4])})]
BATCHED = "max_batch_size: 8\n"


def double(feature: str, what: str, pbtxt: str, requests: Requests = DOUBLED, **more: Any) -> Case:
    """The model that doubles, with a complete configuration and `pbtxt`."""
    return Case(feature, what, DOUBLE, BATCHED + DOUBLE_IO + pbtxt, requests, **more)
