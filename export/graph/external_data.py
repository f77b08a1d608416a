"""Tensors of an ONNX model that lie in files beside it (external data): where they are, and how they move along."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from export import files
from export.errors import ContractError, FileError
from export.graph import edit, onnx_stream

SUFFIX = ".data"


def tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of a graph and of the graphs inside its nodes."""
    yield from graph.initializer
    for node in edit.nodes(graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for inner in edit.inner_graphs(node):
            yield from inner.initializer


def locations(model: Any) -> dict[str, int]:
    """The files that hold external tensors, as the model names them, each with the bytes that it must have."""
    found: dict[str, int] = {}
    for tensor in tensors(model.graph):
        if tensor.data_location != tensor.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        if location := place.get("location"):
            end = sum(int(place[key]) for key in ("offset", "length") if place.get(key, "").isdecimal())
            found[location] = max(found.get(location, 0), end)
    return found


def check(model: Any, path: Path) -> None:
    """Raise ContractError for an external file that is missing, cut short, or outside the model's own folder.

    A hub's cache links the model and its data into one folder from another: both are the model's own.
    """
    homes = (path.parent.resolve(), path.resolve().parent)
    for location, size in locations(model).items():
        try:
            target = files.find(homes[0], location, homes[1])
        except FileNotFoundError:
            raise ContractError(
                f"{path.name} keeps tensors in '{location}', which is not beside it",
                remedy="copy that file along with the model",
                file=location,
            ) from None
        except FileError as error:
            raise ContractError(
                f"{path.name} keeps tensors in '{location}', which {error.why}",
                remedy="put the file beside the model and save the model again with that location",
                file=location,
            ) from None
        present = target.stat().st_size
        if present < size:
            raise ContractError(
                f"{path.name} keeps tensors in the first {size} bytes of '{location}', which has {present}",
                remedy="copy that file again, whole",
                file=location,
                found=present,
                expected=size,
            )


def beside(path: Path) -> dict[str, Path]:
    """The files beside an ONNX file that hold its tensors, by the names the model gives them."""
    model = onnx_stream.read_without_weights(path)
    return {location: path.parent / location for location in locations(model)}


def copy(path: Path, target: Path) -> None:
    """Copy an ONNX file, and the files that hold its tensors, to where `target` lies."""
    shutil.copyfile(path, target)
    for location, data in beside(path).items():
        if not (target.parent / location).exists():
            shutil.copyfile(data, target.parent / location)


def save(model: Any, path: Path, home: Path) -> None:
    """Write a model whose external files lie in `home`; they are copied beside it, to model.onnx.data."""
    import onnx

    names = {location: f"model.onnx{SUFFIX}{index or ''}" for index, location in enumerate(locations(model))}
    for location, name in names.items():
        target = path.parent / name
        if target.exists():
            continue  # copied for an earlier edit of the same graph
        shutil.copyfile(home / location, target)  # never linked: the source may be written again
    for tensor in tensors(model.graph):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = names.get(entry.value, entry.value)
    onnx.save(model, str(path))
