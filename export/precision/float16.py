"""FP16: weights and arithmetic in half precision, inputs and outputs as they were.

ONNX Runtime's own converter is used. It clips what half precision cannot hold, leaves operators without half-precision
kernels in FP32, and needs no package that is not there already; docs/guides/precision.md names what it was compared
with. It sees a graph without its large weights, which are converted from file to file by its own function.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from export.graph import edit, onnx_file, onnx_stream
from export.precision.precision import kept_float
from export.recipe.limits import Reduced

METHOD = "onnxruntime.transformers.float16, inputs and outputs FP32"
CHUNK = 1 << 22


class HalfPrecision:
    """One FP32 graph and its nodes that stay in FP32."""

    def __init__(
        self, full: Path, rule: Reduced, excluded: Sequence[str], *, keep_bytes: int = onnx_stream.LARGE
    ) -> None:
        self.full = full
        self._keep_bytes = keep_bytes
        model = onnx_stream.read_without_weights(full)
        self.kept = kept_float(model, rule.keep_float, excluded)
        self._types = {node.name: str(node.op_type) for node in model.graph.node}

    @property
    def candidates(self) -> dict[str, str]:
        """The operator types that are converted, each by itself: what an exclusion may name."""
        return {kind: kind for name, kind in sorted(self._types.items()) if name not in self.kept}

    def write(self, target: Path, only: str | None = None) -> None:
        """Write the graph in mixed precision; with `only`, nothing but nodes of that operator type is converted."""
        others = {name for name, kind in self._types.items() if only is not None and kind != only}
        room = target.with_name(f"{target.name}.parts")
        room.mkdir()
        with onnx_file.quiet():
            from onnx.shape_inference import infer_shapes
            from onnxruntime.transformers.float16 import convert_float_to_float16
            from onnxruntime.transformers.onnx_model import OnnxModel

            full = onnx_stream.take_apart(self.full, room / "fp32.data", keep_bytes=self._keep_bytes)
            model = infer_shapes(full)
            left_out = _leave_out_weights(model)
            blocked = sorted(self.kept | others)
            wrapped = OnnxModel(
                convert_float_to_float16(model, keep_io_types=True, node_block_list=blocked, disable_shape_infer=True)
            )
            wrapped.topological_sort(is_deterministic=True)
            _put_in_weights(wrapped.model, left_out, room)
            edit.declare_as(wrapped.model, full)
        onnx_file.finish(wrapped.model, room, target)
        shutil.rmtree(room)

    def record(self) -> dict[str, Any]:
        """The reduction as the manifest records it."""
        return {"method": METHOD, "kept_float": sorted(self.kept)}


def _leave_out_weights(model: Any) -> dict[str, Any]:
    """Make every external tensor an empty one, which the converter takes for its type alone; returns the tensors."""
    import onnx

    left_out = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != tensor.EXTERNAL:
            continue
        left_out[tensor.name] = onnx.TensorProto()
        left_out[tensor.name].CopyFrom(tensor)
        tensor.ClearField("data_location")
        tensor.ClearField("dims")
        del tensor.external_data[:]
        tensor.dims.append(0)
    return left_out


def _put_in_weights(model: Any, left_out: Mapping[str, Any], room: Path) -> None:
    """Give the tensors their shapes back, and their bytes as halves where the converter made them halves."""
    graph = model.graph
    with (room / "fp16.data").open("wb") as file:
        for tensor in graph.initializer:
            if tensor.name not in left_out:
                continue
            before, kind = left_out[tensor.name], tensor.data_type
            tensor.CopyFrom(before)
            if kind != before.data_type:
                tensor.data_type = kind
                begin = file.tell()
                _append_halves(before, room, file)
                onnx_stream.refer(tensor, "fp16.data", begin, file.tell() - begin)
    shapes = {name: tensor.dims for name, tensor in left_out.items()}
    values = {value.name: value for value in graph.value_info}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in shapes and node.output[0] in values:
            _set_dims(values[node.output[0]], shapes[node.input[0]])
    for name in shapes.keys() & values.keys():
        _set_dims(values[name], shapes[name])


def _append_halves(tensor: Any, room: Path, file: BinaryIO) -> None:
    """Convert a tensor's bytes, CHUNK bytes at a time."""
    from onnxruntime.transformers.float16 import convert_np_to_float16

    place = {entry.key: entry.value for entry in tensor.external_data}
    left = int(place["length"])
    with (room / place["location"]).open("rb") as source:
        source.seek(int(place["offset"]))
        while left:
            chunk = source.read(min(CHUNK, left))
            left -= len(chunk)
            file.write(convert_np_to_float16(np.frombuffer(chunk, np.float32)).tobytes())


def _set_dims(value: Any, dims: Sequence[int]) -> None:
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for size in dims:
        shape.dim.add(dim_value=size)
