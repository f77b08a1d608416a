"""A model's inputs and outputs: names, Triton data types and full shapes, read from the ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.errors import ContractError, FileError

TRITON_TYPES = {
    "FLOAT": "TYPE_FP32",
    "DOUBLE": "TYPE_FP64",
    "FLOAT16": "TYPE_FP16",
    "BFLOAT16": "TYPE_BF16",
    "UINT8": "TYPE_UINT8",
    "UINT16": "TYPE_UINT16",
    "UINT32": "TYPE_UINT32",
    "UINT64": "TYPE_UINT64",
    "INT8": "TYPE_INT8",
    "INT16": "TYPE_INT16",
    "INT32": "TYPE_INT32",
    "INT64": "TYPE_INT64",
    "BOOL": "TYPE_BOOL",
    "STRING": "TYPE_STRING",
}


@dataclass(frozen=True)
class TensorSpec:
    """One tensor: `dims` is the whole shape, batch axis included, -1 where the graph leaves it open."""

    name: str
    data_type: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """What a graph takes and gives; it has values of its own for `optional` inputs."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    optional: tuple[TensorSpec, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for the manifest, without the optional inputs."""
        return {kind: specs for kind, specs in asdict(self).items() if kind != "optional"}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Signature:
        """The inverse of `to_json`."""

        def specs(rows: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
            return tuple(
                TensorSpec(str(row["name"]), str(row["data_type"]), tuple(int(size) for size in row["dims"]))
                for row in rows
            )

        return Signature(specs(record["inputs"]), specs(record["outputs"]))


def from_onnx(path: Path) -> tuple[Signature, dict[str, int]]:
    """The graph's signature, and its versions: {"opset", "ir_version"} with one more key per further operator domain.

    Raises ContractError for a tensor that Triton has no type for.
    """
    from export.graph import onnx_stream

    try:
        model = onnx_stream.read_without_weights(path)
    except (FileError, OSError, ValueError) as error:
        raise ContractError(
            f"{path} is not an ONNX file ({type(error).__name__})", remedy="export it again", file=path
        ) from error
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [spec(value) for value in model.graph.input if value.name not in initializers]
    optional = [spec(value) for value in model.graph.input if value.name in initializers]
    signature = Signature(tuple(inputs), tuple(map(spec, model.graph.output)), tuple(optional))
    return signature, versions(model)


def versions(model: Any) -> dict[str, int]:
    """The versions of a model: see `from_onnx`."""
    found = {"ir_version": int(model.ir_version)}
    for opset in model.opset_import:
        found[f"opset.{opset.domain}" if opset.domain else "opset"] = int(opset.version)
    return found


def type_name(number: int) -> str:
    """ONNX's name of an element type; of a number that is none, the number."""
    from onnx import TensorProto

    known = TensorProto.DataType
    return str(known.Name(number)) if number in known.values() else f"number {number}"


def spec(value: Any) -> TensorSpec:
    """One input or output of a graph. Raises ContractError for what Triton has no tensor for."""
    kind = str(value.type.WhichOneof("value")).removesuffix("_type").replace("_", " ")
    if kind != "tensor":
        raise ContractError(
            f"'{value.name}' is not a tensor but of the kind '{kind}', which Triton cannot serve",
            remedy="let the graph take and give tensors (`fathom add` cuts ZipMap off)",
            tensor=value.name,
            found=kind,
        )
    tensor = value.type.tensor_type
    name = type_name(tensor.elem_type)
    if name not in TRITON_TYPES:
        raise ContractError(
            f"'{value.name}' has ONNX type {name}, which Triton has no type for",
            remedy="cast it in the graph",
            tensor=value.name,
            found=name,
        )
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    return TensorSpec(value.name, TRITON_TYPES[name], dims)
