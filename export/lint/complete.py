"""A configuration as Triton completes it from the ONNX graph: tensors, batch size."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from export import files
from export.config import contract
from export.config.given import inputs as triton_gives
from export.errors import ContractError
from export.graph import external_data, onnx_stream, signature
from export.graph.signature import Signature, TensorSpec
from export.lint.finding import Subject

DEFAULT_MAX_BATCH_SIZE = 4
"""What the ONNX Runtime backend fills in for a graph whose first axes are all open."""


def graph_file(subject: Subject, version: Path) -> Path | None:
    """The ONNX file of a version, which may lie in a folder of the model file's name; None where there is none."""
    if subject.backend != "onnxruntime":
        return None
    (path,) = subject.model_files(version)
    path = path / contract.ONNX_FILE if path.is_dir() else path
    return None if files.problem(subject.folder, path) else path


def graph_of(path: Path) -> Signature:
    """The signature of an ONNX file, read once for all configurations.

    Raises ContractError, also where the files beside it that hold its tensors are missing.
    """
    return _graph_of(path, path.stat().st_mtime_ns)


@cache
def _graph_of(path: Path, modified_ns: int) -> Signature:
    del modified_ns  # makes a changed file another one
    found = signature.from_onnx(path)[0]
    if not found.outputs:
        raise ContractError(f"{path.name} holds no graph: put the model's file there, whole", file=path)
    external_data.check(onnx_stream.read_without_weights(path), path)
    return found


def completed(subject: Subject) -> Any:
    """The configuration that Triton serves the latest version by: a copy where the graph adds to it.

    Triton fills in the inputs where none is written, the outputs likewise, and a max_batch_size of 0.
    """
    message = subject.message
    path = graph_file(subject, subject.versions[-1]) if subject.versions else None
    if path is None or (message.input and message.output):
        return message
    try:
        graph = graph_of(path)
    except ContractError:  # the rules about the graph say so
        return message
    filled = type(message)()
    filled.CopyFrom(message)
    given = {entry.name for entry in triton_gives(message)}
    inputs = [spec for spec in graph.inputs if spec.name not in given]
    if all(spec.dims[:1] == (-1,) for spec in (*inputs, *graph.outputs)):
        filled.max_batch_size = filled.max_batch_size or DEFAULT_MAX_BATCH_SIZE
    if not message.input and not message.batch_input:
        _fill(filled, "input", inputs)
    if not message.output:
        _fill(filled, "output", graph.outputs)
    return filled


def _fill(message: Any, kind: str, specs: tuple[TensorSpec, ...] | list[TensorSpec]) -> None:
    from tritonclient.grpc import model_config_pb2

    batched = message.max_batch_size > 0
    for spec in specs:
        own = spec.dims[1:] if batched else spec.dims
        tensor = getattr(message, kind).add(
            name=spec.name, data_type=model_config_pb2.DataType.Value(spec.data_type), dims=own or (1,)
        )
        if batched and not own:
            tensor.reshape.SetInParent()
