"""The contract: config.pbtxt says what a model takes and gives, and the ONNX graph must do just that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from export.config.config import Config
from export.errors import ContractError
from export.graph.signature import Signature, TensorSpec

ONNX_FILE = "model.onnx"


@dataclass(frozen=True)
class Mismatch:
    """One breach: the field of the config file, what is wrong with both values, and what to do."""

    field: str
    message: str
    remedy: str
    tensor: str | None = None
    found: Any = None
    expected: Any = None


def serves_onnx(message: Any) -> bool:
    """Whether this configuration loads the ONNX file (and not, say, a TensorRT engine)."""
    return str(message.backend) == "onnxruntime" or str(message.platform) == "onnxruntime_onnx"


def mismatches(config: Config, signature: Signature, artefact: str = ONNX_FILE) -> Iterator[Mismatch]:
    """Every breach of the contract between a configuration and the graph in `artefact`."""
    message = config.message
    if serves_onnx(message) and (message.default_model_filename or ONNX_FILE) != artefact:
        yield Mismatch(
            "default_model_filename",
            f"default_model_filename is '{message.default_model_filename}', the artefact is '{artefact}'",
            f'write default_model_filename: "{artefact}"',
            found=message.default_model_filename,
            expected=artefact,
        )
    yield from _missing_inputs(message, signature)
    for kind, tensors, specs in (
        ("input", message.input, signature.inputs),
        ("output", message.output, signature.outputs),
    ):
        by_name = {spec.name: spec for spec in specs}
        for index, tensor in enumerate(tensors):
            field = f"{kind}[{index}]"
            spec = by_name.get(tensor.name)
            if spec is None:
                yield Mismatch(
                    f"{field}.name",
                    f"{kind} '{tensor.name}' is not in the graph, whose {kind}s are {_names(specs)}",
                    f"name one of the graph's {kind}s, or export a graph that has '{tensor.name}'",
                    tensor=tensor.name,
                    expected=_names(specs),
                )
                continue
            yield from _tensor(config, kind, field, tensor, spec)


def check(config: Config, signature: Signature, artefact: str = ONNX_FILE) -> None:
    """Raise ContractError with the first breach, naming the file, the tensor, both values and the remedy."""
    for breach in mismatches(config, signature, artefact):
        line = config.places.line(breach.field)
        where = f"{config.label}:{line}" if line else config.label
        raise ContractError(
            f"{where}: {breach.message}",
            remedy=breach.remedy,
            file=config.label,
            line=line,
            field=breach.field,
            tensor=breach.tensor,
            found=breach.found,
            expected=breach.expected,
        )


def _missing_inputs(message: Any, signature: Signature) -> Iterator[Mismatch]:
    written = {tensor.name for tensor in message.input}
    for spec in signature.inputs:
        if spec.name not in written:
            yield Mismatch(
                "input",
                f"the graph needs input '{spec.name}' ({spec.data_type} {list(spec.dims)}), which is not in the file",
                f"add input '{spec.name}'",
                tensor=spec.name,
                expected=spec,
            )


def _tensor(config: Config, kind: str, field: str, tensor: Any, spec: TensorSpec) -> Iterator[Mismatch]:
    from tritonclient.grpc import model_config_pb2

    data_type = model_config_pb2.DataType.Name(tensor.data_type)
    if data_type != spec.data_type:
        yield Mismatch(
            f"{field}.data_type",
            f"{kind} '{spec.name}' has data_type {data_type}, the graph's is {spec.data_type}",
            f"write data_type: {spec.data_type}",
            tensor=spec.name,
            found=data_type,
            expected=spec.data_type,
        )
    batched = config.message.max_batch_size > 0
    if batched and (not spec.dims or spec.dims[0] != -1):
        first = spec.dims[0] if spec.dims else "missing"
        yield Mismatch(
            "max_batch_size",
            f"max_batch_size is {config.message.max_batch_size}, but the first axis of {kind} '{spec.name}' is {first} "
            "in the graph, not dynamic",
            "write max_batch_size: 0 with the whole shape in dims, or export with a dynamic first axis",
            tensor=spec.name,
            found=config.message.max_batch_size,
            expected=0,
        )
        return
    reshaped = tensor.HasField("reshape")
    written = tuple(tensor.reshape.shape if reshaped else tensor.dims)
    wanted = spec.dims[1:] if batched else spec.dims
    dims_field = f"{field}.reshape.shape" if reshaped else f"{field}.dims"
    if batched and len(written) == len(spec.dims) and fits(written[1:], wanted):
        yield Mismatch(
            dims_field,
            f"{kind} '{spec.name}' has dims {list(written)}, which counts the batch twice: max_batch_size is "
            f"{config.message.max_batch_size} and already stands for the graph's first axis",
            f"write dims: {list(wanted)}",
            tensor=spec.name,
            found=list(written),
            expected=list(wanted),
        )
    elif not fits(written, wanted):
        yield Mismatch(
            dims_field,
            f"{kind} '{spec.name}' has dims {list(written)}, the graph's are {list(wanted)}"
            + (" without the batch axis" if batched else ""),
            f"write dims: {list(wanted)}, or export a graph of that shape",
            tensor=spec.name,
            found=list(written),
            expected=list(wanted),
        )


def fits(written: Sequence[int], graph: Sequence[int]) -> bool:
    """Whether a configuration's dims can be served by the graph's: equal, or any where the graph's is open (-1)."""
    return len(written) == len(graph) and all(have in (-1, want) for want, have in zip(written, graph, strict=True))


def _names(specs: Sequence[TensorSpec]) -> list[str]:
    return [spec.name for spec in specs]
