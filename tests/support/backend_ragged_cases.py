"""Models for ragged batches: requests of different shapes in one batch, and inputs that describe the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from backend_case import BATCHED, FLOAT, Case, Graph, Request, f32, refused, tensors
from onnx import helper

# flat = x + the sum of what the batch input says, or its size
RAGGED_INPUT = BATCHED + tensors("input", "x FP32 [ -1 ] allow_ragged_batch: true")
BATCH_INPUT = 'batch_input [ { kind: %s target_name: "about" data_type: TYPE_FP32 source_input: "x" } ]\n'
SCATTER = 'batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "flat" source_input: "x" } ]\n'
FLAT = tensors("output", "flat FP32 [ -1 ]")


def ragged_graph(about: Sequence[str], x: Sequence[str] = ("elements",), *, size: bool = False) -> Graph:
    measured = [helper.make_node("Shape", ["about"], ["s"]), helper.make_node("Cast", ["s"], ["as_floats"], to=FLOAT)]
    nodes = [*(measured if size else [helper.make_node("Identity", ["about"], ["as_floats"])])]
    nodes += [
        helper.make_node("ReduceSum", ["as_floats"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["flat"]),
    ]
    return Graph(nodes, [("x", FLOAT, [*x]), ("about", FLOAT, [*about])], [("flat", FLOAT, [*x])])


def ragged(kind: str, total: float, **more: Any) -> Case:
    """A request of two rows of three numbers."""
    graph = ragged_graph(["rows", 1] if kind == "BATCH_ITEM_SHAPE" else ["entries"], size="AS_SHAPE" in kind)
    x = f32([1, 2, 3], [4, 5, 6])
    return Case(
        "ragged batches", kind, graph, RAGGED_INPUT + BATCH_INPUT % kind + SCATTER + FLAT,
        [Request({"x": x}, {"flat": x + total})], **more,
    )  # fmt: skip


JOINED = replace(
    ragged("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", 6),
    what="requests of different lengths in one batch",
    requests=[],  # several at a time
    pbtxt=RAGGED_INPUT
    + BATCH_INPUT % "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO"
    + SCATTER
    + FLAT
    + "dynamic_batching { preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 2000000 }\n",
)
RAGGED_CASES = [
    ragged("BATCH_ELEMENT_COUNT", 6),
    ragged("BATCH_ACCUMULATED_ELEMENT_COUNT", 6),
    ragged("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", 6),
    ragged("BATCH_MAX_ELEMENT_COUNT_AS_SHAPE", 6),
    ragged("BATCH_ITEM_SHAPE", 6, read=True),
    ragged("BATCH_ITEM_SHAPE_FLATTEN", 6, read=True),
    JOINED,
    Case(
        "ragged batches", "a graph that cannot take rows laid end to end",
        ragged_graph(["entries"], ["n", "m"]),
        RAGGED_INPUT + BATCH_INPUT % "BATCH_ELEMENT_COUNT" + SCATTER + FLAT, refused("'x'", "ragged"), read=True,
    ),
]  # fmt: skip
