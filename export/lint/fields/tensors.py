"""Lint rules for the tensors of a configuration: names, types, dims, reshapes, and what Triton makes of batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod
from typing import Any

from export.lint.finding import Findings, Subject, rule

MOST_AXES = 64
"""Of an array of numpy's, in which clients and python models have every tensor."""

BATCH_INPUT_TYPES = ("TYPE_INT32", "TYPE_FP32")
TENSORRT_ONLY = {"is_shape_tensor": "a shape tensor", "is_non_linear_format_io": "in a non-linear format"}


def check(subject: Subject) -> Findings:
    """All rules of this file."""
    for field, title, tensor in _each(subject):
        if max(len(tensor.dims), len(tensor.reshape.shape)) > MOST_AXES:
            yield from _axes(subject, field, title)
            continue
        yield from _tensor_name(subject, field, title, tensor)
        yield from _data_type(subject, field, title, tensor)
        yield from _dims(subject, field, title, tensor)
        yield from _reshape(subject, field, title, tensor)
        yield from _format(subject, field, title, tensor)
        yield from _tensorrt_only(subject, field, title, tensor)
    yield from _twice(subject)
    yield from _batch_input(subject)
    yield from _batch_output(subject)
    yield from _batch_twice(subject)


def _each(subject: Subject) -> Iterator[tuple[str, str, Any]]:
    """The field, a title for messages, and the tensor itself, of each input and output."""
    for kind, tensors in (("input", subject.message.input), ("output", subject.message.output)):
        for index, tensor in enumerate(tensors):
            yield f"{kind}[{index}]", f"{kind} '{tensor.name}'" if tensor.name else f"{kind} {index}", tensor


@rule
def _tensor_name(subject: Subject, field: str, title: str, tensor: Any) -> Findings:
    if not tensor.name:
        yield subject.error(field, f"{title} has no name", "name it as the model does")


@rule
def _twice(subject: Subject) -> Findings:
    seen: set[tuple[str, str]] = set()
    for field, title, tensor in _each(subject):
        key = (field.partition("[")[0], tensor.name)
        if tensor.name and key in seen:
            yield subject.error(f"{field}.name", f"{title} is written twice", "remove one")
        seen.add(key)


@rule
def _data_type(subject: Subject, field: str, title: str, tensor: Any) -> Findings:
    if tensor.data_type == 0:
        yield subject.error(field, f"{title} has no data_type", "write data_type: TYPE_FP32, say")


@rule
def _axes(subject: Subject, field: str, title: str) -> Findings:
    message = f"{title} has more than {MOST_AXES} axes"
    yield subject.error(f"{field}.dims", message, "merge axes: no client has arrays of so many")


@rule
def _dims(subject: Subject, field: str, title: str, tensor: Any) -> Findings:
    if not tensor.dims:
        yield subject.error(field, f"{title} has no dims", "write its shape without the batch axis, -1 where it varies")
    for axis, size in enumerate(tensor.dims):
        if size == 0 or size < -1:
            yield subject.error(
                f"{field}.dims[{axis}]",
                f"{title} has dims {list(tensor.dims)}: {size} is not a size",
                "write a size or -1",
            )


@rule
def _reshape(subject: Subject, field: str, title: str, tensor: Any) -> Findings:
    if not tensor.HasField("reshape"):
        return
    shape = list(tensor.reshape.shape)
    if not shape and subject.message.max_batch_size == 0:
        yield subject.error(
            f"{field}.reshape", f"{title} is reshaped to nothing", "an empty shape needs a model that batches"
        )
    elif any(size == 0 or size < -1 for size in shape):
        yield subject.error(f"{field}.reshape.shape", f"{title} is reshaped to {shape}", "write sizes or -1")
    elif _elements(tensor.dims) != _elements(shape):
        yield subject.error(
            f"{field}.reshape.shape",
            f"{title} has dims {list(tensor.dims)}, reshaped to {shape}: the elements between open sizes differ",
            "reshape to a shape of as many elements",
        )


def _elements(dims: Sequence[int]) -> list[int]:
    """The numbers of elements before, between and after the open sizes."""
    opened = [-1, *(axis for axis, size in enumerate(dims) if size == -1), len(dims)]
    return [prod(dims[start + 1 : end]) for start, end in pairwise(opened)]


@rule
def _format(subject: Subject, field: str, title: str, tensor: Any) -> Findings:
    # FORMAT_NONE is 0; outputs have no format at all.
    if getattr(tensor, "format", 0) and len(tensor.dims) != 3:
        yield subject.error(
            f"{field}.format", f"{title} has an image format and dims {list(tensor.dims)}", "a format needs three dims"
        )


@rule
def _tensorrt_only(subject: Subject, field: str, title: str, tensor: Any) -> Findings:
    for name, what in TENSORRT_ONLY.items():
        if getattr(tensor, name) and subject.backend != "tensorrt":
            yield subject.error(
                f"{field}.{name}", f"{title} is {what}, but the backend is '{subject.backend}'", f"remove {name}"
            )


@rule
def _batch_input(subject: Subject) -> Findings:
    from tritonclient.grpc import model_config_pb2

    for index, entry in enumerate(subject.message.batch_input):
        data_type = model_config_pb2.DataType.Name(entry.data_type)
        if data_type not in BATCH_INPUT_TYPES:
            yield subject.error(
                f"batch_input[{index}].data_type",
                f"a batch input has data_type {data_type}",
                f"write one of {', '.join(BATCH_INPUT_TYPES)}",
            )
        yield from _source(subject, f"batch_input[{index}]", entry)


@rule
def _batch_output(subject: Subject) -> Findings:
    outputs = {tensor.name for tensor in subject.message.output}
    for index, entry in enumerate(subject.message.batch_output):
        targets = list(entry.target_name)
        for name in dict.fromkeys(targets):
            if name not in outputs or targets.count(name) > 1:
                has = "is not an output" if name not in outputs else "is named twice"
                yield subject.error(
                    f"batch_output[{index}].target_name", f"the target '{name}' {has}", "name each output once"
                )
        yield from _source(subject, f"batch_output[{index}]", entry)


def _source(subject: Subject, field: str, entry: Any) -> Findings:
    inputs = {tensor.name for tensor in subject.message.input}
    if len(entry.source_input) != 1:
        yield subject.error(
            f"{field}.source_input", f"there are {len(entry.source_input)} source inputs", "name exactly one"
        )
    elif entry.source_input[0] not in inputs:
        yield subject.error(
            f"{field}.source_input", f"the source '{entry.source_input[0]}' is not an input", "name an input"
        )


@rule
def _batch_twice(subject: Subject) -> Findings:
    """Without a graph to compare with, dims that all begin with an open axis are most likely [batch, ...]."""
    message = subject.message
    if message.max_batch_size == 0 or subject.is_ensemble or subject.backend == "python":
        return
    if any(path.exists() for version in subject.versions for path in subject.model_files(version)):
        return
    tensors = [(field, tensor) for field, _, tensor in _each(subject)]
    if tensors and all(len(tensor.dims) >= 2 and tensor.dims[0] == -1 for _, tensor in tensors):
        field, tensor = tensors[0]
        yield subject.warning(
            f"{field}.dims[0]",
            f"all dims begin with -1, as {list(tensor.dims)} of '{tensor.name}': the batch is perhaps counted twice",
            f"leave the batch axis out of dims, max_batch_size: {message.max_batch_size} stands for it",
        )
