"""Named numpy arrays to request bytes, without I/O.

A request is the protobuf head (names, types, shapes: small, the same for every call of one shape, so kept) followed by
the tensors' bytes as `raw_input_contents` fields, joined once. Protobuf allows fields in any order, so the server sees
an ordinary ModelInferRequest, and the input is copied once instead of three times.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from tritonclient.grpc import service_pb2

from clients.datatypes import Array
from clients.errors import InvalidInput
from clients.inputs import check_inputs, check_outputs
from clients.spec import ModelSpec

_RAW_INPUT_TAG = b"\x3a"  # field 7 of ModelInferRequest, length-delimited
_HEADS_KEPT = 1024
Parameters = Mapping[str, bool | int | float | str]


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
        request = encode_as_before(spec, inputs)
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


def encode_as_before(spec: ModelSpec, inputs: Mapping[str, Any]) -> bytes | None:
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


def _remember(spec: ModelSpec, arrays: Mapping[str, Array], parts: Sequence[Any]) -> None:
    """Let `encode_as_before` make the next such request; texts and bfloat16 are written anew each time."""
    if all(part is array for part, array in zip(parts[2::2], arrays.values(), strict=True)):
        heads = [parts[0] + parts[1], *parts[3::2]]
        if len(spec.requests) >= _HEADS_KEPT:
            spec.requests.clear()
        key = tuple([(name, array.shape) for name, array in arrays.items()])
        spec.requests[key] = tuple(zip(heads, [array.dtype for array in arrays.values()], strict=True))


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
def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
