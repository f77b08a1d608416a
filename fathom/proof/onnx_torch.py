"""ResNet-50's ONNX graph as a torch module with the same weights: what a person would run without a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError


def module(onnx_file: Path) -> Any:
    """A torch module of the graph, one layer per node. Raises ExportError for an operator that is not known here."""
    import onnx
    import torch
    from onnx import numpy_helper

    graph = onnx.load(str(onnx_file)).graph
    weights = {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    layers = [(node, *_layer(node, weights)) for node in graph.node]
    source, target = graph.input[0].name, graph.output[0].name

    class Graph(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([layer for _, layer, _ in layers if isinstance(layer, torch.nn.Module)])

        def forward(self, pixels: Any) -> Any:
            values = {source: pixels}
            for node, layer, operands in layers:
                values[node.output[0]] = layer(*(values[name] for name in operands))
            return values[target]

    return Graph().eval()


def _layer(node: Any, weights: dict[str, Any]) -> tuple[Callable[..., Any], list[str]]:
    """What computes a node, and the names of the values that it is called with."""
    import torch
    from onnx import helper
    from torch import nn

    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}

    def fill(layer: Any, **values: Any) -> Any:
        with torch.no_grad():
            for name, array in values.items():
                getattr(layer, name).copy_(torch.from_numpy(array))
        return layer

    first = [node.input[0]]
    kind = node.op_type
    if kind in ("Conv", "MaxPool", "AveragePool"):
        window = tuple(given.get("kernel_shape") or weights[node.input[1]].shape[2:])
        stride, pads = tuple(given.get("strides") or (1, 1)), given.get("pads") or [0, 0, 0, 0]
        if tuple(pads[:2]) != tuple(pads[2:]):
            raise ExportError(f"{kind} with pads {pads} is not known here")
        if kind == "MaxPool":
            return nn.MaxPool2d(window, stride, tuple(pads[:2])), first
        if kind == "AveragePool":
            return nn.AvgPool2d(window, stride, tuple(pads[:2])), first
        weight = weights[node.input[1]]
        biased = len(node.input) > 2
        groups = int(given.get("group") or 1)
        layer = nn.Conv2d(weight.shape[1] * groups, weight.shape[0], window, stride, tuple(pads[:2]), 1, groups, biased)
        return fill(layer, weight=weight, **({"bias": weights[node.input[2]]} if biased else {})), first
    if kind == "BatchNormalization":
        scale, bias, mean, variance = (weights[name] for name in node.input[1:5])
        layer = nn.BatchNorm2d(len(scale), eps=float(given.get("epsilon", 1e-5)))
        return fill(layer, weight=scale, bias=bias, running_mean=mean, running_var=variance), first
    if kind == "Gemm" and given.get("transB") and not given.get("transA"):
        weight = weights[node.input[1]]
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        return fill(layer, weight=weight, bias=weights[node.input[2]]), first
    if kind == "Relu":
        return nn.ReLU(), first
    if kind == "Softmax":
        return nn.Softmax(-1), first
    if kind == "Reshape" and node.input[1] in weights:
        shape = [int(size) for size in weights[node.input[1]]]
        return nn.Flatten() if shape[0] in (0, -1) and len(shape) == 2 else _unknown(kind), first
    if kind in ("Sum", "Add"):
        return torch.add, list(node.input)
    return _unknown(kind), first


def _unknown(kind: str) -> Any:
    raise ExportError(f"operator {kind} of this graph is not known here")
