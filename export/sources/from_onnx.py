"""Import an ONNX file."""

from __future__ import annotations

import re
from pathlib import Path

from export.errors import ContractError, ExportError
from export.graph import external_data
from export.graph.onnx_file import session
from export.sources import validation, zipmap
from export.sources.base import ImportedModel

OLDEST_OPSET = 7
"""From which on ONNX Runtime promises every operator; some older ones run, too."""


def load(source: str, home: Path) -> ImportedModel:
    """Import the file; its answers are those of ONNX Runtime on the file as it is."""
    del home
    path = Path(source)
    model = validation.read_onnx(path)
    keys = zipmap.cut(model)
    validation.check_graph(model, path, None)
    try:
        predict = session(path)
    except ExportError as error:
        opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), OLDEST_OPSET)
        if found := re.search(r"is till opset (\d+)", str(error)):
            raise ContractError(
                f"{path.name} has opset {opset}, and the ONNX Runtime here loads up to {found[1]}",
                remedy=f"export it with opset {found[1]} or older",
            ) from error
        if opset >= OLDEST_OPSET:
            raise
        raise ContractError(
            f"{path.name} has opset {opset}, and ONNX Runtime has operators from {OLDEST_OPSET} on",
            remedy="convert it with onnx.version_converter.convert_version(model, 13)",
        ) from error

    def raw(room: Path) -> Path:
        if not keys:
            return path
        external_data.save(model, room / "raw.onnx", path.parent)
        return room / "raw.onnx"

    return ImportedModel(
        f"ONNX file '{path.name}'",
        zipmap.as_numbers(predict, keys) if keys else predict,
        raw,
        notes=tuple(
            f"'{name}' was a map for each row (ZipMap): now it is {len(classes)} numbers, in the map's order"
            for name, classes in keys.items()
        ),
        labels={name: tuple(map(str, classes)) for name, classes in keys.items()},
    )
