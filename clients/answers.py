"""Response bytes to named numpy arrays, without I/O: outputs are views into the response's own bytes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from clients.datatypes import NUMPY_TYPE, Array
from clients.errors import ServerError
from clients.requests import Placement
from clients.spec import ModelSpec

_ID_FIELD, _RAW_OUTPUT_FIELD = 3, 6  # of ModelInferResponse
_LENGTH_DELIMITED = 2
_LAYOUTS_KEPT = 64
_Tensor = tuple[str, str, tuple[int, ...]]  # name, datatype, shape


class Classification(NamedTuple):
    """One label of a classification answer; `label` is "" where the server has no label file."""

    label: str
    value: float
    class_index: int


def decode(spec: ModelSpec, response: bytes, placed: Placement | None = None) -> dict[str, Array]:
    """Named arrays from a serialised ModelInferResponse; numeric ones are read-only views into `response`.

    Outputs that are `placed` are read from there. Raises ServerError for an answer that makes no sense.
    """
    layout = spec.answers.get(len(response)) if placed is None else None
    if layout is not None:
        between, tensors_at = layout
        for at, known in between:
            if not response.startswith(known, at):
                break
        else:
            return {name: np.ndarray(shape, dtype, response, at) for name, dtype, shape, at in tensors_at}
    outputs: dict[str, Array] = {}
    try:
        head, raw = _split_response(response)
        tensors = _parse_head(head)
        for index, (name, datatype, shape) in enumerate(tensors):
            if placed is not None and name in placed.outputs:
                outputs[name] = placed.read(name, NUMPY_TYPE[datatype], shape)
                continue
            if index >= len(raw):
                raise ServerError(f"the answer of '{spec.name}' carries no data for output '{name}'", model=spec.name)
            start, end = raw[index]
            if datatype == "BYTES":
                array = unpack_bytes(memoryview(response)[start:end])
            else:
                array = np.frombuffer(memoryview(response)[start:end], dtype=NUMPY_TYPE[datatype])
            try:
                outputs[name] = array.reshape(shape)
            except ValueError:
                raise ServerError(
                    f"output '{name}' of '{spec.name}' is announced as {datatype} {list(shape)} but carries "
                    f"{end - start} bytes: the server's python backend may run with numpy 2",
                    model=spec.name,
                ) from None
    except (ValueError, LookupError, DecodeError) as error:
        raise ServerError(f"the answer of '{spec.name}' is no ModelInferResponse: {error}", model=spec.name) from error
    if placed is None and len(raw) == len(tensors) and all(datatype != "BYTES" for _, datatype, _ in tensors):
        _expect(spec, response, tensors, raw)
    return outputs


def decode_part(spec: ModelSpec, message: bytes) -> tuple[str, dict[str, Array]]:
    """The failure ("" for none) and the named arrays in one message of a stream."""
    part = service_pb2.ModelStreamInferResponse.FromString(message)
    if part.error_message:
        return part.error_message, {}
    return "", decode(spec, part.infer_response.SerializeToString())


def decode_classes(answers: Array) -> list[list[Classification]]:
    """Triton's `value:index:label` strings [batch, k] as one ranked list per batch entry."""

    def parse(text: bytes) -> Classification:
        value, index, *label = text.decode().split(":", 2)
        return Classification(label[0] if label else "", float(value), int(index))

    return [[parse(text) for text in row] for row in np.atleast_2d(answers)]


def unpack_bytes(raw: memoryview) -> Array:
    """The inverse of `pack_bytes`: a flat object array of bytes."""
    items: list[bytes] = []
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if end > len(raw):
            raise ValueError(f"a BYTES element ends at byte {end} of {len(raw)}")
        items.append(bytes(raw[at + 4 : end]))
        at = end
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


class _Layout(NamedTuple):
    """Where things lie in an answer, for the next one of that length: known bytes, and tensors between them."""

    between: tuple[tuple[int, bytes], ...]
    tensors: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...]


def _expect(spec: ModelSpec, response: bytes, tensors: Sequence[_Tensor], raw: Sequence[tuple[int, int]]) -> None:
    if not raw or raw[-1][1] != len(response):
        return
    ends = [0, *(end for _, end in raw)]
    between = tuple((end, response[end:start]) for end, (start, _) in zip(ends, raw, strict=False))
    if len(spec.answers) >= _LAYOUTS_KEPT:
        spec.answers.clear()
    placed = zip(tensors, raw, strict=True)
    spec.answers[len(response)] = _Layout(
        between, tuple((name, NUMPY_TYPE[datatype], shape, start) for (name, datatype, shape), (start, _) in placed)
    )


@functools.lru_cache(maxsize=1024)
def _parse_head(head: bytes) -> tuple[_Tensor, ...]:
    response = service_pb2.ModelInferResponse.FromString(head)
    return tuple((t.name, t.datatype, tuple(t.shape)) for t in response.outputs)


def _split_response(response: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """The fields of a ModelInferResponse without the raw contents, and where each of those begins and ends."""
    view = memoryview(response)
    head: list[memoryview] = []
    raw: list[tuple[int, int]] = []
    at, end = 0, len(view)
    while at < end:
        start = at
        tag, at = _read_varint(view, at)
        if tag & 7 != _LENGTH_DELIMITED:  # every field of this message is a string, map or message
            raise ServerError(f"the answer is no ModelInferResponse: field tag {tag} at byte {start}")
        length, at = _read_varint(view, at)
        at += length
        if at > end:
            raise ValueError(f"a field ends at byte {at} of {end}")
        if tag >> 3 == _RAW_OUTPUT_FIELD:
            raw.append((at - length, at))
        elif tag >> 3 != _ID_FIELD:  # the id differs from answer to answer, and the head is a cache key
            head.append(view[start:at])
    return b"".join(head), raw


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
