"""Requests that a person wrote down: a file with one JSON object of inputs per line.

    {"text": ["play some jazz"]}
    {"image": ["@pictures/seven.png"]}

A value is what the model takes as a nested list; a text that starts with @ names a file (beside the JSON file) whose
bytes are meant.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clients import Client, InferenceError, codec
from loadtests.errors import BadRequestError


def read_inputs(path: Path, server: str, model: str) -> list[bytes]:
    """An encoded request per line; BadRequestError names the file and the line that is wrong."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequestError(f"cannot read the inputs {path}: {error}") from error
    requests = []
    with Client(server) as client:
        spec = client.model(model).spec
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                named = json.loads(line)
                if not isinstance(named, dict):
                    raise BadRequestError('not an object of inputs, such as {"text": ["play some jazz"]}')
                named = {name: _with_files(value, path.parent) for name, value in named.items()}
                requests.append(codec.encode(spec, named))
            except (ValueError, OSError, InferenceError) as error:
                raise BadRequestError(f"{path} line {number}: {error}") from error
    if not requests:
        raise BadRequestError(f'{path} holds no requests; write one per line, such as {{"text": ["play some jazz"]}}')
    return requests


def _with_files(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_with_files(entry, folder) for entry in value]
    if isinstance(value, str) and value.startswith("@"):
        return (folder / value[1:]).read_bytes()
    return value
