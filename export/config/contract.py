"""The contract: config.pbtxt says what a model takes and gives, and the ONNX graph must do just that."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from export.config import given
from export.config.config import Config
from export.errors import ContractError
from export.graph.signature import Signature, TensorSpec

ONNX_FILE = "model.onnx"


def serves_onnx(message: Any) -> bool:
    """Whether this configuration loads the ONNX file (and not, say, a TensorRT engine)."""
    return str(message.backend) == "onnxruntime" or str(message.platform) == "onnxruntime_onnx"


def mismatches(config: Config, signature: Signature, artefact: str = ONNX_FILE) -> Iterator[ContractError]:
    """Every breach of the contract between a configuration and the graph in `artefact`, by its field."""
    message = config.message
    if message.backend == "python":
        return  # its inputs and outputs are its code's, which runs the graph
    if serves_onnx(message) and (message.default_model_filename or ONNX_FILE) != artefact:
        yield _breach(
            "default_model_filename",
            f"default_model_filename is '{message.default_model_filename}', the artefact is '{artefact}'",
            f'write default_model_filename: "{artefact}"',
            found=message.default_model_filename,
            expected=artefact,
        )
    yield from _missing_inputs(message, signature)
    yield from _given(message, signature)
    scattered = {name for entry in message.batch_output for name in entry.target_name}
    for index, tensor in enumerate(message.input):
        if spec := (yield from _named("input", index, tensor, signature)):
            yield from (
                _ragged(index, tensor, spec)
                if tensor.allow_ragged_batch
                else _tensor(config, "input", f"input[{index}]", tensor, spec)
            )
    for index, tensor in enumerate(message.output):
        spec = yield from _named("output", index, tensor, signature)
        if spec and tensor.name not in scattered:
            yield from _tensor(config, "output", f"output[{index}]", tensor, spec)


def check(config: Config, signature: Signature, artefact: str = ONNX_FILE) -> None:
    """Raise ContractError with the first breach, naming the file, the tensor, both values and the remedy."""
    for breach in mismatches(config, signature, artefact):
        line = config.places.line(breach.field or "")
        where = f"{config.label}:{line}" if line else config.label
        about = {**breach.about, "file": config.label, "line": line}
        raise ContractError(f"{where}: {breach.what}", remedy=breach.remedy, **about)


def _breach(field: str, what: str, remedy: str, **about: Any) -> ContractError:
    return ContractError(what, remedy=remedy, field=field, **about)


def _missing_inputs(message: Any, signature: Signature) -> Iterator[ContractError]:
    written = {tensor.name for tensor in message.input} | {entry.name for entry in given.inputs(message)}
    for spec in signature.inputs:
        if spec.name not in written:
            yield _breach(
                "input",
                f"the graph needs input '{spec.name}' ({spec.data_type} {list(spec.dims)}), which is not in the file",
                f"add input '{spec.name}'",
                tensor=spec.name,
                expected=spec,
            )


def _given(message: Any, signature: Signature) -> Iterator[ContractError]:
    """Batch inputs, controls and states: tensors of the graph, of its types, and no inputs of requests as well."""
    requested = {tensor.name for tensor in message.input}
    for entries, specs in (
        (given.inputs(message), signature.inputs),
        (given.outputs(message), signature.outputs),
    ):
        types = {spec.name: spec.data_type for spec in specs}
        for entry in entries:
            title = f"{entry.kind} '{entry.name}'"
            if specs is signature.inputs and entry.name in requested:
                yield _breach(
                    entry.field,
                    f"{title} is in `input`, too: Triton would give it twice",
                    f"remove input '{entry.name}'",
                    tensor=entry.name,
                )
            elif entry.name not in types:
                yield _breach(
                    entry.field,
                    f"{title} is not in the graph, which has {_names(specs)}",
                    f"name one of them, or export a graph that has '{entry.name}'",
                    tensor=entry.name,
                    expected=_names(specs),
                )
            elif entry.data_type != types[entry.name]:
                yield _breach(
                    entry.field.rpartition(".")[0],
                    f"{title} is {entry.data_type}, the graph's is {types[entry.name]}",
                    f"give it as {types[entry.name]}",
                    tensor=entry.name,
                    found=entry.data_type,
                    expected=types[entry.name],
                )


def _named(
    kind: str, index: int, tensor: Any, signature: Signature
) -> Generator[ContractError, None, TensorSpec | None]:
    """The graph's tensor of that name; a breach where it has none, or has a value of its own that makes it optional."""
    specs = signature.outputs if kind == "output" else signature.optional if tensor.optional else signature.inputs
    for spec in specs:
        if spec.name == tensor.name:
            return spec
    field, name = f"{kind}[{index}]", tensor.name
    if kind == "input" and name in _names((*signature.inputs, *signature.optional)):
        has = "no value" if tensor.optional else "a value"
        yield _breach(
            f"{field}.optional" if tensor.optional else field,
            f"the graph has {has} of its own for input '{name}'",
            "remove optional" if tensor.optional else "write optional: true",
            tensor=name,
            found=tensor.optional,
            expected=not tensor.optional,
        )
        return None
    yield _breach(
        f"{field}.name",
        f"{kind} '{name}' is not in the graph, whose {kind}s are {_names(specs)}",
        f"name one of the graph's {kind}s, or export a graph that has '{name}'",
        tensor=name,
        expected=_names(specs),
    )
    return None


def _ragged(index: int, tensor: Any, spec: TensorSpec) -> Iterator[ContractError]:
    """Triton lays the rows of ragged requests end to end, which a graph takes as [-1] only."""
    if spec.dims != (-1,):
        yield _breach(
            f"input[{index}].allow_ragged_batch",
            f"input '{tensor.name}' is ragged, but the graph takes {list(spec.dims)} and not [-1]",
            "export a graph that takes all elements in one row, or remove allow_ragged_batch",
            tensor=tensor.name,
            found=list(spec.dims),
            expected=[-1],
        )


def _tensor(config: Config, kind: str, field: str, tensor: Any, spec: TensorSpec) -> Iterator[ContractError]:
    from tritonclient.grpc import model_config_pb2

    data_type = model_config_pb2.DataType.Name(tensor.data_type)
    if data_type != spec.data_type:
        yield _breach(
            f"{field}.data_type",
            f"{kind} '{spec.name}' has data_type {data_type}, the graph's is {spec.data_type}",
            f"write data_type: {spec.data_type}",
            tensor=spec.name,
            found=data_type,
            expected=spec.data_type,
        )
    batched = config.message.max_batch_size > 0
    if batched and kind == "input" and tensor.optional:
        yield _breach(
            f"{field}.optional",
            f"input '{spec.name}' is optional, which a model with a batch axis cannot have",
            "write max_batch_size: 0, or remove the input",
            tensor=spec.name,
            found=True,
            expected=False,
        )
        return
    reshaped = tensor.HasField("reshape")
    written = tuple(tensor.reshape.shape if reshaped else tensor.dims)
    if not spec.dims and set(written) <= {1}:
        return  # a scalar, or a graph that leaves even the rank open
    if batched and spec.dims[:1] != (-1,):
        first = spec.dims[0] if spec.dims else "missing"
        yield _breach(
            "max_batch_size",
            f"max_batch_size is {config.message.max_batch_size}, but the first axis of {kind} '{spec.name}' is {first} "
            "in the graph, not dynamic",
            "write max_batch_size: 0 with the whole shape in dims, or export with a dynamic first axis",
            tensor=spec.name,
            found=config.message.max_batch_size,
            expected=0,
        )
        return
    wanted = spec.dims[1:] if batched else spec.dims
    dims_field = f"{field}.reshape.shape" if reshaped else f"{field}.dims"
    if batched and len(written) == len(spec.dims) and fits(written[1:], wanted):
        yield _breach(
            dims_field,
            f"{kind} '{spec.name}' has dims {list(written)}, which counts the batch twice: max_batch_size is "
            f"{config.message.max_batch_size} and already stands for the graph's first axis",
            f"write dims: {list(wanted)}",
            tensor=spec.name,
            found=list(written),
            expected=list(wanted),
        )
    elif not (written == wanted if kind == "output" else fits(written, wanted)):
        yield _breach(
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
