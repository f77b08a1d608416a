"""INT8 of the weights alone: blocks of 32 with a scale each, read by com.microsoft's MatMulNBits.

A language model's step reads every weight for a handful of tokens, so that its time is that of reading them.
Activations stay in FP32 in the graph. ONNX Runtime's kernel rounds them to 8 bits a block, by itself and for each row
alone: there is nothing to calibrate, and a row's answer does not depend on its neighbours'.
A table that embeddings are looked up in, too, is the same tensor: its rows are multiplied out as they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from export.errors import ExportError
from export.graph import onnx_file, onnx_stream
from export.precision.precision import kept_float
from export.recipe.limits import Reduced
from export.recipe.recipe import Array

METHOD = "weights of products in blocks, com.microsoft MatMulNBits"
DOMAIN = "com.microsoft"
BLOCK = 32
ACTIVATIONS_INT8 = 4
"""MatMulNBits' accuracy_level: products of 8-bit integers, summed up in 32 bits."""

ROWS = 4096
"""Of a weight that are converted at a time."""


class WeightsOnly:
    """One FP32 graph and its products whose weights are reduced. Raises ExportError when it has none."""

    def __init__(
        self,
        full: Path,
        rule: Reduced,
        excluded: Sequence[str],
        room: Path,
        *,
        keep_bytes: int = onnx_stream.LARGE,
    ) -> None:
        self._room = room
        self._graph = onnx_stream.take_apart(full, room / "fp32.data", keep_bytes=keep_bytes)
        self._tensors = {tensor.name: tensor for tensor in self._graph.graph.initializer}
        self.kept = kept_float(self._graph, rule.keep_float, excluded)
        self.candidates = {
            node.name: str(node.op_type)
            for node in self._graph.graph.node
            if node.name not in self.kept and self._is_product(node)
        }
        """The nodes to reduce, with their operator types."""
        if not self.candidates:
            raise ExportError(
                "nothing in the graph can be reduced: it has no product with large weights",
                field="precision",
                found="int8",
            )

    def write(self, target: Path) -> None:
        """Write the graph with the weights of its candidates reduced."""
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self._graph)
        if all(each.domain != DOMAIN for each in model.opset_import):
            model.opset_import.add(domain=DOMAIN, version=1)
        graph = model.graph
        made: dict[str, list[str]] = {}
        with (self._room / "reduced.data").open("wb") as file:
            for node in graph.node:
                if node.name in self.candidates:
                    name, by_columns = node.input[1], node.op_type == "MatMul"
                    if name not in made:
                        tensors = self._reduced(name, by_columns, file)
                        graph.initializer.extend(tensors)
                        made[name] = [tensor.name for tensor in tensors]
                    _multiply_blocks(node, made[name], self._tensors[name], by_columns)
        nodes = [new for node in graph.node for new in (_look_up(node, made) if _reads_table(node, made) else [node])]
        del graph.node[:]
        graph.node.extend(nodes)
        kept = [tensor for tensor in graph.initializer if tensor.name not in made]
        del graph.initializer[:]
        graph.initializer.extend([*kept, *_constants()])
        onnx_file.finish(model, self._room, target)
        (self._room / "reduced.data").unlink()

    def record(self) -> dict[str, Any]:
        """The reduction as the manifest records it."""
        types = list(self.candidates.values())
        return {
            "method": METHOD,
            "weights": f"uint8, a scale and a zero point for {BLOCK}",
            "activations": "fp32, rounded to int8 by the kernel",
            "quantised": {kind: types.count(kind) for kind in sorted(set(types))},
            "kept_float": sorted(self.kept),
        }

    def _is_product(self, node: Any) -> bool:
        """Whether its second input is a large FP32 matrix whose inner axis is whole blocks."""
        if node.op_type not in ("MatMul", "Gemm") or len(node.input) != 2 or node.input[1] not in self._tensors:
            return False
        tensor = self._tensors[node.input[1]]
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        if len(tensor.dims) != 2 or tensor.data_type != tensor.FLOAT or tensor.data_location != tensor.EXTERNAL:
            return False
        return bool(transposed == (node.op_type == "Gemm") and tensor.dims[1 if transposed else 0] % BLOCK == 0)

    def _reduced(self, name: str, by_columns: bool, file: BinaryIO) -> list[Any]:
        """The weight's blocks, UINT8 [outputs, blocks, 32], with scales, FP32, and zero points, UINT8, one a block."""
        parts = [_blocks(rows) for rows in self._rows(self._tensors[name], by_columns)]
        kinds = zip(("blocks", "scales", "zero_points"), zip(*parts, strict=True), strict=True)
        return [_written(f"{name}.{kind}", np.concatenate(arrays), file) for kind, arrays in kinds]

    def _rows(self, tensor: Any, by_columns: bool) -> Iterator[Array]:
        """The weight, FP32 [outputs, inputs], a part of its outputs at a time."""
        place = {entry.key: entry.value for entry in tensor.external_data}
        path, size = self._room / place["location"], tuple(tensor.dims)
        matrix = np.memmap(path, np.float32, "r", offset=int(place["offset"]), shape=size)
        whole = matrix.T if by_columns else matrix
        for start in range(0, len(whole), ROWS):
            yield np.ascontiguousarray(whole[start : start + ROWS])


def _blocks(rows: Array) -> tuple[Array, Array, Array]:
    """Rows as blocks over their range, which holds 0, with scales and zero points."""
    blocks = rows.reshape(len(rows), -1, BLOCK)
    lowest, highest = np.minimum(blocks.min(axis=-1), 0), np.maximum(blocks.max(axis=-1), 0)
    scales = (highest - lowest) / np.float32(255)
    scales = np.where(scales == 0, np.float32(1), scales)
    zero_points = np.rint(-lowest / scales)
    levels = np.clip(np.rint(blocks / scales[..., None]) + zero_points[..., None], 0, 255)
    return levels.astype(np.uint8), scales, zero_points.astype(np.uint8)


def _written(name: str, values: Array, file: BinaryIO) -> Any:
    from onnx import TensorProto, helper

    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    tensor = TensorProto(name=name, data_type=kind, dims=values.shape)
    onnx_stream.refer(tensor, Path(file.name).name, file.tell(), values.nbytes)
    values.tofile(file)
    return tensor


def _multiply_blocks(node: Any, tensors: Sequence[str], weight: Any, by_columns: bool) -> None:
    """Make the node the product with the blocks."""
    from onnx import helper

    inner, outer = weight.dims if by_columns else reversed(weight.dims)
    product = helper.make_node(
        "MatMulNBits",
        [node.input[0], *tensors],
        list(node.output),
        name=node.name,
        domain=DOMAIN,
        K=inner,
        N=outer,
        bits=8,
        block_size=BLOCK,
        accuracy_level=ACTIVATIONS_INT8,
    )
    node.CopyFrom(product)


def _reads_table(node: Any, made: dict[str, list[str]]) -> bool:
    return node.op_type == "Gather" and node.input[0] in made


def _look_up(node: Any, made: dict[str, list[str]]) -> list[Any]:
    """Nodes that look rows up in the table's blocks, and multiply them out."""
    from onnx import helper

    (blocks, scales, zero_points), name = made[node.input[0]], node.name
    steps = [
        ("Gather", [blocks, node.input[1]], "levels"),
        ("Cast", [f"{name}.levels"], "numbers"),
        ("Gather", [zero_points, node.input[1]], "zeros"),
        ("Cast", [f"{name}.zeros"], "zero_numbers"),
        ("Unsqueeze", [f"{name}.zero_numbers", "block_axis"], "zeros_of_blocks"),
        ("Sub", [f"{name}.numbers", f"{name}.zeros_of_blocks"], "centred"),
        ("Gather", [scales, node.input[1]], "scales"),
        ("Unsqueeze", [f"{name}.scales", "block_axis"], "scales_of_blocks"),
        ("Mul", [f"{name}.centred", f"{name}.scales_of_blocks"], "multiplied"),
        ("Reshape", [f"{name}.multiplied", "row_of_blocks"], ""),
    ]
    attributes = {"Cast": {"to": 1}}
    return [
        helper.make_node(
            kind,
            inputs,
            [f"{name}.{output}"] if output else list(node.output),
            name=f"{name}.{output}" if output else name,
            **attributes.get(kind, {}),
        )
        for kind, inputs, output in steps
    ]


def _constants() -> list[Any]:
    from onnx import numpy_helper

    return [
        numpy_helper.from_array(np.array([-1], np.int64), "block_axis"),
        numpy_helper.from_array(np.array([0, 0, -1], np.int64), "row_of_blocks"),
    ]
