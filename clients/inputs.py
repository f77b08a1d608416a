"""Named arrays or lists held to a model's signature, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clients.datatypes import NUMPY_TYPE, Array, describe
from clients.errors import InvalidInput
from clients.spec import ModelSpec, TensorSpec


def check_inputs(spec: ModelSpec, inputs: Mapping[str, Any]) -> dict[str, Array]:
    """`inputs` as C-contiguous arrays of the model's types and shapes. Raises InvalidInput."""
    for name in inputs:
        if name not in spec.inputs:
            known = ", ".join(f"'{known}'" for known in spec.inputs)
            raise invalid(spec, f"'{spec.name}' has no input '{name}': it takes {known}")
    arrays: dict[str, Array] = {}
    for name, tensor in spec.inputs.items():
        if name in inputs:
            arrays[name] = _fit(spec, tensor, inputs[name])
        elif not tensor.optional:
            raise _misfit(spec, tensor, "is missing")
    if spec.batched:
        _check_batch(spec, arrays)
    return arrays


def _fit(spec: ModelSpec, tensor: TensorSpec, value: Any) -> Array:
    array = (_as_bytes_array if tensor.datatype == "BYTES" else _as_number_array)(spec, tensor, value)
    rank = len(tensor.dims) + spec.batched
    if spec.batched and tensor.dims == (1,) and array.ndim == 1:
        array = array.reshape(-1, 1)  # a list of N texts or numbers is a batch of N
    own = array.shape[1:] if spec.batched else array.shape
    if array.ndim != rank or any(want not in (-1, have) for want, have in zip(tensor.dims, own, strict=True)):
        raise _misfit(spec, tensor, f"has shape {list(array.shape)}")
    return array


def _as_number_array(spec: ModelSpec, tensor: TensorSpec, value: Any) -> Array:
    wanted = NUMPY_TYPE[tensor.datatype]
    if not isinstance(value, np.ndarray):
        try:
            given = _numbers(value, wanted)
        except Exception as error:  # whatever the object's own conversion raises
            raise _misfit(spec, tensor, f"is no array ({error})") from error
        # Python numbers have no width of their own: a list of ints may become FP32, a list of floats not INT64.
        if isinstance(value, list | tuple | int | float | np.generic) and _converts(given, wanted):
            with np.errstate(over="ignore"):
                value = given.astype(wanted)
            if wanted.kind in "fV" and np.any(np.isinf(value) & np.isfinite(given)):
                raise _misfit(spec, tensor, "has a number too large")
        else:
            value = given
    if value.dtype != wanted:
        if value.dtype.newbyteorder("=") != wanted:
            raise _misfit(spec, tensor, f"is {describe(value)}")
        value = value.astype(wanted)
    return np.ascontiguousarray(value) if value.ndim else value


def _numbers(value: Any, wanted: np.dtype[Any]) -> Array:
    """numpy's reading of numbers; whole ones on both sides of 2**63, of which it makes floats, stay whole."""
    given = np.asarray(value)
    if given.dtype.kind == "f" and wanted == np.uint64 and isinstance(value, list | tuple):
        whole = np.array(value, dtype=object)
        if all(isinstance(item, int | np.integer) and 0 <= item < 2**64 for item in whole.flat):
            return whole.astype(np.uint64)
    return given


def _converts(given: Array, wanted: np.dtype[Any]) -> bool:
    """Whether numbers written in Python may become `wanted` without losing more than float rounding."""
    if given.dtype.kind in "iub" and wanted.kind in "iu":
        return np.array_equal(given, given.astype(wanted))
    return given.dtype.kind in "iufb" and (wanted.kind in "fV" or np.can_cast(given.dtype, wanted, "same_kind"))


def _as_bytes_array(spec: ModelSpec, tensor: TensorSpec, value: Any) -> Array:
    if isinstance(value, str | bytes):
        value = [value]
    try:
        array = value if isinstance(value, np.ndarray) else _object_array(value)
    except Exception as error:  # whatever the object's own conversion raises
        raise _misfit(spec, tensor, f"is no array ({error})") from error
    if array.dtype.kind in "SU":
        array = array.astype(object)
    if array.dtype.kind != "O" or not all(isinstance(item, str | bytes | bytearray) for item in array.ravel()):
        kind = describe(array) if array.dtype.kind != "O" else "a list with other things than str and bytes in it"
        raise _misfit(spec, tensor, f"is {kind}")
    return array


def _object_array(value: Any) -> Array:
    # np.array would cut trailing NUL bytes off, so nested lists are filled into an object array; it would also take a
    # bytearray for a list of numbers.
    array = np.array(value, dtype=object)
    if array.size and isinstance(array.flat[0], int):
        array = np.array(_without_bytearrays(value), dtype=object)
    return array if array.ndim else array.reshape(1)


def _without_bytearrays(value: Any) -> Any:
    if isinstance(value, list | tuple | np.ndarray):
        return [_without_bytearrays(item) for item in value]
    return bytes(value) if isinstance(value, bytearray) else value


def _check_batch(spec: ModelSpec, arrays: Mapping[str, Array]) -> None:
    if not arrays:
        raise invalid(spec, f"no input was given: '{spec.name}' takes {', '.join(map(repr, spec.inputs))}")
    sizes = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        text = ", ".join(f"'{name}' {size}" for name, size in sizes.items())
        raise invalid(spec, f"the inputs of '{spec.name}' differ in their batch size: {text}")
    name, size = next(iter(sizes.items()))
    if size == 0:
        raise _misfit(spec, spec.inputs[name], "is an empty batch")
    if size > spec.max_batch_size:
        most = f"'{spec.name}' takes {spec.max_batch_size} at most"
        raise invalid(spec, f"input '{name}' is a batch of {size}, but {most}: split it")


def check_outputs(spec: ModelSpec, outputs: Sequence[str]) -> None:
    """Raise InvalidInput for an output that the model does not have."""
    for name in outputs:
        if name not in spec.outputs:
            raise invalid(spec, f"'{spec.name}' has no output '{name}': it gives {', '.join(spec.outputs)}")


def _misfit(spec: ModelSpec, tensor: TensorSpec, what: str) -> InvalidInput:
    wanted = f"expected {tensor.datatype} {tensor.shape_text(spec.batched)}"
    return invalid(spec, f"input '{tensor.name}' of '{spec.name}' {what}: {wanted}")


def invalid(spec: ModelSpec, message: str) -> InvalidInput:
    """The error for a request that does not fit `spec`."""
    return InvalidInput(message, model=spec.name)
