"""The manifest beside an artefact: what it was made from, with what, how it measured, and the hash of every file."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from export import files
from export.command import export_again
from export.errors import FileError, RecipeError
from export.graph.signature import Signature
from export.precision.precision import FP32, INT8, Target
from export.recipe.measure import Measurement
from export.recipe.recipe import Recipe, Weights

FORMAT = 1
FILE = "1/manifest.json"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""Distributions whose versions determine every export."""


@dataclass(frozen=True)
class FileRecord:
    """A file's identity."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class ChangedFile:
    """A published file, by its path in the model folder, that is no longer what was published."""

    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.name} {self.message}"


@dataclass(frozen=True)
class Manifest:
    """A manifest as read from or written to `<model>/1/manifest.json`.

    `files` maps paths in the model folder to their records. `build` is what the files follow from (see `build_record`),
    empty in a manifest from before builds had numbers. `of` is set for a companion: the main model's name and the hash
    of its weights, by which a mismatched pair is known. `stations` and `signature` are set for a model. `reduction`
    says how the graph was brought to a precision below FP32, and how far it is from the FP32 graph.
    """

    model: str
    created: str
    files: Mapping[str, FileRecord]
    build: Mapping[str, Any]
    source: Mapping[str, Any]
    of: str | None = None
    precision: str = FP32
    reduction: Mapping[str, Any] | None = None
    versions: Mapping[str, int] | None = None
    packages: Mapping[str, str] | None = None
    signature: Signature | None = None
    stations: Mapping[str, Measurement] | None = None
    build_seconds: float | None = None

    @property
    def source_sha256(self) -> str:
        """One hash of everything the model was made from."""
        return str(self.source["sha256"])

    def to_json(self) -> dict[str, Any]:
        """The file's content as a plain dictionary."""
        record: dict[str, Any] = {
            "format": FORMAT,
            "model": self.model,
            "created": self.created,
            "build": dict(self.build),
            "source": dict(self.source),
            "files": {name: vars(file) for name, file in sorted(self.files.items())},
        }
        if self.of is not None:
            return {**record, "companion_of": self.of}
        stations = self.stations or {}
        return {
            **record,
            "precision": self.precision,
            "reduction": dict(self.reduction) if self.reduction is not None else None,
            "versions": dict(self.versions or {}),
            "packages": dict(self.packages or {}),
            "signature": self.signature.to_json() if self.signature else None,
            "stations": {name: measured.to_json() for name, measured in stations.items()},
            "build_seconds": self.build_seconds,
        }

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def read(model_folder: Path) -> Manifest | None:
        """The manifest of a model folder, or None where there is none.

        Raises RecipeError when it cannot be understood.
        """
        path, again = model_folder / FILE, export_again(model_folder, "--force")
        try:
            record = files.read_json(files.find(model_folder, FILE))
        except FileNotFoundError:
            return None
        except FileError as error:
            raise RecipeError(error.what, remedy=again, file=path) from None
        try:
            _typed(record, "it", dict)
            if record["format"] != FORMAT:
                found = record["format"]
                raise RecipeError(
                    f"{path} has format {found}, this version reads {FORMAT}",
                    remedy=again,
                    file=path,
                    field="format",
                    found=found,
                    expected=FORMAT,
                )
            source = _typed(record["source"], "source", dict)
            signature = _typed(record.get("signature"), "signature", dict, optional=True)
            stations = _typed(record.get("stations"), "stations", dict, optional=True)
            return Manifest(
                model=_typed(record["model"], "model", str),
                created=_typed(record["created"], "created", str),
                files=file_records_from_json(record["files"]),
                build=_typed(record.get("build", {}), "build", dict),
                source={**source, "sha256": _typed(source["sha256"], "source.sha256", str)},
                of=_typed(record.get("companion_of"), "companion_of", str, optional=True),
                precision=_typed(record.get("precision", FP32), "precision", str),
                reduction=_typed(record.get("reduction"), "reduction", dict, optional=True),
                versions=_typed(record.get("versions"), "versions", dict, optional=True),
                packages=_typed(record.get("packages"), "packages", dict, optional=True),
                signature=Signature.from_json(signature) if signature else None,
                stations={name: Measurement.from_json(each) for name, each in stations.items()} if stations else None,
                build_seconds=_typed(record.get("build_seconds"), "build_seconds", float, optional=True),
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            why = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise RecipeError(f"{path} is not a manifest ({why})", remedy=again, file=path) from None

    def changed_files(self, model_folder: Path) -> list[ChangedFile]:
        """The published files that are missing or no longer what was published."""
        return changed_files(model_folder, self.files)


def source_record(recipe: Recipe, weights: Weights) -> dict[str, Any]:
    """Where the model comes from: a description, its licence, each file's hash, and one hash over all.

    A model that is trained at export has no files: its recipe's name and build number stand for them.
    """
    files = {name: vars(file_record(path)) for name, path in weights.files.items()}
    made: dict[str, Any] = {"recipe": recipe.name, "build": recipe.BUILD}
    return {
        "description": weights.description,
        "licence": weights.licence or None,
        "trained_here": weights.trained_here,
        "custom_weights": weights.custom,
        "files": files,
        "sha256": _digest([files or made]),
    }


def build_record(recipe: Recipe, source: Mapping[str, Any], exporter: int, target: Target) -> dict[str, Any]:
    """All that determines the files of an export; where it is the same, they need not be built again.

    `exporter` is the exporter's build number.
    """
    return {
        "exporter": exporter,
        "recipe": recipe.BUILD,
        "precision": target.precision,
        "excluded": list(target.excluded),
        "int8_for": target.runtime if target.precision == INT8 else None,
        "source": source["sha256"],
        "custom_weights": source["custom_weights"],
        "data": {path.name: files.sha256(path) for path in recipe.data()},
        "packages": _installed((*PACKAGES, *recipe.packages)),
    }


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What changed between two records of `build_record`, in words; None where nothing did."""
    if not before:
        return "its manifest is from before builds had numbers"
    for name, words in _CHANGED.items():
        was, value = before.get(name), now[name]
        if was == value:
            continue
        if isinstance(value, Mapping):
            old = was if isinstance(was, Mapping) else {}
            name = next(key for key in (*value, *old) if old.get(key) != value.get(key))
            was, value = old.get(name), value.get(name)
        return words.format(name=name, was=was, now=value)
    return None


_CHANGED = {
    "exporter": "the exporter's build number is {now}, it was {was}",
    "recipe": "the recipe's build number is {now}, it was {was}",
    "precision": "the precision is {now}, it was {was}",
    "excluded": "{now} are kept in FP32, it was {was}",
    "int8_for": "INT8 is made for {now}, it was for {was}",
    "source": "the weights are others",
    "custom_weights": "the weights are others",
    "data": "{name} has changed",
    "packages": "{name} is {now}, it was {was}",
}


def package_versions(recipe: Recipe) -> dict[str, str]:
    """The versions of Python, NumPy and what determines the build; a package that is not installed is left out."""
    return {"python": platform.python_version(), **_installed(("numpy", *PACKAGES, *recipe.packages))}


def _installed(packages: Iterable[str]) -> dict[str, str]:
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def changed_files(folder: Path, records: Mapping[str, FileRecord]) -> list[ChangedFile]:
    """The recorded files in a model folder that are missing or differ from what was published."""
    changed = []
    for name, record in records.items():
        if problem := files.problem(folder, name):
            changed.append(ChangedFile(name, problem))
        elif (found := files.sha256(folder / name)) != record.sha256:
            changed.append(
                ChangedFile(name, f"was changed: SHA-256 {found[:12]}..., {record.sha256[:12]}... was published")
            )
    return changed


def file_record(path: Path) -> FileRecord:
    """A file's hash and size."""
    return FileRecord(files.sha256(path), path.stat().st_size)


def file_records(files: Mapping[str, Path]) -> dict[str, FileRecord]:
    """The records of several files by name."""
    return {name: file_record(path) for name, path in files.items()}


def file_records_from_json(record: Any) -> dict[str, FileRecord]:
    """The inverse of a manifest's `files`. Raises TypeError or KeyError for what is none."""
    records = {}
    for name, file in _typed(record, "files", dict).items():
        place = f"files[{json.dumps(name)}]"
        _typed(file, place, dict)
        sha256, size = _typed(file["sha256"], f"{place}.sha256", str), _typed(file["bytes"], f"{place}.bytes", int)
        records[name] = FileRecord(sha256, size)
    return records


def now() -> str:
    """The time in UTC, to the second: 2026-11-22T20:15:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _digest(parts: Mapping[str, Any] | Iterable[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


_KINDS: Mapping[type, tuple[type | tuple[type, ...], str]] = {
    str: (str, "a text"),
    int: (int, "a whole number"),
    float: ((float, int), "a number"),
    dict: (dict, "an object"),
}
"""By type: what JSON may have for it, and its name in an error."""


def _typed(value: Any, field: str, kind: type, *, optional: bool = False) -> Any:
    """The value of a field. Raises TypeError for one of another kind, also for null unless it is optional."""
    accepted, words = _KINDS[kind]
    if not isinstance(value, accepted) and not (optional and value is None):
        raise TypeError(f"{field} is {json.dumps(value)[:40]}, not {words}")
    return value
