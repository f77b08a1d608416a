"""Export: trained model -> ONNX -> contract -> precision -> accuracy gate -> manifest -> model repository.

Each station is visited once, in that order, and hands its result to the next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.command import fathom
from export.config import fit
from export.engine import record as engine_record
from export.errors import ContractError
from export.precision.convert import Converted, FullGraph, convert, load, measure_source, write_onnx
from export.precision.precision import CPU, FP32, Target, choose
from export.recipe.recipe import BUNDLED, Progress, Recipe, Source, Weights, no_progress
from export.repository import manifest
from export.repository.manifest import Manifest
from export.repository.publish import VERSION, Change, hold, publish
from export.repository.published import Published
from export.repository.scratch import scratch

BUILD = 1
"""The exporter's build number: raise it when a change in this package changes the files of an export."""

ARTEFACT, REFERENCE = "1/model.onnx", "1/reference.npz"


@dataclass(frozen=True)
class ExportResult:
    """What an export did. `skipped` means that everything was there already; `notes` are lines for a person."""

    recipe: str
    folder: Path
    manifest: Manifest
    skipped: bool
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Built:
    """The built files of one export, still in scratch: the model's own by path in its folder, and its companions'."""

    files: Mapping[str, Path]
    assets: Mapping[str, Mapping[str, Path]]
    full: FullGraph
    converted: Converted
    notes: tuple[str, ...]


def export_model(
    recipe: Recipe,
    model_repository: Path,
    *,
    weights: str | None = None,
    precision: str = FP32,
    excluded: Sequence[str] = (),
    runtime: str = CPU,
    force: bool = False,
    on_progress: Progress = no_progress,
) -> ExportResult:
    """Export one model into the repository, or find that nothing changed since it was.

    `weights` is a hub id or a local folder, "bundled" for the recipe's own (and then config.pbtxt may be rewritten
    back), or None. `precision` is one of `export.precision.PRECISIONS`; `excluded` are nodes or operator types that
    stay in FP32. `runtime` is one of `export.precision.RUNTIMES`, and matters to INT8 alone.
    `on_progress(step, done, total)` is called along the way. Raises ExportError, and then the repository is as it was.
    """
    began = time.monotonic()
    target = choose(recipe, precision, excluded, runtime)
    folder = model_repository / recipe.name
    with hold(model_repository, on_progress=on_progress):
        published = Published.read(folder, recipe.companions)
        found = recipe.resolve(weights)
        on_progress("check what is there", 0, 1)
        source = manifest.source_record(recipe, found)
        build = manifest.build_record(recipe, source, BUILD, target)
        why = None if force else published.difference(build, rewriting=found.explicit)
        on_progress("check what is there", 1, 1)
        if published.manifest is not None and not force and why is None:
            return ExportResult(recipe.name, folder, published.manifest, True, time.monotonic() - began)
        with scratch(folder) as room:
            built = _build(recipe, found, published, target, room, on_progress)
            made = Manifest(
                model=recipe.name,
                created=manifest.now(),
                files=manifest.file_records({name: built.files[name] for name in built.files if _is_artefact(name)}),
                build=build,
                source=source,
                precision=precision,
                reduction=built.converted.reduction,
                versions=built.full.versions,
                packages=manifest.package_versions(recipe),
                signature=built.full.signature,
                stations=built.converted.stations,
                build_seconds=round(time.monotonic() - began, 1),
            )
            on_progress("publish", 0, 1)
            publish(list(_changes(made, published, built, room)))
            on_progress("publish", 1, 1)
    again = [f"{recipe.name} was exported again: {why}"] if why and published.manifest is not None else []
    notes = (*again, *built.notes, *_older_plans(folder, made))
    return ExportResult(recipe.name, folder, made, False, time.monotonic() - began, notes)


def _build(
    recipe: Recipe, weights: Weights, published: Published, target: Target, room: Path, on_progress: Progress
) -> _Built:
    """Every file of the export in `room`, with the contract kept and the gate passed."""
    (room / VERSION).mkdir()
    source = load(recipe, weights, on_progress)
    full = write_onnx(recipe, source, room, on_progress)
    fitted = _fit(published, full, weights)
    reference = measure_source(source, on_progress)
    source = source.released()
    converted = convert(recipe, reference, full, target, source.calibration, room, on_progress)
    files = {f"{VERSION}/{name}": path for name, path in converted.files.items()}
    texts = {config.path.relative_to(published.folder).as_posix(): config.text for config in fitted.rewritten}
    labels = {name: "\n".join(source.labels[name]) + "\n" for name in source.labels.keys() & published.label_files}
    files |= _write(room, {name: text.encode() for name, text in {**texts, **labels}.items()})
    files |= _write(room, source.files)
    files[REFERENCE] = room / REFERENCE
    reference.write(files[REFERENCE])
    assets = {name: _write(room / "assets" / name, contents) for name, contents in source.assets.items()}
    notes = (*fitted.notes, *(_new_labels(recipe, weights, published, source, labels) if weights.custom else ()))
    return _Built(files, assets, full, converted, notes)


def _fit(published: Published, full: FullGraph, weights: Weights) -> fit.Fitted:
    """Hold every configuration to the graph; with weights that a person named, rewrite dims that differ."""
    try:
        fitted = fit.fit(published.configs, full.signature, rewriting=weights.explicit)
    except ContractError as error:
        if not published.custom_weights or weights.explicit:
            raise
        folder = published.folder
        bundled = fathom("export", folder.name, "--weights", BUNDLED, repository=folder.parent)
        raise ContractError(
            f"{error} (the last export was of other weights: `{bundled}` rewrites config.pbtxt back)",
            **error.about,
        ) from None
    fit.check_batch(published.configs, full.path)
    return fitted


def _new_labels(
    recipe: Recipe, weights: Weights, published: Published, source: Source, labels: Mapping[str, str]
) -> Iterator[str]:
    """A line for a person about each label file that is not what lies in the model's folder."""
    for name, text in labels.items():
        kept = published.folder / name
        if not (kept.is_file() and kept.read_bytes() == text.encode()):
            yield f"{recipe.name}/{name}: {len(source.labels[name])} labels of {weights.description}"


def _changes(made: Manifest, published: Published, built: _Built, room: Path) -> Iterator[Change]:
    """The main folder and its companions, each with its manifest, and without what an earlier export left.

    Engines stay, since a `configs/<gpu>.pbtxt` names them: `fathom check` reports those of an older ONNX file.
    """
    yield _change(published.folder, made, published.manifest, built.files, room)
    source = {key: value for key, value in made.source.items() if key != "files"}
    for name, files in built.assets.items():
        record = Manifest(name, made.created, manifest.file_records(files), made.build, source, of=made.model)
        folder = published.folder.parent / name
        yield _change(folder, record, published.companions.get(name), files, room / "assets" / name)


def _change(folder: Path, made: Manifest, before: Manifest | None, files: Mapping[str, Path], room: Path) -> Change:
    path = room / manifest.FILE
    made.write(path)
    return Change(folder, {**files, manifest.FILE: path}, frozenset(before.files if before else ()))


def _older_plans(folder: Path, made: Manifest) -> list[str]:
    """A line for a person about the engines that were built from another ONNX file than the one just published."""
    now = made.files[ARTEFACT].sha256
    older = [record.plan for record in engine_record.records(folder) if record.onnx_sha256 != now]
    if not older:
        return []
    again = fathom("export", folder.name, "--engine", repository=folder.parent)
    return [f"{folder.name}: {', '.join(older)} is of the ONNX file before: `{again}` builds it again"]


def _write(room: Path, contents: Mapping[str, bytes]) -> dict[str, Path]:
    paths = {name: room / name for name in contents}
    for name, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[name])
    return paths


def _is_artefact(name: str) -> bool:
    """Whether a published file is recorded with its hash: a configuration is not, since people tune it."""
    return not name.endswith(".pbtxt")
