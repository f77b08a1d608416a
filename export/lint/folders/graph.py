"""Lint rules for ONNX graphs: what each served version's file takes and gives, against the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from export.config import contract
from export.errors import ContractError
from export.lint.complete import completed, graph_file, graph_of
from export.lint.finding import Finding, Findings, Subject, rule
from export.lint.remedies import export, has_recipe


def check_folder(folder: Path, subjects: Sequence[Subject], *, published: bool) -> Findings:
    """Every configuration against the graphs it serves; `published` is whether there is a manifest, readable or not,
    which only those with a recipe have."""
    untold = not published and has_recipe(folder)
    for subject in subjects:
        for version in subject.versions:
            path = graph_file(subject, version)
            if path is None:
                continue
            if untold:
                yield from _origin(subject, path)
            yield from _graph_file(folder, path)
            yield from _graph(subject, path)


@rule
def _origin(subject: Subject, path: Path) -> Findings:
    place = path.relative_to(subject.folder).as_posix()
    yield subject.warning(
        "",
        f"{place} has no manifest: where it comes from is not known",
        export(subject.folder),
    )


@rule
def _graph_file(folder: Path, path: Path) -> Findings:
    try:
        graph_of(path)
    except ContractError as error:
        place = path.relative_to(folder.parent).as_posix()
        yield Finding(
            "error",
            place,
            "",
            str(error).removeprefix(f"{error.file} "),
            export(folder, "--force", otherwise="export it again"),
        )


@rule
def _graph(subject: Subject, path: Path) -> Findings:
    try:
        graph = graph_of(path)
    except ContractError:  # `_graph_file` says so
        return
    config = replace(subject.config, message=completed(subject))
    artefact = subject.message.default_model_filename or contract.ONNX_FILE
    for breach in contract.mismatches(config, graph, artefact):
        yield subject.error(breach.field or "", breach.what, breach.remedy or "")
