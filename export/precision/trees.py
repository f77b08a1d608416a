"""Tell a graph of trees, which no precision below FP32 makes smaller or faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.graph import onnx_stream

WHY_NOT_REDUCED = "trees compare and add, and ONNX has them in floating point of 32 bits or more only"


def only_trees(path: Path) -> bool:
    """Whether the graph has tree ensembles, and no matrix of weights beside them."""
    graph = onnx_stream.read_without_weights(path).graph
    has_trees = any(node.domain == "ai.onnx.ml" and node.op_type.startswith("TreeEnsemble") for node in graph.node)
    return has_trees and not any(map(_is_matrix, graph.initializer))


def _is_matrix(tensor: Any) -> bool:
    """Whether it is floating point with two axes or more, not counting those of size 1."""
    return tensor.data_type in (tensor.FLOAT, tensor.DOUBLE) and sum(size > 1 for size in tensor.dims) > 1
