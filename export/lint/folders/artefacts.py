"""Lint rules for what was published: manifests, the files they record, INT8 graphs, companions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export import files, recipes
from export.config import contract
from export.errors import ExportError, FileError
from export.lint.finding import Finding, Findings, Subject, rule
from export.lint.folders import agreement, batch, engine, graph, serving
from export.lint.remedies import export
from export.precision import int8_form
from export.repository.manifest import FILE as MANIFEST
from export.repository.manifest import Manifest


def check_folder(folder: Path, subjects: Sequence[Subject], triton_tag: str | None) -> Findings:
    """All rules about a model folder as a whole: versions, manifest, graphs, engines, companions, agreement of
    configurations."""
    yield from serving.versions_present(folder, subjects)
    read: Manifest | ExportError | None
    try:
        read = Manifest.read(folder)
    except ExportError as error:
        read = error
    yield from _manifest(folder, read)
    yield from graph.check_folder(folder, subjects, published=read is not None)
    yield from batch.rows_that_meet(subjects)
    yield from _int8(folder, subjects)
    yield from _engine(folder, triton_tag)
    yield from _companion(folder, read if isinstance(read, Manifest) else None)
    yield from agreement.agreement(subjects)


@rule
def _manifest(folder: Path, read: Manifest | ExportError | None) -> Findings:
    """`read` is the manifest, or why there is none to read."""
    if isinstance(read, ExportError):
        remedy = export(folder, otherwise="correct or remove it")
        yield Finding("error", f"{folder.name}/{MANIFEST}", "", read.what.removeprefix(f"{read.file} "), remedy)
    elif read is not None:
        remedy = export(folder, "--force", otherwise="put the published file there, or remove the manifest")
        for changed in read.changed_files(folder):
            yield Finding("error", f"{folder.name}/{changed.name}", "", changed.message, remedy)


@rule
def _engine(folder: Path, triton_tag: str | None) -> Findings:
    yield from engine.check_folder(folder, triton_tag)


@rule
def _int8(folder: Path, subjects: Sequence[Subject]) -> Findings:
    """An INT8 graph that only CPUs take must not be what TensorRT is to build an engine from."""
    path = folder / "1" / contract.ONNX_FILE
    wanting = [(subject, field) for subject in subjects if (field := _tensorrt_field(subject.message)) is not None]
    if not wanting or files.problem(folder, path):
        return
    try:
        obstacle = int8_form.tensorrt_obstacle(path)
    except (FileError, OSError, ValueError):
        return  # `_graph` says that it is no ONNX file
    if obstacle is None:
        return
    for subject, field in wanting:
        yield subject.error(
            field,
            f"TensorRT takes INT8 with zero point 0 only, and in 1/{path.name} {obstacle}",
            export(folder, "--precision", "int8", "--int8-for", "tensorrt", otherwise="quantise it symmetrically"),
        )


def _tensorrt_field(message: Any) -> str | None:
    """The field by which a configuration asks for TensorRT, as backend or as ONNX Runtime's accelerator."""
    if message.backend == "tensorrt" or message.platform == "tensorrt_plan":
        return "backend" if message.backend else "platform"
    accelerators = message.optimization.execution_accelerators.gpu_execution_accelerator
    for index, accelerator in enumerate(accelerators):
        if accelerator.name == "tensorrt":
            return f"optimization.execution_accelerators.gpu_execution_accelerator[{index}].name"
    return None


@rule
def _companion(folder: Path, manifest: Manifest | None) -> Findings:
    """A python model whose files come from another model's export must have them, and of the same weights."""
    recipe = recipes.bundled(folder.name)
    if recipe is None or folder.name not in recipe.companions:
        return
    main = recipe.name
    place = f"{folder.name}/{MANIFEST}"
    if manifest is None:
        if not os.path.lexists(folder / MANIFEST):
            yield Finding("error", place, "", f"the files that come with {main} are missing", export(folder))
        return
    try:
        of = Manifest.read(folder.parent / main)
    except ExportError:
        return
    if of is not None and of.source_sha256 != manifest.source_sha256:
        yield Finding(
            "error",
            place,
            "source.sha256",
            f"its files are of other weights ({manifest.source_sha256[:12]}...) than those of {main} "
            f"({of.source_sha256[:12]}...)",
            export(folder, "--force"),
        )
