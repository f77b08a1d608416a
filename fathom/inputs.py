"""`name=value` and `name=@file` arguments as named arrays, typed by what the model says it takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clients import ModelSpec, TensorSpec
from clients.datatypes import NUMPY_TYPE
from fathom.errors import UsageError


def parse(spec: ModelSpec, arguments: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays with the batch axis in front. A name given several times makes a batch.

    Text inputs take the value as it is, or a file's bytes. Numeric ones take a number, a JSON list, or a .npy or .json
    file. Raises UsageError naming the argument.
    """
    given: dict[str, list[Any]] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise UsageError(f"'{argument}' is no input: write {name or 'name'}=value or {name or 'name'}=@file")
        if name not in spec.inputs:
            raise UsageError(f"'{spec.name}' has no input '{name}': it takes {signature(spec)}")
        given.setdefault(name, []).append(_value(spec.inputs[name], value))
    missing = [name for name, tensor in spec.inputs.items() if name not in given and not tensor.optional]
    if missing:
        raise UsageError(f"input '{missing[0]}' of '{spec.name}' is missing: it takes {signature(spec)}")
    return {name: _batch(spec, spec.inputs[name], values) for name, values in given.items()}


def signature(spec: ModelSpec) -> str:
    """The model's inputs in one line."""
    return ", ".join(f"{t.name} ({t.datatype} {t.shape_text(spec.batched)})" for t in spec.inputs.values())


def _value(tensor: TensorSpec, text: str) -> Any:
    if text.startswith("@"):
        path = Path(text[1:])
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"input '{tensor.name}': cannot read '{path}': {error.strerror}") from error
        if tensor.datatype == "BYTES":
            return data
        if path.suffix == ".npy":
            try:
                return np.load(path, allow_pickle=False)
            except ValueError as error:
                raise UsageError(f"input '{tensor.name}': '{path}' is no .npy file: {error}") from error
        text = data.decode(errors="replace")
    if tensor.datatype == "BYTES":
        return text.encode()
    try:
        return np.asarray(json.loads(text))
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"input '{tensor.name}' takes {tensor.datatype}: '{_shorten(text)}' is neither a number, a JSON list "
            "nor a .npy file given as @file"
        ) from error


def _batch(spec: ModelSpec, tensor: TensorSpec, values: list[Any]) -> np.ndarray[Any, Any]:
    if tensor.datatype == "BYTES":
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array.reshape(-1, *tensor.dims[1:]) if tensor.dims == (1,) else array
    rows = [_row(tensor, value) for value in values]
    if not spec.batched or (len(rows) == 1 and rows[0].ndim > len(tensor.dims)):
        return rows[0]
    try:
        return np.stack(rows)
    except ValueError as error:
        raise UsageError(f"the values of input '{tensor.name}' differ in shape: {error}") from error


def _row(tensor: TensorSpec, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if value.ndim == 0 and tensor.dims == (1,):
        value = value.reshape(1)
    wanted = NUMPY_TYPE[tensor.datatype]
    if value.dtype.kind in "iufb" and (wanted.kind in "fV" or np.array_equal(value, value.astype(wanted))):
        return value.astype(wanted)  # numbers typed by a person have no width of their own
    return value


def _shorten(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[:limit] + "..."
