"""Named numpy arrays to request bytes and back, without I/O: what every transport shares.

A request is the protobuf head (names, types, shapes: small, the same for every call of one shape, so cached) followed
by the tensors' bytes as `raw_input_contents` fields, joined once. Protobuf allows fields in any order, so the server
sees an ordinary ModelInferRequest, and the input is copied once instead of three times. Responses are read the same
way: outputs are views into the response's own bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from clients.datatypes import NUMPY_TYPE, Array
from clients.errors import InvalidInput, ServerError
from clients.inputs import check_inputs, check_outputs
from clients.spec import ModelSpec

__all__ = [
    "Classification",
    "Placement",
    "Region",
    "check_inputs",
    "check_outputs",
    "decode",
    "decode_classes",
    "encode",
    "write",
]

_RAW_INPUT_TAG = b"\x3a"  # field 7 of ModelInferRequest, length-delimited
_ID_FIELD, _RAW_OUTPUT_FIELD = 3, 6  # of ModelInferResponse
_LENGTH_DELIMITED = 2
_HEADS_KEPT = 1024
_LAYOUTS_KEPT = 64
_Tensor = tuple[str, str, tuple[int, ...]]  # name, datatype, shape
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


class Placement(Protocol):
    """The tensors of one request that travel through shared memory."""

    @property
    def inputs(self) -> Mapping[str, Region]:
        """Where the server reads inputs."""

    @property
    def outputs(self) -> Mapping[str, Region]:
        """Where the server writes outputs."""

    def read(self, output: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """An output that the server has written."""


def encode(
    spec: ModelSpec,
    inputs: Mapping[str, Any],
    *,
    outputs: Sequence[str] | None = None,
    request_id: str = "",
    classes: int = 0,
    parameters: Parameters | None = None,
) -> bytes:
    """A serialised ModelInferRequest for `inputs`: named arrays, or lists, with the batch axis in front.

    `outputs` selects outputs (all by default); `classes` asks for the top k labels of each instead of the tensor.
    Raises InvalidInput, naming the tensor and the expected shape and type, before anything is sent.
    """
    if outputs is None and not (request_id or classes or parameters):
        request = _encode_as_before(spec, inputs)
        if request is not None:
            return request
    return write(
        spec,
        check_inputs(spec, inputs),
        outputs=outputs,
        request_id=request_id,
        classes=classes,
        parameters=parameters,
    )


def _encode_as_before(spec: ModelSpec, inputs: Mapping[str, Any]) -> bytes | None:
    """The request for arrays of names, shapes and types that have passed the checks before; None for others."""
    try:
        before = spec.requests.get(tuple([(name, array.shape) for name, array in inputs.items()]))
    except (AttributeError, TypeError):
        return None  # not arrays
    if before is None:
        return None
    parts: list[Any] = []
    for array, (head, dtype) in zip(inputs.values(), before, strict=True):
        if type(array) is not np.ndarray or array.dtype != dtype or not array.flags.c_contiguous:
            return None
        parts += (head, array)
    return b"".join(parts)


def write(
    spec: ModelSpec,
    arrays: Mapping[str, Array],
    *,
    outputs: Sequence[str] | None = None,
    request_id: str = "",
    classes: int = 0,
    parameters: Parameters | None = None,
    placed: Placement | None = None,
) -> bytes:
    """The same for arrays that `check_inputs` returned. The bytes of inputs that are `placed` stay where they are."""
    if outputs is not None:
        check_outputs(spec, outputs)
        outputs = tuple(outputs)
    key: tuple[Any, ...] = (*[(name, array.shape) for name, array in arrays.items()], outputs, classes)
    if placed is not None:
        key += (*placed.inputs.items(), None, *placed.outputs.items())
    head = spec.heads.get(key)
    if head is None:
        if len(spec.heads) >= _HEADS_KEPT:
            spec.heads.clear()
        head = spec.heads[key] = _head(spec, arrays, outputs, classes, placed)
    parts: list[Any] = [head]
    if request_id or parameters:
        parts.append(_extra(request_id, parameters or {}))
    for name, array in arrays.items():
        if placed is not None and name in placed.inputs:
            continue
        raw: Any
        if spec.inputs[name].datatype == "BYTES":
            raw, size = (packed := pack_texts(spec, name, array)), len(packed)
        else:
            # The join below reads any buffer; those without a format of their own (bfloat16) go as plain bytes.
            raw, size = (
                array if array.dtype.kind in "iufb" and array.ndim else array.reshape(-1).view(np.uint8),
                array.nbytes,
            )
        parts += (_RAW_INPUT_TAG + _varint(size), raw)
    if len(parts) == 1 + 2 * len(arrays) and placed is None and outputs is None and not classes:
        _remember(spec, arrays, parts)
    return b"".join(parts)


def _remember(spec: ModelSpec, arrays: Mapping[str, Array], parts: Sequence[Any]) -> None:
    """Let `_encode_as_before` make the next such request; texts and bfloat16 are written anew each time."""
    if all(part is array for part, array in zip(parts[2::2], arrays.values(), strict=True)):
        heads = [parts[0] + parts[1], *parts[3::2]]
        if len(spec.requests) >= _HEADS_KEPT:
            spec.requests.clear()
        key = tuple([(name, array.shape) for name, array in arrays.items()])
        spec.requests[key] = tuple(zip(heads, [array.dtype for array in arrays.values()], strict=True))


def decode(spec: ModelSpec, response: bytes, placed: Placement | None = None) -> dict[str, Array]:
    """Named arrays from a serialised ModelInferResponse; numeric ones are read-only views into `response`.

    Outputs that are `placed` are read from there. Raises ServerError for an answer that makes no sense.
    """
    layout = spec.answers.get(len(response)) if placed is None else None
    if layout is not None:
        for at, known in layout.between:
            if not response.startswith(known, at):
                break
        else:
            return {name: np.ndarray(shape, dtype, response, at) for name, dtype, shape, at in layout.tensors}
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


def pack_texts(spec: ModelSpec, name: str, array: Array) -> bytes:
    """An input's elements packed. Raises InvalidInput for text that UTF-8 cannot hold."""
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


def _head(
    spec: ModelSpec,
    arrays: Mapping[str, Array],
    outputs: Sequence[str] | None,
    classes: int,
    placed: Placement | None,
) -> bytes:
    request = service_pb2.ModelInferRequest(model_name=spec.name, model_version=spec.version)
    for name, array in arrays.items():
        tensor = request.inputs.add(name=name, datatype=spec.inputs[name].datatype, shape=array.shape)
        if placed is not None and name in placed.inputs:
            _refer(tensor.parameters, placed.inputs[name])
    elsewhere = placed.outputs if placed is not None else {}
    for name in outputs if outputs is not None else spec.outputs if classes or elsewhere else ():
        output = request.outputs.add(name=name)
        if classes:
            output.parameters["classification"].int64_param = classes
        if name in elsewhere:
            _refer(output.parameters, elsewhere[name])
    head: bytes = request.SerializeToString()
    return head


def _refer(parameters: Any, region: Region) -> None:
    parameters["shared_memory_region"].string_param = region.name
    parameters["shared_memory_byte_size"].int64_param = region.byte_size
    if region.offset:
        parameters["shared_memory_offset"].int64_param = region.offset


def _extra(request_id: str, parameters: Parameters) -> bytes:
    """What differs from request to request of one shape."""
    request = service_pb2.ModelInferRequest(id=request_id)
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
        setattr(request.parameters[name], kind, value)
    extra: bytes = request.SerializeToString()
    return extra


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


@functools.lru_cache(maxsize=1024)
def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
