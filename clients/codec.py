"""Named numpy arrays to request bytes, and response bytes to named arrays: what a client does to tensors, without I/O.

A request is the protobuf head (names, types, shapes) followed by the tensors' bytes as `raw_input_contents` fields,
joined once. Protobuf allows fields in any order, so the server sees an ordinary ModelInferRequest, and the input is
copied once instead of three times. The outputs of an answer are views into its own bytes. What is the same for every
request and answer of one shape is kept in the ModelSpec: the next one is checked, written and read in microseconds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from clients.datatypes import NUMPY_TYPE, Array
from clients.errors import InvalidInput, ServerError
from clients.inputs import check_inputs, check_outputs
from clients.spec import ModelSpec

_RAW_INPUT_TAG, _RAW_OUTPUT_TAG = b"\x3a", b"\x32"  # fields 7 of ModelInferRequest and 6 of ModelInferResponse
_KEPT = 1024  # of each kind that a ModelSpec remembers
T = TypeVar("T")
Outputs = dict[str, Array]
Parameters = Mapping[str, bool | int | float | str]


class Classification(NamedTuple):
    """One label of a classification answer; `label` is "" where the server has no label file."""

    label: str
    value: float
    class_index: int


class Region(NamedTuple):
    """Where a tensor's bytes lie instead of in the message: in shared memory that the server has registered."""

    name: str
    byte_size: int
    offset: int = 0


@dataclass
class Placement:
    """The tensors of one request in shared memory: where the server reads inputs and writes outputs."""

    memory: Any  # of clients.shared_memory
    inputs: dict[str, Region] = field(default_factory=dict)
    outputs: dict[str, Region] = field(default_factory=dict)

    def read(self, output: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """A copy of an output that the server has written. Raises ValueError for one that cannot be there."""
        place = self.outputs[output]
        if dtype.itemsize * math.prod(shape) > place.byte_size:
            raise ValueError(f"output '{output}' is larger than the {place.byte_size} bytes set aside for it")
        array: Array = self.memory.read(place.offset, dtype, shape)
        return array


class _Place(NamedTuple):
    """Where the bytes of an output begin in an answer, and the known ones before them."""

    at: int
    text: bytes
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def encode(
    spec: ModelSpec,
    inputs: Mapping[str, Any],
    *,
    outputs: Sequence[str] | None = None,
    request_id: str = "",
    classes: int = 0,
    parameters: Parameters | None = None,
    placed: Placement | None = None,
) -> bytes:
    """A serialised ModelInferRequest for `inputs`: named arrays, or lists, with the batch axis in front.

    `outputs` selects outputs (all by default); `classes` asks for the top k labels of each instead of the tensor; the
    bytes of inputs that are `placed` stay where they are. Raises InvalidInput, naming the tensor and the expected shape
    and type, before anything is sent.
    """
    outputs = None if outputs is None else tuple(outputs)
    parts = _as_before(spec, inputs, outputs, classes) if placed is None else None
    if parts is None:
        parts = _checked(spec, inputs, outputs, classes, placed)
    if request_id or parameters:  # what differs from request to request of one shape
        extra = service_pb2.ModelInferRequest(id=request_id)
        for name, value in (parameters or {}).items():
            kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
            setattr(extra.parameters[name], kind, value)
        parts.append(extra.SerializeToString())
    return b"".join(parts)


def _as_before(
    spec: ModelSpec, inputs: Mapping[str, Any], outputs: Sequence[str] | None, classes: int
) -> list[Any] | None:
    """The parts of a request for arrays of names, shapes and types that have passed the checks before, else None."""
    key: tuple[Any, ...] = (outputs, classes)
    try:
        for name, array in inputs.items():
            key += (name, array.shape)
        before = spec.requests.get(key)
    except (AttributeError, TypeError):
        return None  # not arrays
    if before is None:
        return None
    parts: list[Any] = []
    for array, (head, dtype) in zip(inputs.values(), before, strict=True):
        if type(array) is not np.ndarray or array.dtype != dtype or not array.flags.c_contiguous:
            return None
        parts += (head, array)
    return parts


def _checked(
    spec: ModelSpec,
    inputs: Mapping[str, Any],
    outputs: Sequence[str] | None,
    classes: int,
    placed: Placement | None,
) -> list[Any]:
    """The parts of a request, remembered for the next one where all inputs are plain numbers."""
    arrays = check_inputs(spec, inputs)
    check_outputs(spec, outputs or ())
    key: tuple[Any, ...] = (outputs, classes)
    for name, array in arrays.items():
        key += (name, array.shape)
    if placed is not None:
        key += (*placed.inputs.items(), None, *placed.outputs.items())
    if (head := spec.heads.get(key)) is None:
        head = _keep(spec.heads, key, _head(spec, arrays, outputs, classes, placed))
    parts: list[Any] = []
    for name, array in arrays.items():
        if placed is None or name not in placed.inputs:
            raw = raw_bytes(spec, name, array)
            parts += (head + _RAW_INPUT_TAG + _varint(len(raw)), raw)
            head = b""
    if placed is None and all(array.dtype.kind in "iufb" and array.ndim for array in arrays.values()):
        dtypes = [array.dtype for array in arrays.values()]
        _keep(spec.requests, key, tuple(zip(parts[::2], dtypes, strict=True)) if parts else None)
    return parts or [head]


def raw_bytes(spec: ModelSpec, name: str, array: Array) -> Any:
    """An input's bytes as they travel. Raises InvalidInput for text that UTF-8 cannot hold."""
    if array.dtype.kind != "O":
        return array.reshape(-1).view(np.uint8)
    try:
        return pack_bytes(array)
    except UnicodeEncodeError as error:
        message = f"input '{name}' of '{spec.name}' holds text that is no Unicode ({error}): expected BYTES"
        raise InvalidInput(message, model=spec.name) from None


def pack_bytes(array: Array) -> bytes:
    """BYTES elements in row-major order, each behind its length as a 4-byte little-endian integer."""
    parts: list[bytes] = []
    for item in array.ravel():
        data = item.encode() if isinstance(item, str) else bytes(item)
        parts += (len(data).to_bytes(4, "little"), data)
    return b"".join(parts)


def unpack_bytes(raw: bytes) -> Array:
    """The inverse of `pack_bytes`: a flat object array of bytes."""
    items: list[bytes] = []
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if end > len(raw):
            raise ValueError(f"a BYTES element ends at byte {end} of {len(raw)}")
        items.append(raw[at + 4 : end])
        at = end
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _head(
    spec: ModelSpec,
    arrays: Mapping[str, Array],
    outputs: Sequence[str] | None,
    classes: int,
    placed: Placement | None,
) -> bytes:
    request = service_pb2.ModelInferRequest(model_name=spec.name, model_version=spec.version)
    inputs_elsewhere, outputs_elsewhere = (placed.inputs, placed.outputs) if placed is not None else ({}, {})
    for name, array in arrays.items():
        tensor = request.inputs.add(name=name, datatype=spec.inputs[name].datatype, shape=array.shape)
        _refer(tensor.parameters, inputs_elsewhere.get(name))
    for name in outputs if outputs is not None else spec.outputs if classes or outputs_elsewhere else ():
        output = request.outputs.add(name=name)
        if classes:
            output.parameters["classification"].int64_param = classes
        _refer(output.parameters, outputs_elsewhere.get(name))
    head: bytes = request.SerializeToString()
    return head


def _refer(parameters: Any, region: Region | None) -> None:
    if region is not None:
        parameters["shared_memory_region"].string_param = region.name
        parameters["shared_memory_byte_size"].int64_param = region.byte_size
        parameters["shared_memory_offset"].int64_param = region.offset


@functools.lru_cache(maxsize=1024)
def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _keep(kept: dict[Any, T], key: object, value: T) -> T:
    if len(kept) >= _KEPT:
        kept.clear()
    kept[key] = value
    return value


def decode(spec: ModelSpec, response: bytes, placed: Placement | None = None) -> Outputs:
    """Named arrays from a serialised ModelInferResponse; numeric ones are read-only views into its bytes.

    Outputs that are `placed` are read from there. Raises ServerError for an answer that makes no sense.
    """
    known = spec.answers.get(len(response)) if placed is None else None
    if known is not None:
        outputs: Outputs = {}
        for at, text, name, dtype, shape in known:
            if not response.startswith(text, at - len(text)):
                break
            outputs[name] = np.ndarray(shape, dtype, response, at)
        else:
            return outputs
    try:
        message = service_pb2.ModelInferResponse.FromString(response)
    except DecodeError as error:
        raise ServerError(f"the answer of '{spec.name}' is no message: {error}", model=spec.name) from None
    if placed is None and (layout := _layout(message, response)) is not None:
        _keep(spec.answers, len(response), layout)
        return decode(spec, response)
    return _outputs(spec, message, placed)


def decode_part(spec: ModelSpec, message: bytes) -> tuple[str, Outputs]:
    """The failure ("" for none) and the named arrays in one message of a stream."""
    part = service_pb2.ModelStreamInferResponse.FromString(message)
    return part.error_message, {} if part.error_message else _outputs(spec, part.infer_response)


def decode_classes(answers: Array) -> list[list[Classification]]:
    """Ranked labels per batch entry from the `value:index:label` strings of a classification answer."""

    def parse(text: bytes) -> Classification:
        value, index, *label = text.decode().split(":", 2)
        return Classification(label[0] if label else "", float(value), int(index))

    return [[parse(text) for text in row] for row in np.atleast_2d(answers)]


def _layout(message: Any, response: bytes) -> list[_Place] | None:
    """Where tensors lie in an answer of numbers alone that ends with their bytes, as Triton's do; None for others."""
    raws = list(message.raw_output_contents)
    texts = [_RAW_OUTPUT_TAG + _varint(len(raw)) for raw in raws]
    if not raws or len(raws) != len(message.outputs):
        return None
    texts[0] = response[: -sum(map(len, (*texts, *raws)))] + texts[0]
    if response != b"".join(part for pair in zip(texts, raws, strict=True) for part in pair):
        return None
    places, at = [], 0
    for tensor, text, raw in zip(message.outputs, texts, raws, strict=True):
        dtype, shape = NUMPY_TYPE.get(tensor.datatype), tuple(tensor.shape)
        if dtype is None or dtype.itemsize * math.prod(shape) != len(raw):
            return None
        places.append(_Place(at + len(text), text, tensor.name, dtype, shape))
        at += len(text) + len(raw)
    return places


def _outputs(spec: ModelSpec, message: Any, placed: Placement | None = None) -> Outputs:
    outputs: Outputs = {}
    for index, tensor in enumerate(message.outputs):
        name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape)
        raw = message.raw_output_contents[index] if index < len(message.raw_output_contents) else None
        try:
            if placed is not None and name in placed.outputs:
                outputs[name] = placed.read(name, NUMPY_TYPE[datatype], shape)
            elif raw is None:
                raise ValueError("no data")
            else:
                flat = unpack_bytes(raw) if datatype == "BYTES" else np.frombuffer(raw, NUMPY_TYPE[datatype])
                outputs[name] = flat.reshape(shape)
        except (ValueError, LookupError) as error:
            raise ServerError(
                f"output '{name}' of '{spec.name}' is announced as {datatype} {list(shape)} but carries "
                f"{len(raw or b'')} bytes ({error}): the server's python backend may run with numpy 2",
                model=spec.name,
            ) from error
    return outputs
