"""ONNX graphs from [n, 4] to [n, 4] that compute without end, ask for ever more memory, or unfold."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def forever(*, constant: bool = False) -> onnx.ModelProto:
    """A loop of 2^62 steps, over the input or over a constant."""
    return _loop([helper.make_node("Identity", ["value"], ["next"])], "weight" if constant else "x")


def growing() -> onnx.ModelProto:
    """The same, and each step doubles the rows."""
    return _loop([helper.make_node("Concat", ["value", "value"], ["next"], axis=0)], "x")


def unfolding(depth: int) -> onnx.ModelProto:
    """A function that calls a function twice that calls one twice, and so on: 2^depth nodes in a short file."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]

    def function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
        return helper.make_function("own", name, ["a"], ["b"], nodes, opsets)

    def call(index: int, taken: str, given: str) -> onnx.NodeProto:
        return helper.make_node(f"f{index}", [taken], [given], domain="own")

    functions = [function("f0", helper.make_node("Relu", ["a"], ["b"]))]
    functions += [function(f"f{i}", call(i - 1, "a", "c"), call(i - 1, "c", "b")) for i in range(1, depth + 1)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    graph = helper.make_graph([call(depth, "x", "y")], "g", [x], [y])
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)


def _loop(step: list[onnx.NodeProto], over: str) -> onnx.ModelProto:
    def value(name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), *step],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("value", ["n", 4])],
        [value("go_on", [], TensorProto.BOOL), value("next", ["n", 4])],
    )
    constants = {
        "steps": np.array(2**62, np.int64),
        "yes": np.array(True),
        "weight": np.ones((1, 4), np.float32),
    }
    nodes = [
        helper.make_node("Loop", ["steps", "yes", over], ["last"], body=body),
        helper.make_node("Add", ["x", "last"], ["y"]),
    ]
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", [value("x", ["n", 4])], [value("y", ["n", 4])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
