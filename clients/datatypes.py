"""Triton's tensor types and their numpy twins."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

NUMPY_TYPE: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
TRITON_TYPE = {dtype: name for name, dtype in NUMPY_TYPE.items()}


def describe(array: Array) -> str:
    """The Triton type of an array's elements, for messages."""
    return "BYTES" if array.dtype.kind in "SU" else TRITON_TYPE.get(array.dtype.newbyteorder("="), str(array.dtype))
