"""Export: trained model -> ONNX -> precision -> contract -> accuracy gate -> manifest -> model repository."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from export.config import config as configs
from export.config import contract, rewrite
from export.engine import record as engine_record
from export.errors import ConfigError, ContractError, ExportError
from export.graph import batch_axis, external_data, onnx_stream, signature
from export.precision.convert import Conversion, load
from export.precision.precision import CPU, FP32, rule
from export.recipe.measure import Measurement
from export.recipe.recipe import Progress, Recipe, Weights, no_progress
from export.repository import manifest
from export.repository.manifest import Manifest
from export.repository.publish import VERSION, Change, hold, publish, scratch

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
    """The built files of one export, still in scratch."""

    files: Mapping[str, Path]
    assets: Mapping[str, Mapping[str, Path]]
    signature: signature.Signature
    versions: Mapping[str, int]
    stations: Mapping[str, Measurement]
    reduction: Mapping[str, Any] | None
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
    rule(recipe, precision)
    folder = model_repository / recipe.name
    configs.load(folder / "config.pbtxt")
    found = recipe.resolve(weights)
    on_progress("check what is there", 0, 1)
    source = manifest.source_record(recipe, found)
    build = manifest.build_record(recipe, source, BUILD, precision, excluded, runtime)
    with hold(model_repository, on_progress=on_progress):
        present = _published(folder)
        why = None if force or present is None else _why_again(recipe, folder, present, build, found.explicit)
        on_progress("check what is there", 1, 1)
        if present is not None and why is None and not force:
            return ExportResult(recipe.name, folder, present, True, time.monotonic() - began)
        with scratch(folder) as room:
            custom = present is not None and bool(present.source.get("custom_weights"))
            built = _build(recipe, found, folder, room, precision, excluded, runtime, on_progress, was_custom=custom)
            made = Manifest(
                model=recipe.name,
                created=manifest.now(),
                files=manifest.file_records({name: built.files[name] for name in built.files if _is_artefact(name)}),
                build=build,
                source=source,
                precision=precision,
                reduction=built.reduction,
                versions=built.versions,
                packages=manifest.package_versions(recipe),
                signature=built.signature,
                stations=built.stations,
                build_seconds=round(time.monotonic() - began, 1),
            )
            on_progress("publish", 0, 1)
            publish(_changes(made, present, folder, built, room))
            on_progress("publish", 1, 1)
    notes = (*([f"{recipe.name} was made again: {why}"] if why else []), *built.notes, *_older_plans(folder, made))
    return ExportResult(recipe.name, folder, made, False, time.monotonic() - began, notes)


def _published(folder: Path) -> Manifest | None:
    """The manifest of what is published, or None where there is none that can be read."""
    try:
        return Manifest.read(folder)
    except ExportError:
        return None


def _why_again(
    recipe: Recipe, folder: Path, present: Manifest, build: Mapping[str, Any], may_rewrite: bool
) -> str | None:
    """Why what is published must be built again; None where it is what this build would make, whole, and still fits
    config.pbtxt.

    Raises ContractError when only config.pbtxt has changed and no longer fits, unless it may be rewritten.
    """
    if why := manifest.difference(present.build, build):
        return why
    if changed := present.changed_files(folder):
        return str(changed[0])
    for name in recipe.pipeline.companions if recipe.pipeline else ():
        companion = _published(folder.parent / name)
        if companion is None or companion.source_sha256 != present.source_sha256:
            return f"the files of {name} are not of this export"
        if changed := companion.changed_files(folder.parent / name):
            return f"{name}: {changed[0]}"
    for path in configs.config_paths(folder):
        try:
            assert present.signature is not None
            contract.check(configs.load(path), present.signature)
        except ContractError:
            if may_rewrite:
                return f"{path.name} no longer fits the graph"
            raise
    return None


def _build(
    recipe: Recipe,
    weights: Weights,
    folder: Path,
    room: Path,
    precision: str,
    excluded: Sequence[str],
    runtime: str,
    on_progress: Progress,
    *,
    was_custom: bool,
) -> _Built:
    """Every file of the export in `room`, with the contract kept and the gate passed."""
    (room / VERSION).mkdir()
    conversion = Conversion(recipe, load(recipe, weights, on_progress), room, on_progress)
    shape, versions = signature.from_onnx(conversion.full_path)
    files, notes = _fit_configs(folder, shape, weights, room, was_custom=was_custom)
    _check_batch(folder, conversion.full_path)
    full = conversion.full
    conversion.passes(full, FP32)
    stations = {"source": conversion.at_source, "onnx": full.measured}
    judged = full
    if precision != FP32:
        judged = conversion.reduced(precision, excluded, runtime)
        conversion.passes(judged, precision)
        stations = {"source": conversion.at_source, "onnx_fp32": full.measured, "onnx": judged.measured}
        _check_same(shape, signature.from_onnx(judged.path)[0], precision)
    files[ARTEFACT] = judged.path
    files |= {f"{VERSION}/{name}": path for name, path in external_data.files(judged.path).items()}
    source = conversion.source
    for name in source.labels.keys() & _label_files(folder):
        files[name] = room / name
        files[name].write_text("\n".join(source.labels[name]) + "\n", encoding="utf-8", newline="")
        kept = folder / name
        if weights.custom and not (kept.is_file() and kept.read_bytes() == files[name].read_bytes()):
            notes = (*notes, f"{recipe.name}/{name}: {len(source.labels[name])} labels of {weights.description}")
    files[REFERENCE] = room / REFERENCE
    conversion.reference.write(files[REFERENCE])
    assets = {name: _write_assets(room / "assets" / name, each) for name, each in source.assets.items()}
    return _Built(files, assets, shape, versions, stations, judged.reduction, notes)


def _check_batch(folder: Path, graph: Path) -> None:
    """Raise ContractError for a graph that does not answer row by row where a configuration batches."""
    batching = [path for path in configs.config_paths(folder) if configs.load(path).message.max_batch_size > 0]
    if not batching:
        return
    for obstacle in batch_axis.obstacles(onnx_stream.read_without_weights(graph, keep_bytes=onnx_stream.LARGE)):
        raise ContractError(
            f"{folder.name}/{batching[0].name} batches requests, but {obstacle}: write max_batch_size: 0 with whole "
            "shapes in dims, or export a graph that answers row by row",
            file=f"{folder.name}/{batching[0].name}",
            field="max_batch_size",
            tensor=obstacle.output,
            found=obstacle.operator,
        )


def _check_same(full: signature.Signature, reduced: signature.Signature, precision: str) -> None:
    """A reduced graph takes and gives what the FP32 one does, so that one config.pbtxt serves both."""
    if reduced != full:
        raise ContractError(f"the graph at {precision} takes and gives {reduced}, the FP32 one {full}: report this")


def _fit_configs(
    folder: Path, shape: signature.Signature, weights: Weights, room: Path, *, was_custom: bool
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Check every configuration against the graph; with weights that a person named, rewrite dims that differ.

    `was_custom`: the last export was of weights that a person named.
    """
    rewritten: dict[str, Path] = {}
    notes: list[str] = []
    for path in configs.config_paths(folder):
        config = configs.load(path)
        if weights.explicit:
            text, lines = rewrite.rewrite_dims(config, shape)
            if lines:
                notes += lines
                target = room / path.relative_to(folder)
                target.parent.mkdir(exist_ok=True)
                target.write_text(text, encoding="utf-8", newline="")
                rewritten[path.relative_to(folder).as_posix()] = target
                config = replace(config, text=text, message=configs.parse(text))
        try:
            contract.check(config, shape)
        except ContractError as error:
            if was_custom and not weights.explicit:
                raise ContractError(
                    f"{error} (the last export was of other weights: --weights bundled rewrites config.pbtxt back)",
                    **error.about,
                ) from None
            raise
    return rewritten, tuple(notes)


def _changes(made: Manifest, present: Manifest | None, folder: Path, built: _Built, room: Path) -> list[Change]:
    """The main folder and its companions, each with its manifest, and without what an earlier export left.

    Engines stay, since a `configs/<gpu>.pbtxt` names them: `fathom check` reports those of an older ONNX file.
    """
    path = room / manifest.FILE
    made.write(path)
    stale = frozenset(present.files) if present else frozenset()
    changes = [Change(folder, {**built.files, manifest.FILE: path}, stale)]
    for name, files in built.assets.items():
        companion = folder.parent / name
        if not (companion / "config.pbtxt").is_file():
            raise ConfigError(
                f"{companion}/config.pbtxt is missing: {made.model} is served through {name}",
                file=companion / "config.pbtxt",
            )
        source = {key: value for key, value in made.source.items() if key != "files"}
        record = Manifest(name, made.created, manifest.file_records(files), made.build, source, of=made.model)
        own = room / "assets" / name / manifest.FILE
        record.write(own)
        before = _published(companion)
        changes.append(
            Change(companion, {**files, manifest.FILE: own}, frozenset(before.files) if before else frozenset())
        )
    return changes


def _older_plans(folder: Path, made: Manifest) -> list[str]:
    """A line for a person about the engines that were built from another ONNX file than the one just published."""
    now = made.files[ARTEFACT].sha256
    older = [record.plan for record in engine_record.records(folder) if record.onnx_sha256 != now]
    if not older:
        return []
    return [f"{folder.name}: {', '.join(older)} is of the ONNX file before: build it again with --engine"]


def _write_assets(room: Path, contents: Mapping[str, bytes]) -> dict[str, Path]:
    paths = {name: room / name for name in contents}
    for name, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[name])
    return paths


def _label_files(folder: Path) -> set[str]:
    """The files that config.pbtxt gives outputs their labels from."""
    message = configs.load(folder / "config.pbtxt").message
    return {output.label_filename for output in message.output if output.label_filename}


def _is_artefact(name: str) -> bool:
    """Whether a published file is recorded with its hash: a configuration is not, since people tune it."""
    return not name.endswith(".pbtxt")
