"""Convert `name=value` and `name=@file` arguments to named arrays of the types that the model's metadata gives."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clients import ModelSpec, TensorSpec
from clients.datatypes import NUMPY_TYPE
from export.errors import did_you_mean
from fathom.console import audio
from fathom.console.arguments import UsageError
from fathom.console.images import SUFFIXES, as_pixels
from loadtests.errors import InputFileError
from loadtests.workload.lines import decode

Array = np.ndarray[Any, Any]


def parse(spec: ModelSpec, arguments: Sequence[str]) -> dict[str, Array]:
    """Arrays with the batch axis in front. A name given several times makes a batch.

    Text inputs take the value as it is, or a file's bytes. Numeric ones take a number, a JSON list, or a .npy, .json,
    image or sound file. `@-` is standard input, and `@@` a text's own @. Raises UsageError naming the argument.
    """
    given: dict[str, list[Any]] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            first = name if name in spec.inputs else next(iter(spec.inputs), "name")
            form = f"{first}={argument}" if argument[:1] == "@" else f"{first}=value or {first}=@file"
            raise UsageError(f"'{argument}' is not an input of '{spec.name}': write {form}")
        if name not in spec.inputs:
            near = did_you_mean(name, spec.inputs)
            raise UsageError(f"'{spec.name}' has no input '{name}'{near}: it takes {signature(spec)}")
        given.setdefault(name, []).append(_value(spec, spec.inputs[name], value))
    missing = [name for name, tensor in spec.inputs.items() if name not in given and not tensor.optional]
    if missing:
        form = f"{missing[0]}=@file" if spec.inputs[missing[0]].datatype == "BYTES" else f"{missing[0]}=value"
        raise UsageError(f"input '{missing[0]}' of '{spec.name}' is missing: add {form}; it takes {signature(spec)}")
    return {name: _batch(spec, spec.inputs[name], values) for name, values in given.items()}


def forgotten_at(arguments: Sequence[str]) -> str:
    """A hint for a file that was named without its @, and so was sent as text; empty where there is none."""
    for argument in arguments:
        name, _, value = argument.partition("=")
        if value and not value.startswith("@") and Path(value).is_file():
            return f"; to send the file, write {name}=@{value}"
    return ""


def signature(spec: ModelSpec) -> str:
    """The model's inputs in one line."""
    return ", ".join(f"{t.name} ({t.datatype} {t.shape_text(spec.batched)})" for t in spec.inputs.values())


def _value(spec: ModelSpec, tensor: TensorSpec, text: str) -> Any:
    """One argument's value: bytes of one text, or an array."""
    if text.startswith("@") and not text.startswith("@@"):
        return _from_file(spec, tensor, text[1:])
    if tensor.datatype == "BYTES":
        return text.removeprefix("@").encode() if text.startswith("@@") else text.encode()
    return _from_json(tensor, text, f"'{_shorten(text)}'")


def _from_file(spec: ModelSpec, tensor: TensorSpec, name: str) -> Any:
    path = Path(name)
    try:
        data = sys.stdin.buffer.read() if name == "-" else path.read_bytes()
    except OSError as error:
        hint = "; write @@ for a text that begins with @" if tensor.datatype == "BYTES" else ""
        raise UsageError(f"input '{tensor.name}': cannot read '{path}': {error.strerror}{hint}") from error
    suffix = path.suffix.lower()
    if suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except ValueError as error:
            raise UsageError(
                f"input '{tensor.name}': '{path}' is not a .npy file of numbers or texts: {error}"
            ) from error
        return array.astype(object) if tensor.datatype == "BYTES" and array.dtype.kind in "SU" else array
    if tensor.datatype == "BYTES" and suffix not in (".json", ".txt", ".md"):
        return data
    if suffix in audio.SUFFIXES and tensor.datatype != "BYTES":
        return audio.as_chunks(tensor, data, path)
    if suffix in SUFFIXES:
        return as_pixels(tensor, data, path)
    try:
        text = decode(data, path)
    except InputFileError as error:
        raise UsageError(f"input '{tensor.name}': {error}") from error
    if tensor.datatype == "BYTES" and suffix != ".json":
        return text.removesuffix("\n").removesuffix("\r").encode()
    return _from_json(tensor, text, f"'{path}'")


def _from_json(tensor: TensorSpec, text: str, where: str) -> Any:
    try:
        value = json.loads(text.lower() if tensor.datatype == "BOOL" else text)
        if tensor.datatype != "BYTES":
            return np.asarray(value)
        if all(isinstance(item, str) for item in np.array(value, object).flat):
            return np.vectorize(str.encode, otypes=[object])(np.array(value, object))
    except (ValueError, TypeError) as error:
        if tensor.datatype != "BYTES":
            raise UsageError(
                f"input '{tensor.name}' takes {tensor.datatype}: {where} is not a number, a JSON list, or a .npy, "
                ".json or image file given as @file"
            ) from error
    raise UsageError(f"input '{tensor.name}' takes texts: {where} is not a JSON text or list of texts")


def _batch(spec: ModelSpec, tensor: TensorSpec, values: list[Any]) -> Array:
    if tensor.datatype == "BYTES":
        return _batch_of_texts(spec, tensor, values)
    rows = [_row(tensor, value) for value in values]
    if len(rows) > 1 and not spec.batched:
        raise UsageError(
            f"input '{tensor.name}' was given {len(rows)} times, but '{spec.name}' does not batch: give it once"
        )
    if not spec.batched or (len(rows) == 1 and rows[0].ndim > len(tensor.dims)):
        return rows[0]
    try:
        return np.stack(rows)
    except ValueError as error:
        shapes = " and ".join(sorted({str(list(row.shape)) for row in rows}))
        raise UsageError(f"the values of input '{tensor.name}' need one shape, and have {shapes}") from error


def _batch_of_texts(spec: ModelSpec, tensor: TensorSpec, values: list[Any]) -> Array:
    if len(values) == 1 and isinstance(values[0], np.ndarray):
        return values[0] if values[0].ndim else values[0].reshape(1)
    texts = [text for value in values for text in (value.ravel() if isinstance(value, np.ndarray) else [value])]
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array.reshape(-1, 1) if spec.batched and tensor.dims in ((1,), (-1,)) else array


def _row(tensor: TensorSpec, value: Array) -> Array:
    if value.ndim == 0 and tensor.dims == (1,):
        value = value.reshape(1)
    wanted = NUMPY_TYPE[tensor.datatype]
    if value.dtype.kind in "iufb" and (wanted.kind in "fV" or np.array_equal(value, value.astype(wanted))):
        return value.astype(wanted)  # numbers typed by a person have no width of their own
    return value


def _shorten(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[:limit] + "..."
