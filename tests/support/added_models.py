"""Add an ONNX file to a repository in a test, and read back what was drafted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.add.add import Addition, AddOptions, add
from export.config import config as configs


def add_onnx(repository: Path, path: Path, **options: Any) -> tuple[Addition, Any]:
    """Add an ONNX file as `mine`; returns the addition and the parsed config.pbtxt."""
    made = add("mine", AddOptions("onnx", str(path), **options), repository)
    return made, configs.load(repository / "mine" / "config.pbtxt").message


def dims(message: Any) -> dict[str, list[int]]:
    """The dims of every input and output of a configuration, by name."""
    return {tensor.name: list(tensor.dims) for tensor in (*message.input, *message.output)}


def notes_with(made: Addition, words: str) -> list[str]:
    """The notes of an addition that hold these words."""
    return [note for note in made.notes if words in note]
