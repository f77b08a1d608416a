"""Configurations of ONNX graphs: what is left out, what the graph has otherwise, and what Triton itself gives."""

from __future__ import annotations

from configurations.case import ONNX, Case, Graph, X, Y, refused, served, tensor, two
from configurations.case import model as _model
from configurations.models import RAGGED_X, count, scatter
from configurations.scheduling import STATE, ZERO, control


def onnx(more: str = "", **blocks) -> str:
    """A model of an ONNX graph."""
    return _model(more, backend=ONNX, **blocks)


def sequence(body: str) -> str:
    """A sequence batcher."""
    return f"sequence_batching {{ {body} }}"


def graph(*nodes, inputs=None, outputs=None, **more) -> dict[str, Graph]:
    """The file of a graph."""
    given = {key: value for key, value in {"inputs": inputs, "outputs": outputs}.items() if value is not None}
    return {"1/model.onnx": Graph(nodes or Graph.nodes, **given, **more)}


WHOLE = graph(inputs={"x": [3, 2]}, outputs={"y": [3, 2]})
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 12345\n"
SUM = ("Add", ["x", "h"], ["y"])
TWO = graph(SUM, inputs={"x": ["n", 2], "h": ["n", 2]})
OPTIONAL = graph(SUM, inputs={"x": ["n", 2], "h": [2]}, initializers={"h": [1.0, 2.0]})
BATCHLESS = graph(inputs={"x": ["n"]}, outputs={"y": ["n"]})
SCALAR = graph(("ReduceSum", ["x"], ["y"]), inputs={"x": ["n", 2]}, outputs={"y": []})

KEPT = graph(
    ("Add", ["x", "h"], ["h_out"]),
    ("Identity", ["h_out"], ["y"]),
    inputs={"x": ["n", 2], "h": ["n", 2]},
    outputs={"y": ["n", 2], "h_out": ["n", 2]},
)
STATE_BLOCK = sequence(STATE.format(ZERO))
CONTROLS = graph(
    ("Add", ["x", "START"], ["y"]),
    inputs={"x": ["n", 2], "START": ["n", 1]},
)
FP32_START, INT32_START = (
    sequence(control(f"kind: CONTROL_SEQUENCE_START {kind}_false_true: [ 0, 1 ]")) for kind in ("fp32", "int32")
)
RAGGED = graph(
    ("Identity", ["x"], ["y"]),
    ("Identity", ["INDEX"], ["index"]),
    inputs={"x": ["n"], "INDEX": ["m"]},
    outputs={"y": ["n"], "index": ["m"]},
)
OPEN = tensor("output", "dims: [ -1 ]")
SCALAR_DIMS = "dims: [ 1 ] reshape { shape: [ ] }"

# fmt: off
CASES: list[Case] = [
    served("a graph", onnx()),
    served("a graph whose tensors are left out", onnx(x="", y="")),
    served("a graph of which all is left out", ONNX),
    served("a graph whose output is left out", onnx(y="")),
    served("a graph of whole shapes",
        onnx(batch=0, x=X.replace("[ 2 ]", "[ 3, 2 ]"), y=Y.replace("[ 2 ]", "[ 3, 2 ]")), WHOLE),
    served("a graph of open shapes without batching",
        onnx(batch=0, x=X.replace("[ 2 ]", "[ -1, 2 ]"), y=Y.replace("[ 2 ]", "[ -1, 2 ]"))),
    refused("a graph of whole shapes that is batched", "graph", "max_batch_size", onnx(), WHOLE),
    refused("a graph of other sizes", "graph", "input[0].dims", onnx(x=X.replace("[ 2 ]", "[ 4 ]"))),
    refused("a graph of another rank", "graph", "input[0].dims", onnx(x=X.replace("[ 2 ]", "[ 2, 2 ]"))),
    refused("a graph with the batch in dims too", "graph", "input[0].dims", onnx(x=X.replace("[ 2 ]", "[ -1, 2 ]"))),
    refused("a graph of sizes that are open in the file only", "graph", "input[0].dims",
        onnx(x=X.replace("[ 2 ]", "[ -1 ]"))),
    refused("a graph of another type", "graph", "input[0].data_type", onnx(x=X.replace("FP32", "INT32"))),
    refused("a graph with another type of output", "graph", "output[0].data_type", onnx(y=Y.replace("FP32", "FP64"))),
    refused("a graph without that input", "graph", "input[0].name", onnx(x=X.replace('"x"', '"z"'))),
    refused("a graph without that output", "graph", "output[0].name", onnx(y=Y.replace('"y"', '"z"'))),
    refused("a graph with another input", "graph", "input", onnx(), TWO),
    served("a graph with two inputs", onnx(x=two("input", "h")), TWO),
    served("a graph with an optional input that is left out", onnx(), OPTIONAL),
    served("a graph with an output more", onnx(),
        graph(("Neg", ["x"], ["y"]), ("Neg", ["x"], ["z"]), outputs={"y": ["n", 2], "z": ["n", 2]})),
    served("a graph of one number a row",
        onnx(x=tensor("input", SCALAR_DIMS), y=tensor("output", SCALAR_DIMS)),
        BATCHLESS),
    served("a graph of one number a row of which all is left out", ONNX, BATCHLESS),
    served("a graph that answers a scalar",
        onnx(batch=0, x=X.replace("[ 2 ]", "[ -1, 2 ]"), y=Y.replace("[ 2 ]", "[ 1 ]")), SCALAR),
    refused("a file that is no graph", "graph-file", "", onnx(), {"1/model.onnx": "nothing"}),
    refused("a file of nothing", "graph-file", "", onnx(), {"1/model.onnx": ""}),
    refused("a file that Git keeps elsewhere", "graph-file", "", onnx(), {"1/model.onnx": LFS}),
    served("a folder with a graph", onnx(), {"1/model.onnx/model.onnx": Graph()}),
    served("a state that Triton keeps", onnx(STATE_BLOCK), KEPT),
    refused("a state that the graph does not take", "graph", "sequence_batching.state[0].input_name",
        onnx(STATE_BLOCK)),
    served("a control that Triton gives", onnx(FP32_START), CONTROLS),
    refused("a control that the graph does not take", "graph", "sequence_batching.control_input[0].name",
        onnx(FP32_START)),
    refused("a control of another type", "graph", "sequence_batching.control_input[0]",
        onnx(INT32_START), CONTROLS),
    served("sequences without controls", onnx("sequence_batching { }")),
    served("ragged requests to a graph",
        onnx(count() + scatter(), x=RAGGED_X, y=OPEN), RAGGED),
    refused("a batch input that the graph does not take", "graph", "batch_input[0].target_name[0]",
        onnx(count() + scatter(), x=RAGGED_X, y=OPEN), BATCHLESS),
    refused("an unknown parameter of the backend", "parameters", 'parameters["intra_op_tread_count"]',
        onnx('parameters { key: "intra_op_tread_count" value { string_value: "1" } }')),
    refused("threads that are no number", "whole-numbers", 'parameters["intra_op_thread_count"].value',
        onnx('parameters { key: "intra_op_thread_count" value { string_value: "two" } }')),
    served("a memory arena in words", onnx('parameters { key: "enable_mem_arena" value { string_value: "false" } }')),
    refused("a memory arena of another word", "choices", 'parameters["enable_mem_arena"].value',
        onnx('parameters { key: "enable_mem_arena" value { string_value: "yes" } }')),
    refused("an execution mode of another spelling", "choices", 'parameters["execution_mode"].value',
        onnx('parameters { key: "execution_mode" value { string_value: "01" } }')),
    refused("an unknown level of optimization", "graph-level", "optimization.graph.level",
        onnx("optimization { graph { level: 3 } }")),
    refused("a missing library of operators", "op-library", "model_operations.op_library_filename[0]",
        onnx('model_operations { op_library_filename: "ops.so" }')),
    served("an unknown accelerator of a GPU",
        onnx('optimization { execution_accelerators { gpu_execution_accelerator { name: "trt" } } }')),
    refused("an unknown accelerator of a CPU", "cpu-accelerators",
        "optimization.execution_accelerators.cpu_execution_accelerator[0].name",
        onnx('optimization { execution_accelerators { cpu_execution_accelerator { name: "trt" } } }')),
]
# fmt: on
