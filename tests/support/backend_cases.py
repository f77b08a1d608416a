"""Small models that show what the embedded ONNX Runtime backend shares with the official C++ one, and what it does not.

Each case says what the embedded backend does. The official one does the same, unless `differs` says what it does
instead. That was measured with release 24.10 and ONNX Runtime 1.32 or, where `read` is set, read in its source.
`table` makes of `CASES` the comparison that docs/reference/backend.md prints.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from backend_case import (
    BATCHED,
    DOUBLE,
    DOUBLE_IO,
    DOUBLED,
    FLOAT,
    INT64,
    TEXT,
    Case,
    Graph,
    Refused,
    Request,
    Requests,
    bf16,
    double,
    f32,
    parameter,
    refused,
    tensors,
    texts,
)  # fmt: skip
from backend_ragged_cases import RAGGED_CASES
from backend_sequence_cases import CONTROL_CASES, OLDEST, STATE_CASES, sequences
from onnx import TensorProto, helper

# --- optional inputs: y = x + shift, where the graph has 100 for shift
SHIFT = Graph(
    [helper.make_node("Add", ["x", "shift"], ["y"])],
    [("x", FLOAT, [2]), ("shift", FLOAT, [1])],
    [("y", FLOAT, [2])],
    [helper.make_tensor("shift", FLOAT, [1], [100])],
)
SHIFT_IO = tensors("input", "x FP32 [ 2 ]", "shift FP32 [ 1 ] %s") + tensors("output", "y FP32 [ 2 ]")
SHIFTED = [
    Request({"x": f32(1, 2)}, {"y": f32(101, 102)}),
    Request({"x": f32(1, 2), "shift": f32(10)}, {"y": f32(11, 12)}),
]


def optional(what: str, graph: Graph, pbtxt: str, requests: Requests, **more: Any) -> Case:
    return Case("optional inputs", what, graph, pbtxt, requests, **more)


OPTIONAL_CASES = [
    optional("over an initializer, given or not", SHIFT, SHIFT_IO % "optional: true", SHIFTED),
    optional(
        "over an initializer, but not `optional` in config.pbtxt",
        SHIFT,
        SHIFT_IO % "",
        refused("'shift'", "optional"),
        read=True,
    ),
    optional(
        "that the graph needs",
        DOUBLE,
        DOUBLE_IO.replace("[ 2 ]", "[ -1, 2 ] optional: true", 1),
        refused("'x'", "optional"),
        read=True,
    ),
    optional(
        "with a batch axis",
        Graph(SHIFT.nodes, [("x", FLOAT, ["n", 2]), SHIFT.inputs[1]], [("y", FLOAT, ["n", 2])], SHIFT.values),
        BATCHED + SHIFT_IO % "optional: true",
        refused("'shift'", "optional"),
        read=True,
    ),
]

# --- what config.pbtxt leaves out
ROWS = Graph([helper.make_node("Add", ["x", "x"], ["y"])], [("x", FLOAT, ["n"])], [("y", FLOAT, ["n"])])
SCALAR = Graph([helper.make_node("Add", ["x", "x"], ["y"])], [("x", FLOAT, [])], [("y", FLOAT, [])])
FIXED = Graph(DOUBLE.nodes, [("x", FLOAT, [1, 2])], [("y", FLOAT, [1, 2])])
SUM = Graph(
    [helper.make_node("Add", ["x", "z"], ["y"])],
    [("x", FLOAT, ["n", 2]), ("z", FLOAT, ["n", 2])],
    [("y", FLOAT, ["n", 2])],
)
DEFAULT_BATCH = 16  # by the server's --backend-config
BATCHING = {"max_batch_size": DEFAULT_BATCH, "dynamic_batching": True}


def auto(what: str, pbtxt: str | None, requests: Requests, graph: Graph = DOUBLE, **more: Any) -> Case:
    return Case("auto-complete", what, graph, pbtxt, requests, **more)


COMPLETED_CASES = [
    auto("of everything, with the server's default-max-batch-size", "", DOUBLED, completed=BATCHING),
    auto("without a config.pbtxt", None, DOUBLED, completed=BATCHING, read=True),
    auto("max_batch_size given (dynamic batching is added)", BATCHED, DOUBLED,
         completed={"max_batch_size": 8, "dynamic_batching": True}),
    auto(
        "max_batch_size 1", "max_batch_size: 1\n", DOUBLED, completed={"max_batch_size": 1, "dynamic_batching": False},
        read=True,
    ),
    auto("of outputs alone", tensors("input", "x FP32 [ 2 ]"), DOUBLED, completed=BATCHING),
    auto("of some inputs", BATCHED + tensors("input", "x FP32 [ 2 ]"), refused("'z'"), SUM),
    auto("beside sequence_batching", sequences(OLDEST),
         [Request({"x": f32([1, 2])}, {"y": f32([2, 4])}, 7, True, True)],
         completed={"max_batch_size": DEFAULT_BATCH, "dynamic_batching": False}),
    auto("a graph of [batch]", "", [Request({"x": f32([1], [2])}, {"y": f32([2], [4])})], ROWS, completed=BATCHING),
    auto("scalars", "", [Request({"x": f32(3)}, {"y": f32(6)})], SCALAR,
         completed={"max_batch_size": 0, "dynamic_batching": False}),
    auto("a fixed first axis", "", DOUBLED, FIXED, completed={"max_batch_size": 0, "dynamic_batching": False}),
    auto("max_batch_size beside a fixed first axis", BATCHED, refused("max_batch_size"), FIXED, read=True),
]  # fmt: skip

# --- options
OPTION_CASES = [
    double("options", 'enable_mem_arena and enable_mem_pattern "true", "FALSE"',
           parameter("enable_mem_arena", "true") + parameter("enable_mem_pattern", "FALSE")),
    double("options", 'enable_mem_arena "yes"', parameter("enable_mem_arena", "yes"),
           refused("enable_mem_arena", "'yes'"), read=True),
    double("options", "memory.enable_memory_arena_shrinkage, execution_mode, graph level",
           parameter("memory.enable_memory_arena_shrinkage", "cpu:0") + parameter("execution_mode", "1")
           + "optimization { graph { level: 2 } }\n"),
    double("options", "platform, warm-up with count",
           'platform: "onnxruntime_onnx"\n model_warmup [ { name: "w" count: 2 batch_size: 1 '
           'inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 2 ] zero_data: true } } } ]'),
    double("options", "GPU accelerators on CPU instances",
           'optimization { execution_accelerators { gpu_execution_accelerator: [ { name: "tensorrt" } ] } }'),
    double("options", "a CPU accelerator",
           'optimization { execution_accelerators { cpu_execution_accelerator: [ { name: "openvino" } ] } }',
           refused("'openvino'"),
           read=True, differs="serves with OpenVINO in the container"),
    double("options", "a thread count that is no number", parameter("intra_op_thread_count", "many"),
           refused("intra_op_thread_count", "'many'"), read=True),
    double("options", "a thread count below 0", parameter("intra_op_thread_count", "-1"),
           refused("intra_op_thread_count", "'-1'"),
           differs="ignores it"),
    double("options", 'execution_mode "01"', parameter("execution_mode", "01"),
           refused("execution_mode", "'01'"), differs="accepts it"),
    double("options", "graph level 3", "optimization { graph { level: 3 } }\n",
           refused("optimization.graph.level"), differs="ignores it"),
    double("options", "an unknown key", parameter("intra_op_threads", "1"),
           refused("'intra_op_threads'"), differs="ignores it"),
]  # fmt: skip

# --- rows_per_run, a parameter of the embedded backend alone
SAME = Graph([helper.make_node("Identity", ["x"], ["y"])], [("x", FLOAT, ["n", "m"])], [("y", FLOAT, ["n", "m"])])
IGNORED = "ignores the parameter"
AUTO_ROWS = parameter("rows_per_run", "auto")
PICKED = Graph(
    [
        helper.make_node("Sub", ["x", "ten"], ["index"]),  # -10 for zeros: out of range
        helper.make_node("Gather", ["table", "index"], ["y"]),
    ],
    [("x", INT64, ["n", 1])],
    [("y", FLOAT, ["n", 1])],
    [helper.make_tensor("ten", INT64, [1], [10]), helper.make_tensor("table", FLOAT, [2], [1, 2])],
)
ROWS_CASES = [
    double("rows_per_run", "a word but auto", parameter("rows_per_run", "many"), refused("rows_per_run", "'many'"),
           differs=IGNORED),
    Case("rows_per_run", "auto, with inputs of open size", SAME,
         BATCHED + tensors("input", "x FP32 [ -1 ]") + tensors("output", "y FP32 [ -1 ]") + AUTO_ROWS,
         refused("rows_per_run", "'x'", "[-1]"), differs=IGNORED),
    Case("rows_per_run", "auto, with a graph that fails for zeros", PICKED,
         BATCHED + tensors("input", "x INT64 [ 1 ]") + tensors("output", "y FP32 [ 1 ]") + AUTO_ROWS,
         refused("rows_per_run", "zeros"), differs=IGNORED),
]  # fmt: skip

# --- the rest
TEXTS = Graph(
    [helper.make_node("Identity", ["text"], ["said"])], [("text", TEXT, ["n", 1])], [("said", TEXT, ["n", 1])]
)
TEXT_IO = BATCHED + tensors("input", "text STRING [ 1 ]") + tensors("output", "said STRING [ 1 ]")
MEAN = Graph([helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)], [("x", FLOAT, [2])], [("y", FLOAT, [])])
TWICE = Graph(
    [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)], [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])]
)
BF16 = Graph(
    [helper.make_node("Identity", ["x"], ["y"])],
    [("x", TensorProto.BFLOAT16, [2])],
    [("y", TensorProto.BFLOAT16, [2])],
)
OTHER_CASES = [
    Case("shapes", "a scalar output of dims [1]", MEAN,
         tensors("input", "x FP32 [ 2 ]") + tensors("output", "y FP32 [ 1 ]"),
         [Request({"x": f32(1, 3)}, {"y": f32(2)})]),
    Case("shapes", "of other sizes than the graph's", DOUBLE, BATCHED + DOUBLE_IO.replace("[ 2 ]", "[ 3 ]"),
         refused("'x'", "[-1, 3]"), read=True),
    Case("names and types", "as in the graph", DOUBLE, BATCHED + DOUBLE_IO, DOUBLED),
    Case("names and types", "an input of another type", DOUBLE, BATCHED + DOUBLE_IO.replace("FP32", "FP16", 1),
         refused("'x'", "TYPE_FP16")),
    Case("names and types", "an input that the graph lacks", DOUBLE,
         BATCHED + DOUBLE_IO + tensors("input", "z FP32 [ 2 ]"), refused("'z'")),
    Case("names and types", "an output that the graph lacks", DOUBLE,
         BATCHED + DOUBLE_IO + tensors("output", "z FP32 [ 2 ]"), refused("'z'")),
    Case("shapes", "a scalar output of other dims", MEAN,
         tensors("input", "x FP32 [ 2 ]") + tensors("output", "y FP32 [ 2 ]"), refused("'y'", "[2]"), read=True),
    Case("shapes", "an output of open size in the graph, fixed in dims", SAME, BATCHED + DOUBLE_IO,
         refused("'y'", "[-1, -1]"), read=True),
    Case("shapes", "an input of open size in the graph, fixed in dims", SAME,
         BATCHED + tensors("input", "x FP32 [ 2 ]") + tensors("output", "y FP32 [ -1 ]"),
         [Request({"x": f32([1, 2])}, {"y": f32([1, 2])})]),
    Case("shapes", "reshape", ROWS,
         BATCHED + tensors("input", "x FP32 [ 1 ] reshape { shape: [ ] }")
         + tensors("output", "y FP32 [ 1 ] reshape { shape: [ ] }"),
         [Request({"x": f32([1], [2])}, {"y": f32([2], [4])})]),
    Case("shapes", "an axis of size 0", SAME,
         BATCHED + tensors("input", "x FP32 [ -1 ]") + tensors("output", "y FP32 [ -1 ]"),
         [Request({"x": np.zeros((1, 0), np.float32)}, {"y": np.zeros((1, 0), np.float32)})]),
    Case("shapes", "an output with more rows than the batch", TWICE, BATCHED + DOUBLE_IO,
         [Request({"x": f32([1, 2])}, "INTERNAL")], differs="cuts off the rows beyond the batch's"),
    double("model files", "a folder", "", file="model.onnx/model.onnx"),
    double("model files", "a folder of another name", 'default_model_filename: "net"\n', file="net/model.onnx"),
    double("model files", "none of the name in config.pbtxt", "", refused("1/model.onnx"), file="other.onnx"),
    double("decoupled", "one answer for each request of a stream", "model_transaction_policy { decoupled: true }\n"),
    double("custom operators", "a library that is missing",
           'model_operations { op_library_filename: "/nowhere/libops.so" }\n', refused("/nowhere/libops.so")),
    Case("texts", "in UTF-8", TEXTS, TEXT_IO,
         [Request({"text": texts("höher".encode(), b"")}, {"said": texts("höher".encode(), b"")})]),
    Case("texts", "not UTF-8", TEXTS, TEXT_IO, [Request({"text": texts(b"\xff")}, "INVALID_ARGUMENT")],
         differs="passes the bytes through"),
    Case("texts", "holding a NUL", TEXTS, TEXT_IO, [Request({"text": texts(b"a\0b")}, {"said": texts(b"a\0b")})],
         differs="cuts the text at the NUL"),
    Case("BF16", "an input", BF16,
         tensors("input", "x BF16 [ 2 ]") + tensors("output", "y BF16 [ 2 ]"),
         [Request({"x": bf16(1, 2)}, {"y": bf16(1, 2)})], differs="refuses it before release 26.03"),
]  # fmt: skip

CASES = {
    f"{case.feature.replace(' ', '_')}_{number}": case
    for cases in (
        STATE_CASES,
        CONTROL_CASES,
        OPTIONAL_CASES,
        RAGGED_CASES,
        COMPLETED_CASES,
        OPTION_CASES,
        ROWS_CASES,
        OTHER_CASES,
    )
    for number, case in enumerate(cases)
}


def table() -> str:
    """The comparison, one row a feature, in Markdown."""
    lines = ["| feature | answered by both | refused at load by both | differs |", "|---|---|---|---|"]
    for feature in dict.fromkeys(case.feature for case in CASES.values()):
        cases = [case for case in CASES.values() if case.feature == feature]
        same = [case for case in cases if not case.differs]
        columns = (
            [case.what for case in same if not isinstance(case.requests, Refused)],
            [case.what for case in same if isinstance(case.requests, Refused)],
            [f"{case.what}: {case.outcome}, the official one {case.differs}" for case in cases if case.differs],
        )
        lines.append(f"| {feature} | {' | '.join('; '.join(column) for column in columns)} |")
    return "\n".join(lines)
