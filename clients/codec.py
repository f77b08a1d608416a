"""Named arrays to request bytes, and answer bytes to named arrays: what a client checks, writes and reads, without I/O.

A request is the protobuf head (names, types, shapes) followed by the tensors' bytes as `raw_input_contents` fields,
joined once. Protobuf allows fields in any order, so the server sees an ordinary ModelInferRequest, and the input is
copied once instead of three times. The outputs of an answer are views into its own bytes. A ModelSpec remembers what is
the same in the next one: arrays of names, shapes and types that have passed need no checks and no protobuf again.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from .arrays import as_array
from .datatypes import NUMPY_TYPE, Array
from .errors import InvalidInputError, ServerError
from .options import seconds
from .spec import ModelSpec, TensorSpec

if TYPE_CHECKING:
    from .placement import Placement

_RAW_INPUT, _RAW_OUTPUT = 0x3A, 0x32  # the tags of raw_input_contents and raw_output_contents
# The field of InferTensorContents that carries a type, and its width there; FP16 and BF16 have none.
_TYPED = {
    "BOOL": ("bool_contents", np.bool_),
    **dict.fromkeys(("INT8", "INT16", "INT32"), ("int_contents", np.int32)),
    "INT64": ("int64_contents", np.int64),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), ("uint_contents", np.uint32)),
    "UINT64": ("uint64_contents", np.uint64),
    "FP32": ("fp32_contents", np.float32),
    "FP64": ("fp64_contents", np.float64),
    "BYTES": ("bytes_contents", np.object_),
}
_MOST = (1 << 32) - 1  # of Triton's priorities
Outputs = dict[str, Array]
T = TypeVar("T")


def encode(
    spec: ModelSpec,
    inputs: Mapping[str, Any],
    *,
    outputs: Sequence[str] | None = None,
    request_id: str = "",
    classes: int = 0,
    parameters: Mapping[str, bool | int | float | str] | None = None,
    priority: int = 0,
    queue_timeout_s: float | None = None,
    placed: Placement | None = None,
) -> bytes:
    """A serialised ModelInferRequest for `inputs`: named arrays, or lists, with the batch axis in front.

    `outputs` selects outputs (all by default); `classes` asks for the top k labels of each instead of the tensor; the
    bytes of inputs that are `placed` stay where they are. `priority` is 1 for the most urgent requests, 0 for the
    model's default; one that waits in a queue for longer than `queue_timeout_s` is dropped. Raises InvalidInputError,
    naming the tensor and the expected shape and type, before anything is sent.
    """
    if queue_timeout_s is not None or not (isinstance(priority, int) and priority == 0):
        parameters = {**(parameters or {}), **_queueing(spec, priority, queue_timeout_s)}
    signature = _signature(inputs)
    if outputs is None and placed is None and not (classes or request_id or parameters):
        begin, seen = spec.heads.get(signature, (b"", False))  # of a single tensor
        if seen:
            return b"".join((begin, *inputs.values()))
    outputs = None if outputs is None else (outputs,) if isinstance(outputs, str) else tuple(outputs)
    selection = (outputs, classes, placed and placed.key())
    head, numbers = spec.heads.get((selection, signature), (b"", False))
    if not numbers:
        inputs = check(spec, inputs, outputs)
        key = (selection, _signature(inputs))
        if (known := spec.heads.get(key)) is None:
            plain = all(array.dtype.kind in "iufb" for array in inputs.values())  # texts are looked at every time
            known = _keep(spec.heads, key, (_head(spec, inputs, outputs, classes, placed), plain))
            if plain and len(inputs) == 1 and selection == (None, 0, None):
                begin = known[0] + _prefix(_RAW_INPUT, next(iter(inputs.values())).nbytes)
                _keep(spec.heads, key[1], (begin, True))
        head, _ = known
    parts = [head]
    for name, array in inputs.items():
        if placed is None or name not in placed.inputs:
            raw = array if numbers else raw_bytes(spec, name, array)
            parts += (_prefix(_RAW_INPUT, array.nbytes if numbers else len(raw)), raw)
    if request_id or parameters:  # what differs from request to request of one shape
        extra = service_pb2.ModelInferRequest(id=str(request_id))
        for name, value in (parameters or {}).items():
            kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
            setattr(extra.parameters[name], kind, value)
        parts.append(extra.SerializeToString())
    return b"".join(parts)


def _queueing(spec: ModelSpec, priority: int, queue_timeout_s: float | None) -> dict[str, int]:
    """What Triton's queues know of a request: its priority, and its time-out in microseconds."""
    if not isinstance(priority, int) or not 0 <= priority <= _MOST:
        message = (
            f"priority {priority!r} is not a whole number from 0 to {_MOST}; an input of that name goes in the mapping"
        )
        raise invalid(spec, message)
    parameters = {"priority": int(priority)} if priority else {}
    if queue_timeout_s is not None:
        parameters["timeout"] = max(round(seconds(queue_timeout_s, "queue_timeout_s") * 1e6), 1)
    return parameters


def _signature(inputs: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Names, shapes and types of arrays in C order; None where something else is among them."""
    signature: tuple[Any, ...] = ()
    for name, array in inputs.items():
        if type(array) is not np.ndarray or not array.flags.c_contiguous:
            return None
        signature += (name, array.shape, array.dtype)
    return signature


def _head(
    spec: ModelSpec, arrays: Mapping[str, Array], outputs: Sequence[str] | None, classes: int, placed: Placement | None
) -> bytes:
    request = service_pb2.ModelInferRequest(model_name=spec.name, model_version=spec.version)
    for name, array in arrays.items():
        tensor = request.inputs.add(name=name, datatype=spec.inputs[name].datatype, shape=array.shape)
        if placed is not None and name in placed.inputs:
            placed.inputs[name].refer(tensor.parameters)
    if outputs is None:  # all of them, which need names only where there is more to say of them
        outputs = tuple(spec.outputs) if classes or (placed is not None and placed.outputs) else ()
    for name in outputs:
        tensor = request.outputs.add(name=name)
        if classes:
            tensor.parameters["classification"].int64_param = classes
        if placed is not None and name in placed.outputs:
            placed.outputs[name].refer(tensor.parameters)
    return bytes(request.SerializeToString())


@functools.lru_cache(maxsize=1024)
def _prefix(tag: int, size: int) -> bytes:
    """What protobuf puts before a field of `size` bytes: the tag, and the size in groups of seven bits."""
    prefix = [tag]
    while size > 0x7F:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*prefix, size])


def _keep(kept: dict[Any, Any], key: object, value: T) -> T:
    if len(kept) >= 1024:  # of each kind, in each ModelSpec
        kept.clear()
    kept[key] = value
    return value


def raw_bytes(spec: ModelSpec, name: str, array: Array) -> Any:
    """An input's bytes as they travel. Raises InvalidInputError for text that UTF-8 cannot hold."""
    if array.dtype.kind != "O":
        return array.reshape(-1).view(np.uint8)
    try:
        return pack_bytes(array)
    except UnicodeEncodeError as error:
        raise _misfit(spec, spec.inputs[name], f"has text that is not Unicode ({error})") from None


def pack_bytes(array: Array) -> bytes:
    """BYTES elements in row-major order, each behind its length as a 4-byte little-endian integer."""
    parts: list[bytes] = []
    for item in array.ravel():
        data = item.encode() if isinstance(item, str) else bytes(item)
        parts += (len(data).to_bytes(4, "little"), data)
    return b"".join(parts)


def unpack_bytes(raw: bytes) -> Array:
    """The inverse of `pack_bytes`: a flat object array of bytes."""
    items, at = [], 0
    while at < len(raw):
        start = at + 4
        at = start + int.from_bytes(raw[at:start], "little")
        items.append(bytes(raw[start:at]))
    if at > len(raw):
        raise ValueError(f"a BYTES element ends at byte {at} of {len(raw)}")
    return np.array(items, dtype=object)


def decode(spec: ModelSpec, answer: bytes, placed: Placement | None = None) -> Outputs:
    """Named arrays from a serialised ModelInferResponse; numeric ones are read-only views into its bytes.

    Outputs that are `placed` are read from there. Raises ServerError for an answer that makes no sense.
    """
    outputs: Outputs = {}
    for begin, text, at, name, dtype, shape in spec.layouts.get(len(answer), ()) if placed is None else ():
        if not answer.startswith(text, begin):
            return _parse(spec, answer, placed)
        outputs[name] = np.ndarray(shape, dtype, answer, at)
    return outputs or _parse(spec, answer, placed)


def _parse(spec: ModelSpec, answer: bytes, placed: Placement | None) -> Outputs:
    """What `decode` does, by protobuf; learns where an answer like Triton's, that ends with its numbers, has them."""
    try:
        message = service_pb2.ModelInferResponse.FromString(answer)
    except DecodeError as error:
        raise ServerError(f"the answer of '{spec.name}' is not a message: {error}", model=spec.name) from None
    outputs = read(spec, message, placed)
    raws = message.raw_output_contents
    numbers = placed is None and all(array.dtype.kind != "O" for array in outputs.values())
    if numbers and raws and len(raws) == len(outputs) and not any(t.HasField("contents") for t in message.outputs):
        tail = b"".join(part for raw in raws for part in (_prefix(_RAW_OUTPUT, len(raw)), raw))
        if answer.endswith(tail):
            layout, begin, end = [], 0, len(answer) - len(tail)
            for (name, array), raw in zip(outputs.items(), raws, strict=True):
                start = end + len(_prefix(_RAW_OUTPUT, len(raw)))
                layout.append((begin, answer[begin:start], start, name, array.dtype, array.shape))
                begin = end = start + len(raw)
            _keep(spec.layouts, len(answer), layout)
    return outputs


def read(spec: ModelSpec, message: service_pb2.ModelInferResponse, placed: Placement | None = None) -> Outputs:
    """What `decode` does, for an answer that protobuf has parsed."""
    outputs: Outputs = {}
    raws = list(message.raw_output_contents)
    # Triton adds one for every output; a server that answers in typed contents too adds them for the others alone.
    bare = [tensor for tensor in message.outputs if not tensor.HasField("contents")]
    carriers = message.outputs if len(raws) == len(message.outputs) else bare
    raw_of = dict(zip((tensor.name for tensor in carriers), raws, strict=False))
    if len(raws) > len(carriers):
        what = f"{len(raws)} raw contents for {len(carriers)} outputs without typed ones"
        raise ServerError(f"the answer of '{spec.name}' has {what}", model=spec.name)
    for tensor in message.outputs:
        name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape)
        raw, typed = raw_of.get(name, b""), tensor.contents.ListFields()
        try:
            if placed is not None and name in placed.outputs:
                outputs[name] = placed.read(name, NUMPY_TYPE[datatype], shape)
            elif typed:
                outputs[name] = _from_typed(datatype, typed, raw).reshape(shape)
            else:
                flat = unpack_bytes(raw) if datatype == "BYTES" else np.frombuffer(raw, NUMPY_TYPE[datatype])
                outputs[name] = flat.reshape(shape)
        except (ValueError, LookupError) as error:
            size = " and ".join(f"{len(values)} values in {field.name}" for field, values in typed)
            size += "" if typed and not raw else f"{' and ' if typed else ''}{len(raw)} bytes"
            hint = "" if typed or raw else ": the server's python backend may run with numpy 2"
            announced = f"output '{name}' of '{spec.name}' is announced as {datatype} {list(shape)}"
            raise ServerError(f"{announced} but carries {size} ({error}){hint}", model=spec.name) from error
    return outputs


def _from_typed(datatype: str, typed: Sequence[tuple[Any, Any]], raw: bytes) -> Array:
    """A flat array from the typed fields that are set. Raises ValueError for any but the type's own."""
    name, width = _TYPED.get(datatype, ("", np.object_))
    field, values = typed[0]
    if len(typed) > 1 or field.name != name or raw:
        raise ValueError(f"{datatype} belongs in {name or 'raw contents'} alone")
    wide = np.fromiter(values, np.dtype(width), len(values))
    if datatype == "BYTES":
        return wide
    flat = wide.astype(NUMPY_TYPE[datatype], copy=False)
    if flat is not wide and not np.array_equal(flat, wide):
        raise ValueError(f"some are no {datatype}")
    return flat


def check(spec: ModelSpec, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Array]:
    """`inputs` as C-contiguous arrays of the model's types and shapes, in their own order. Raises InvalidInputError."""
    for name in inputs:
        if name not in spec.inputs:
            known = ", ".join(map(repr, spec.inputs))
            raise invalid(spec, f"'{spec.name}' has no input '{name}': it takes {known}", tensor=name)
    arrays = {name: _fit(spec, spec.inputs[name], value) for name, value in inputs.items()}
    for name, tensor in spec.inputs.items():
        if name not in inputs and not tensor.optional:
            raise _misfit(spec, tensor, "is missing")
    if spec.batched:
        _check_batch(spec, {name: array.shape[0] for name, array in arrays.items()})
    for name in outputs or ():
        if name not in spec.outputs:
            known = ", ".join(spec.outputs)
            raise invalid(spec, f"'{spec.name}' has no output '{name}': it gives {known}", tensor=name)
    return arrays


def _check_batch(spec: ModelSpec, sizes: Mapping[str, int]) -> None:
    if not sizes:
        raise invalid(spec, f"no input was given: '{spec.name}' takes {', '.join(map(repr, spec.inputs))}")
    name, size = next(iter(sizes.items()))
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"'{name}' {size}" for name, size in sizes.items())
        raise invalid(spec, f"the inputs of '{spec.name}' differ in their batch size: {text}")
    if size == 0:
        raise _misfit(spec, spec.inputs[name], "is an empty batch")
    if size > spec.max_batch_size:
        most = f"'{spec.name}' takes {spec.max_batch_size} at most"
        raise invalid(spec, f"input '{name}' is a batch of {size}, but {most}: split it", tensor=name)


def named(spec: ModelSpec, inputs: Mapping[str, Any] | None, more: Mapping[str, Any]) -> Mapping[str, Any]:
    """Inputs given as one mapping and by keyword. Raises InvalidInputError where `inputs` is no mapping."""
    if inputs is None or isinstance(inputs, Mapping):
        return {**inputs, **more} if inputs else more
    names = ", ".join(map(repr, spec.inputs))
    raise invalid(spec, f"'{spec.name}' takes its inputs by name ({names}), and not {type(inputs).__name__} alone")


def invalid(spec: ModelSpec, message: str, *, tensor: str = "", expected: str = "") -> InvalidInputError:
    """The error for a request that does not fit `spec`."""
    return InvalidInputError(message, model=spec.name, tensor=tensor, expected=expected)


def _misfit(spec: ModelSpec, tensor: TensorSpec, what: str) -> InvalidInputError:
    expected = f"{tensor.datatype} {tensor.shape_text(spec.batched)}"
    message = f"input '{tensor.name}' of '{spec.name}' {what}: expected {expected}"
    return invalid(spec, message, tensor=tensor.name, expected=expected)


def _fit(spec: ModelSpec, tensor: TensorSpec, value: Any) -> Array:
    try:
        array = as_array(value, tensor.datatype)
    except InvalidInputError as error:
        raise _misfit(spec, tensor, str(error)) from None
    except Exception as error:  # whatever the object's own conversion raises
        raise _misfit(spec, tensor, f"is not an array ({error})") from error
    text = tensor.datatype == "BYTES" and isinstance(value, str | bytes | bytearray)
    if tensor.dims in ((1,), (-1,)) and (array.ndim == 0 or text):
        array = array.reshape((1, 1) if spec.batched else (1,))  # one text or number by itself
    elif spec.batched and tensor.dims == (1,) and array.ndim == 1:
        array = array.reshape(-1, 1)  # a list of N texts or numbers is a batch of N
    dims = (-1, *tensor.dims) if spec.batched else tensor.dims
    if array.ndim != len(dims) or any(want not in (-1, have) for want, have in zip(dims, array.shape, strict=True)):
        raise _misfit(spec, tensor, f"has shape {list(array.shape)}")
    return np.asarray(array, order="C")
