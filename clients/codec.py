"""Named numpy arrays to request bytes and back, without I/O: what every transport shares.

A request is the protobuf head (names, types, shapes: small, the same for every call of one shape, so cached) followed
by the tensors' bytes as `raw_input_contents` fields, joined once. Protobuf allows fields in any order, so the server
sees an ordinary ModelInferRequest, and the input is copied once instead of three times. Responses are read the same
way: outputs are views into the response's own bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tritonclient.grpc import service_pb2

from clients.datatypes import NUMPY_TYPE, Array, describe
from clients.errors import InvalidInput, ServerError
from clients.spec import ModelSpec, TensorSpec

_RAW_INPUT_TAG = b"\x3a"  # field 7 of ModelInferRequest, length-delimited
_RAW_OUTPUT_FIELD = 6  # of ModelInferResponse
_LENGTH_DELIMITED = 2


class Classification(NamedTuple):
    """One label of a classification answer; `label` is "" where the server has no label file."""

    label: str
    value: float
    class_index: int


def encode(
    spec: ModelSpec,
    inputs: Mapping[str, Any],
    *,
    outputs: Sequence[str] | None = None,
    request_id: str = "",
    classes: int = 0,
) -> bytes:
    """A serialised ModelInferRequest for `inputs`: named arrays, or lists, with the batch axis in front.

    `outputs` selects outputs (all by default); `classes` asks for the top k labels of each instead of the tensor.
    Raises InvalidInput, naming the tensor and the expected shape and type, before anything is sent.
    """
    arrays = check_inputs(spec, inputs)
    if outputs is not None:
        _check_outputs(spec, outputs)
    shapes = tuple((name, array.shape) for name, array in arrays.items())
    parts: list[Any] = [_head(_Identity(spec), shapes, tuple(outputs) if outputs is not None else None, classes)]
    if request_id:
        parts.append(service_pb2.ModelInferRequest(id=request_id).SerializeToString())
    for name, array in arrays.items():
        raw = pack_bytes(array) if spec.inputs[name].datatype == "BYTES" else array.reshape(-1).view(np.uint8)
        parts += (_RAW_INPUT_TAG, _varint(len(raw)), raw)
    return b"".join(parts)


def decode(spec: ModelSpec, response: bytes) -> dict[str, Array]:
    """Named arrays from a serialised ModelInferResponse; numeric ones are read-only views into `response`."""
    head, raw = _split_response(response)
    outputs: dict[str, Array] = {}
    for index, (name, datatype, shape) in enumerate(_parse_head(head)):
        if index >= len(raw):
            raise ServerError(f"the answer of '{spec.name}' carries no data for output '{name}'", model=spec.name)
        if datatype == "BYTES":
            array = unpack_bytes(raw[index])
        else:
            array = np.frombuffer(raw[index], dtype=NUMPY_TYPE[datatype])
        try:
            outputs[name] = array.reshape(shape)
        except ValueError:
            raise ServerError(
                f"output '{name}' of '{spec.name}' is announced as {datatype} {list(shape)} but carries "
                f"{len(raw[index])} bytes: the server's python backend may run with numpy 2",
                model=spec.name,
            ) from None
    return outputs


def decode_classes(answers: Array) -> list[list[Classification]]:
    """Triton's `value:index:label` strings [batch, k] as one ranked list per batch entry."""

    def parse(text: bytes) -> Classification:
        value, index, *label = text.decode().split(":", 2)
        return Classification(label[0] if label else "", float(value), int(index))

    return [[parse(text) for text in row] for row in np.atleast_2d(answers)]


def check_inputs(spec: ModelSpec, inputs: Mapping[str, Any]) -> dict[str, Array]:
    """`inputs` as C-contiguous arrays of the model's types and shapes. Raises InvalidInput."""
    for name in inputs:
        if name not in spec.inputs:
            known = ", ".join(f"'{known}'" for known in spec.inputs)
            raise _invalid(spec, f"'{spec.name}' has no input '{name}': it takes {known}")
    arrays: dict[str, Array] = {}
    for name, tensor in spec.inputs.items():
        if name in inputs:
            arrays[name] = _fit(spec, tensor, inputs[name])
        elif not tensor.optional:
            raise _invalid(spec, f"input '{name}' of '{spec.name}' is missing: {_wanted(spec, tensor)}")
    if spec.batched:
        _check_batch(spec, arrays)
    return arrays


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
        items.append(bytes(raw[at + 4 : end]))
        at = end
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _fit(spec: ModelSpec, tensor: TensorSpec, value: Any) -> Array:
    array = (
        _as_bytes_array(spec, tensor, value) if tensor.datatype == "BYTES" else _as_number_array(spec, tensor, value)
    )
    rank = len(tensor.dims) + spec.batched
    if spec.batched and tensor.dims == (1,) and array.ndim == 1:
        array = array.reshape(-1, 1)  # a list of N texts or numbers is a batch of N
    own = array.shape[1:] if spec.batched else array.shape
    if array.ndim != rank or any(want not in (-1, have) for want, have in zip(tensor.dims, own, strict=True)):
        raise _invalid(
            spec, f"input '{tensor.name}' of '{spec.name}' has shape {list(array.shape)}: {_wanted(spec, tensor)}"
        )
    return array


def _as_number_array(spec: ModelSpec, tensor: TensorSpec, value: Any) -> Array:
    wanted = NUMPY_TYPE[tensor.datatype]
    if not isinstance(value, np.ndarray):
        try:
            given = np.asarray(value)
            # Python numbers have no width of their own: a list of ints may become FP32, a list of floats not INT64.
            value = given.astype(wanted) if _converts(given, wanted) else given
        except (ValueError, TypeError, OverflowError) as error:
            raise _invalid(spec, f"input '{tensor.name}' is no array ({error}): {_wanted(spec, tensor)}") from error
    if value.dtype != wanted:
        if value.dtype.newbyteorder("=") != wanted:
            raise _invalid(
                spec, f"input '{tensor.name}' of '{spec.name}' is {describe(value)}: {_wanted(spec, tensor)}"
            )
        value = value.astype(wanted)
    return np.ascontiguousarray(value) if value.ndim else value


def _converts(given: Array, wanted: np.dtype[Any]) -> bool:
    """Whether numbers written in Python may become `wanted` without losing more than float rounding."""
    if given.dtype.kind in "iub" and wanted.kind in "iu":
        return np.array_equal(given, given.astype(wanted))
    return given.dtype.kind in "iufb" and (wanted.kind in "fV" or np.can_cast(given.dtype, wanted, "same_kind"))


def _as_bytes_array(spec: ModelSpec, tensor: TensorSpec, value: Any) -> Array:
    if isinstance(value, str | bytes):
        value = [value]
    array = value if isinstance(value, np.ndarray) else _object_array(value)
    if array.dtype.kind in "SU":
        array = array.astype(object)
    if array.dtype.kind != "O" or not all(isinstance(item, str | bytes | bytearray) for item in array.ravel()):
        kind = describe(array) if array.dtype.kind != "O" else "a list with other things than str and bytes in it"
        raise _invalid(spec, f"input '{tensor.name}' of '{spec.name}' is {kind}: {_wanted(spec, tensor)}")
    return array


def _object_array(value: Any) -> Array:
    # np.array would cut trailing NUL bytes off, so nested lists are filled into an object array.
    array = np.array(value, dtype=object)
    return array if array.ndim else array.reshape(1)


def _check_batch(spec: ModelSpec, arrays: Mapping[str, Array]) -> None:
    sizes = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"'{name}' {size}" for name, size in sizes.items())
        raise _invalid(spec, f"the inputs of '{spec.name}' differ in their batch size: {text}")
    name, size = next(iter(sizes.items()))
    if size == 0:
        raise _invalid(spec, f"input '{name}' of '{spec.name}' is an empty batch: {_wanted(spec, spec.inputs[name])}")
    if size > spec.max_batch_size:
        raise _invalid(
            spec,
            f"input '{name}' is a batch of {size}, but '{spec.name}' takes {spec.max_batch_size} at most: split it",
        )


def _check_outputs(spec: ModelSpec, outputs: Sequence[str]) -> None:
    for name in outputs:
        if name not in spec.outputs:
            raise _invalid(spec, f"'{spec.name}' has no output '{name}': it gives {', '.join(spec.outputs)}")


def _wanted(spec: ModelSpec, tensor: TensorSpec) -> str:
    return f"expected {tensor.datatype} {tensor.shape_text(spec.batched)}"


def _invalid(spec: ModelSpec, message: str) -> InvalidInput:
    return InvalidInput(message, model=spec.name)


class _Identity:
    """Lets a spec, whose mappings are not hashable, be a cache key by identity."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def __hash__(self) -> int:
        return id(self.spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.spec is self.spec


@functools.lru_cache(maxsize=1024)
def _head(
    identity: _Identity, shapes: tuple[tuple[str, tuple[int, ...]], ...], outputs: tuple[str, ...] | None, classes: int
) -> bytes:
    spec = identity.spec
    request = service_pb2.ModelInferRequest(model_name=spec.name, model_version=spec.version)
    for name, shape in shapes:
        request.inputs.add(name=name, datatype=spec.inputs[name].datatype, shape=shape)
    for name in outputs if outputs is not None else spec.outputs if classes else ():
        output = request.outputs.add(name=name)
        if classes:
            output.parameters["classification"].int64_param = classes
    head: bytes = request.SerializeToString()
    return head


@functools.lru_cache(maxsize=1024)
def _parse_head(head: bytes) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    response = service_pb2.ModelInferResponse.FromString(head)
    return tuple((t.name, t.datatype, tuple(t.shape)) for t in response.outputs)


def _split_response(response: bytes) -> tuple[bytes, list[memoryview]]:
    """The fields of a ModelInferResponse without the raw contents, and the raw contents as views."""
    view = memoryview(response)
    head: list[memoryview] = []
    raw: list[memoryview] = []
    at, end = 0, len(view)
    while at < end:
        start = at
        tag, at = _read_varint(view, at)
        if tag & 7 != _LENGTH_DELIMITED:  # every field of this message is a string, map or message
            raise ServerError(f"the answer is no ModelInferResponse: field tag {tag} at byte {start}")
        length, at = _read_varint(view, at)
        at += length
        if tag >> 3 == _RAW_OUTPUT_FIELD:
            raw.append(view[at - length : at])
        else:
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
