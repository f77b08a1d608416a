"""The record beside a plan, `1/model.plan.json`: what the engine was built from, by what, for what, and how it answers.

Without it a plan is bytes that some GPU may run. `fathom check` reads it, and an export finds by it that nothing
changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export import files
from export.command import export_again
from export.engine.gpu import Gpu
from export.errors import EngineError, FileError
from export.recipe.measure import Parity
from export.repository.manifest import ChangedFile, FileRecord, changed_files, file_records_from_json

FORMAT = 1
SUFFIX = ".json"
LAYERS_SUFFIX = ".layers.json"


@dataclass(frozen=True)
class EngineRecord:
    """One engine. `key` is all that determines the build; `files` are the hashes of what was published, by path in
    the model folder; `parity` is against ONNX Runtime on the same ONNX file; `accuracy` the recipe's figures."""

    plan: str
    onnx_sha256: str
    tensorrt: str
    gpu: Gpu
    options: Mapping[str, Any]
    profiles: list[dict[str, Any]]
    files: Mapping[str, FileRecord]
    parity: Parity
    accuracy: Mapping[str, float]
    batch1_ms: float
    build_seconds: float
    created: str
    warnings: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What the plan follows from, as text to compare."""
        made = [self.onnx_sha256, self.tensorrt, self.gpu.name, self.gpu.compute_capability]
        return json.dumps([*made, dict(self.options), self.profiles], sort_keys=True)

    @property
    def version_compatible(self) -> bool:
        """Whether newer TensorRT versions may run the plan."""
        return bool(self.options.get("version_compatible"))

    def to_json(self) -> dict[str, Any]:
        """The file's content, and the engine of `--json`."""
        return {"format": FORMAT, **asdict(self), "files": {name: vars(file) for name, file in self.files.items()}}

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def changed_files(self, folder: Path) -> list[ChangedFile]:
        """The recorded files of the version folder that are missing or are not what was published."""
        return changed_files(folder, {name: file for name, file in self.files.items() if name.startswith("1/")})


def read(path: Path) -> EngineRecord | None:
    """The record of a plan (`path` is the plan's), or None where there is none.

    Raises EngineError when it cannot be understood.
    """
    file, again = path.with_name(path.name + SUFFIX), export_again(path.parent.parent, "--engine", "--force")
    try:
        content = files.read_json(file)
    except FileNotFoundError:
        return None
    except FileError as error:
        raise EngineError(error.what, remedy=again, file=file) from None
    try:
        if content.pop("format") != FORMAT:
            raise EngineError(
                f"{file} has another format than {FORMAT}",
                remedy=again,
                file=file,
                field="format",
                expected=FORMAT,
            )
        content["gpu"] = Gpu(**{name: str(text) for name, text in content["gpu"].items()})
        content["parity"] = Parity(**{name: float(figure) for name, figure in content["parity"].items()})
        content["files"] = file_records_from_json(content["files"])
        content["warnings"] = tuple(content["warnings"])
        content["onnx_sha256"], content["tensorrt"] = str(content["onnx_sha256"]), str(content["tensorrt"])
        content["options"] = dict(content["options"])
        return EngineRecord(**content)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise EngineError(f"{file} is not an engine's record ({error!r})", remedy=again, file=file) from None


def plans(folder: Path) -> list[Path]:
    """Every plan in a model's version folder 1."""
    return sorted((folder / "1").glob("*.plan"))


def records(folder: Path) -> list[EngineRecord]:
    """The records of a model folder that can be read."""
    found = []
    for path in plans(folder):
        try:
            record = read(path)
        except EngineError:
            continue
        if record is not None:
            found.append(record)
    return found
