"""Convert a caller's value to a numpy array of the input's type, and never change a value in silence.

Arrays must have the type already. Python numbers have no width of their own: a list of integers may become FP32 where
that rounds none of them, but a list of floats never INT64. Functions here raise InvalidInputError with the second half
of a sentence: "input 'x' ...".
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .datatypes import NUMPY_TYPE, Array, describe
from .errors import InvalidInputError

# What numpy reads as it is, wherever in a list it stands.
_PLAIN = {int, float, bool, str, bytes, bytearray, type(None), np.ndarray, *np.sctypeDict.values()}


def as_array(value: Any, datatype: str) -> Array:
    """`value` as an array of a Triton type. Raises InvalidInputError, or whatever the value's own conversion raises."""
    value = readable(value)
    return _as_text(value) if datatype == "BYTES" else _as_numbers(value, NUMPY_TYPE[datatype])


def readable(value: Any) -> Any:
    """`value` as numpy can read it: torch's BF16 is converted. Raises InvalidInputError where a value is missing."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, list | tuple):
        return value if _PLAIN.issuperset(map(type, value)) else [readable(item) for item in value]
    if _lacks_values(value):
        raise InvalidInputError("has masked or missing values (fill them in first)")
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":  # numpy has no such type, so torch refuses to convert it
        return np.asarray(value.view(sys.modules["torch"].int16)).view(NUMPY_TYPE["BF16"])
    return value


def _lacks_values(value: Any) -> bool:
    """Whether an array or table has gaps, behind which numpy would read other values or NaN."""
    if isinstance(value, np.ma.MaskedArray):
        return bool(np.ma.getmaskarray(value).any())  # type: ignore[no-untyped-call]
    if hasattr(value, "itercolumns"):  # a table of Arrow
        return any(map(_lacks_values, value.itercolumns()))
    if hasattr(value, "null_count"):  # a column of Arrow, or of polars
        return bool(np.any(np.asarray(value.null_count() if callable(value.null_count) else value.null_count)))
    if hasattr(value, "isna"):  # pandas, where NaN of numpy's own types is a value
        types = value.dtypes if hasattr(value, "columns") else [value.dtype]
        return not all(isinstance(dtype, np.dtype) for dtype in types) and bool(np.any(np.asarray(value.isna())))
    return False


def _as_numbers(value: Any, wanted: np.dtype[Any]) -> Array:
    array = given = np.asarray(value)
    if isinstance(value, list | tuple | int | float | np.generic):
        if given.dtype.kind == "f" and wanted == np.uint64:  # numpy's reading of integers on both sides of 2**63
            whole = np.array(value, dtype=object)
            if all(isinstance(item, int | np.integer) and 0 <= item < 2**64 for item in whole.flat):
                array = given = whole.astype(np.uint64)
        if _converts(given, wanted):
            with np.errstate(over="ignore"):
                array = given.astype(wanted)
            if wanted.kind in "fV" and np.any(np.isinf(array) & np.isfinite(given)):
                raise InvalidInputError("has a number too large")
            with np.errstate(invalid="ignore"):
                if given.dtype.kind in "iu" and not np.array_equal(array.astype(given.dtype), given):
                    raise InvalidInputError(
                        "has a whole number that would be rounded (write it as a float to allow that)"
                    )
    if array.dtype.newbyteorder("=") != wanted:
        what = f"a {type(value).__name__}" if array.dtype.kind == "O" and array.ndim == 0 else describe(array)
        remedy = ": turn it with array.astype(ml_dtypes.bfloat16)" if wanted == NUMPY_TYPE["BF16"] else ""
        raise InvalidInputError(f"is {what}{remedy}")
    return array.astype(wanted, copy=False)


def _converts(given: Array, wanted: np.dtype[Any]) -> bool:
    """Whether the kind of numbers written in Python may become that of `wanted`."""
    if given.dtype.kind in "iub" and wanted.kind in "iu":
        return np.array_equal(given, given.astype(wanted))
    return given.dtype.kind in "iufb" and (wanted.kind in "fV" or np.can_cast(given.dtype, wanted, "same_kind"))


def _as_text(value: Any) -> Array:
    value = [value] if isinstance(value, str | bytes) else value
    if isinstance(value, np.ndarray):
        array = value.astype(object) if value.dtype.kind in "SUT" else np.asarray(value)
    else:  # not without dtype=object: numpy would cut trailing NUL bytes off
        array = np.array(value, dtype=object)
        if not array.size or isinstance(array.flat[0], int):  # what it makes of a bytearray
            array = np.array(_without_bytearrays(value), dtype=object)
        array = array if array.ndim else array.reshape(1)
    if array.dtype.kind != "O":
        raise InvalidInputError(f"is {describe(array)}")
    if not all(isinstance(item, str | bytes | bytearray) for item in array.ravel()):
        raise InvalidInputError("has other values than str and bytes")
    return array


def _without_bytearrays(value: Any) -> Any:
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.size):
        return [_without_bytearrays(item) for item in value]
    return bytes(value) if isinstance(value, bytearray) else value
