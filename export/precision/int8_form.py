"""Whether an INT8 graph is one that TensorRT takes: every quantised tensor INT8, every zero point 0."""

from __future__ import annotations

from pathlib import Path

from export.graph import onnx_stream

_LARGEST_ZERO_POINT = 1 << 16
"""Bytes: one per channel, of more channels than any layer has."""


def tensorrt_obstacle(path: Path) -> str | None:
    """Why TensorRT does not take this graph's QuantizeLinear and DequantizeLinear nodes; None where it does.

    Raises ValueError for a file that is no ONNX model.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper

    graph = onnx_stream.read_without_weights(path, keep_bytes=_LARGEST_ZERO_POINT).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        zero = constants.get(node.input[2])
        if zero is None:
            continue
        if zero.data_type not in (TensorProto.INT8, TensorProto.FLOAT8E4M3FN, TensorProto.INT4):
            return f"'{node.input[0]}' is quantised to {TensorProto.DataType.Name(zero.data_type)}"
        if zero.data_type == TensorProto.INT8 and zero.data_location != zero.EXTERNAL:
            highest = int(np.abs(numpy_helper.to_array(zero).astype(np.int64)).max(initial=0))
            if highest:
                return f"'{node.input[0]}' is quantised with the zero point {highest}"
    return None
