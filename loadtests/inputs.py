"""Requests that a person wrote down: a file with one JSON object of inputs per line.

    {"text": ["play some jazz"]}
    {"image": ["@pictures/seven.png"]}

A value is what the model takes as a nested list. A text that starts with @ names a file (beside the JSON file) whose
bytes are meant; @@ stands for a text's own @.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clients import Client, InferenceError, codec
from loadtests.errors import InputFileError
from loadtests.lines import read_lines

_EXAMPLE = '{"text": ["play some jazz"]}'


def read_inputs(path: Path, server: str, model: str) -> list[bytes]:
    """An encoded request per line. Raises InputFileError, with the line that is wrong."""
    lines = read_lines(path)
    if not lines:
        raise InputFileError(path, None, f"holds no requests; write one per line, such as {_EXAMPLE}")
    requests = []
    with Client(server) as client:
        spec = client.model(model).spec
        for number, line in lines:
            try:
                named = json.loads(line, object_pairs_hook=_once_each)
                if not isinstance(named, dict):
                    raise InputFileError(path, number, f"is not an object of inputs, such as {_EXAMPLE}")
                named = {name: _with_files(value, path.parent) for name, value in named.items()}
                requests.append(codec.encode(spec, named))
            except InputFileError:
                raise
            except OSError as error:
                hint = "write @@ for a text that begins with @"
                said = f"cannot read {error.filename}: {error.strerror}; {hint}"
                raise InputFileError(path, number, said) from error
            except (ValueError, RecursionError, InferenceError) as error:
                raise InputFileError(path, number, str(error)) from error
    return requests


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
