"""An ONNX file as somebody brought it."""

from __future__ import annotations

from pathlib import Path

from export import refusals
from export.brought import Brought
from export.onnx_file import session


def load(source: str, home: Path) -> Brought:
    """The file as a source; its answers are those of ONNX Runtime on the file as it is."""
    del home
    path = Path(source)
    model = refusals.onnx_file(path)
    refusals.graph(model, path, None)
    return Brought(f"ONNX file '{path.name}'", session(path), lambda room: path)
