"""Requests from a file with one JSON object of inputs per line.

    {"text": ["play some jazz"]}
    {"image": ["@pictures/seven.png"]}

A value is what the model takes as a nested list. A text that starts with @ names a file (beside the JSON file) whose
bytes are meant; @@ stands for a text's own @. For a model that keeps state a line is a sequence, and the first axis of
each value counts its requests:

    {"x": [[1], [2], [3]]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clients import Client, InferenceError, ModelSpec, codec
from loadtests.errors import BadRequestError, InputFileError
from loadtests.target.access import Access
from loadtests.target.parameters import Payload
from loadtests.workload.lines import read_lines
from loadtests.workload.workload import ModelWeight

_EXAMPLE = '{"text": ["play some jazz"]}'


def files_of(entries: Sequence[str], models: Sequence[str]) -> dict[str, Path]:
    """The file of each model that has one, from `FILE` for a workload of one model or `MODEL=FILE` for each of several.

    Raises BadRequestError quoting what is neither.
    """
    files: dict[str, Path] = {}
    for entry in entries:
        model, equals, file = entry.partition("=")
        if len(models) == 1 and model not in models:
            model, equals, file = models[0], "=", entry  # the path itself may have an equals sign
        if not (equals and file and model in models) or model in files:
            raise BadRequestError(
                f"inputs {entry!r} are not understood; give FILE for a workload of one model, MODEL=FILE once for each "
                f"of several (the workload is {', '.join(models)})",
                field="inputs",
            )
        files[model] = Path(file)
    return files


def with_inputs(
    shares: Sequence[ModelWeight], files: Mapping[str, Path], server: str, access: Access | None = None
) -> list[ModelWeight]:
    """The shares with the requests of their files; a model without a file is left as it is. Raises InputFileError."""
    return [
        replace(
            share,
            payloads=read_inputs(files[share.model], server, share.model, access),
            source=files[share.model].name,
            file=files[share.model],
        )
        if share.model in files
        else share
        for share in shares
    ]


def read_inputs(path: Path, server: str, model: str, access: Access | None = None) -> list[Payload]:
    """An encoded request per line, or a sequence of them. Raises InputFileError, with the line that is wrong."""
    lines = read_lines(path)
    if not lines:
        raise InputFileError(path, None, f"has no requests: write one per line, such as {_EXAMPLE}")
    access = access or Access()
    with Client(server, tls=access.tls, headers=access.headers) as client:
        spec = client.model(model).spec
        in_sequences = spec.sequence or any(client.model(step).spec.sequence for step in spec.steps)
    return [encode_line(spec, path, number, line, in_sequences=in_sequences) for number, line in lines]


def encode_line(spec: ModelSpec, path: Path, number: int, line: str, *, in_sequences: bool = False) -> Payload:
    """One request, or one sequence of them. Raises InputFileError."""
    try:
        named = json.loads(line, object_pairs_hook=_once_each)
        if not isinstance(named, dict):
            raise InputFileError(path, number, f"is not an object of inputs, such as {_EXAMPLE}")
        named = {name: _with_files(value, path.parent) for name, value in named.items()}
        return encode_sequence(spec, named) if in_sequences else codec.encode(spec, named)
    except InputFileError:
        raise
    except OSError as error:
        hint = "write @@ for a text that begins with @"
        problem = f"cannot read {error.filename}: {error.strerror}; {hint}"
        raise InputFileError(path, number, problem) from error
    except (ValueError, RecursionError, InferenceError) as error:
        raise InputFileError(path, number, str(error)) from error


def encode_sequence(spec: ModelSpec, named: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The requests of a sequence; the first axis of each input counts them. The batch axis may be left out.

    Raises ValueError for inputs of which no sequence can be made, InvalidInputError for a request that does not fit.
    """
    lengths = {name: len(values) for name, values in named.items() if isinstance(values, list | np.ndarray)}
    if lengths.keys() < named.keys() or len({*lengths.values()}) != 1 or not all(lengths.values()):
        each = ", ".join(f"{name} {lengths.get(name, 'not a list')}" for name in named) or "no inputs"
        raise ValueError(
            f"is not a sequence of requests to {spec.name}, which keeps state: write for each input a list with one "
            f"value per request ({each})"
        )
    (count,) = {*lengths.values()}
    return tuple(
        codec.encode(spec, {name: _batched(spec, name, values[number]) for name, values in named.items()})
        for number in range(count)
    )


def _batched(spec: ModelSpec, name: str, value: Any) -> Any:
    """With a batch axis of 1 where the model has one and the value has all others alone."""
    is_row = spec.batched and name in spec.inputs and np.ndim(value) == len(spec.inputs[name].dims)
    return np.asarray(value)[None] if is_row and isinstance(value, np.ndarray) else [value] if is_row else value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} comes twice")
    return named


def _with_files(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_with_files(entry, folder) for entry in value]
    if isinstance(value, str) and value.startswith("@"):
        return value[1:] if value.startswith("@@") else (folder / value[1:]).read_bytes()
    return value
