"""Lint rules for what Triton needs to serve a folder: a known backend, versions, and the model's file in each."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from export import files
from export.config.backends import BACKENDS
from export.lint import versions
from export.lint.finding import Finding, Findings, Subject, rule
from export.lint.remedies import export


def check(subject: Subject) -> Findings:
    """All rules about one configuration."""
    if not subject.is_ensemble:
        yield from _backend(subject)
        yield from _artefact(subject)
    yield from _version_policy(subject)


@rule
def _backend(subject: Subject) -> Findings:
    message, name = subject.message, subject.backend
    if not name:
        yield _no_backend(subject)
    elif name not in BACKENDS:
        if not _has_library(subject.folder, name):
            yield subject.error("backend", f"Triton has no backend '{name}'", f"write backend: {_names(name)}")
    elif (known := BACKENDS[name].platforms) and message.platform and message.platform not in known:
        yield subject.error(
            "platform", f"platform '{message.platform}' is not of the backend '{name}'", f"write {' or '.join(known)}"
        )


def _no_backend(subject: Subject) -> Finding:
    message = subject.message
    if message.platform:
        found, field = f"Triton has no platform '{message.platform}'", "platform"
    elif message.default_model_filename:
        found, field = f"'{message.default_model_filename}' does not tell the backend", "default_model_filename"
    else:
        found, field = "neither backend nor platform is set, and no file tells the backend", ""
    return subject.error(field, found, f"write backend: {_names(message.platform)}")


@rule
def _version_policy(subject: Subject) -> Findings:
    policy, there = subject.message.version_policy, versions.present(subject.folder)
    if policy.HasField("latest") and policy.latest.num_versions == 0:
        yield subject.error("version_policy.latest", "num_versions is 0", "write how many versions to serve, from 1")
    if not policy.HasField("specific"):
        return
    if not policy.specific.versions:
        yield subject.error("version_policy.specific", "no versions are listed", "list the versions to serve")
    for index, version in enumerate(policy.specific.versions):
        if there and str(version) not in {path.name for path in there}:
            report = subject.warning if subject.versions else subject.error
            yield report(
                f"version_policy.specific.versions[{index}]",
                f"there is no version folder {version}",
                f"make it, or take one of {', '.join(path.name for path in there)}",
            )


@rule
def versions_present(folder: Path, subjects: Sequence[Subject]) -> Findings:
    """A folder without a version folder serves nothing."""
    if not versions.present(folder):
        place = subjects[0].config.label if subjects else f"{folder.name}/config.pbtxt"
        remedy = export(folder, otherwise="make one: `1`")
        yield Finding("error", place, "", "there is no version folder, so Triton serves nothing", remedy)


@rule
def _artefact(subject: Subject) -> Findings:
    message = subject.message
    field = "default_model_filename" if message.default_model_filename else ""
    for version in subject.versions:
        yield from _cc_files(subject, version)
        paths = subject.model_files(version)
        problems = [files.problem(subject.folder, path, or_folder=True) for path in paths]
        if not paths or not all(problems):
            continue
        if message.runtime or (message.cc_model_filenames and _only_gpus(subject)):
            continue
        text = f"{version.name}/{paths[0].name} {problems[0]}"
        if subject.variant is not None:
            # An engine for hardware that this machine does not have.
            yield subject.warning(
                field, f"{text}: this configuration cannot be served here", "build it where it is served"
            )
        elif subject.backend == "python":
            yield subject.error(field, text, "write the python model there")
        else:
            yield subject.error(field, text, export(subject.folder))


def _cc_files(subject: Subject, version: Path) -> Findings:
    for capability, name in subject.message.cc_model_filenames.items():
        if problem := files.problem(subject.folder, f"{version.name}/{name}"):
            yield subject.warning(
                f'cc_model_filenames["{capability}"]',
                f"{version.name}/{name} {problem}: GPUs of compute capability {capability} cannot serve the model",
                "put the file there",
            )


def _only_gpus(subject: Subject) -> bool:
    groups = subject.message.instance_group
    return bool(groups) and all(group.kind == group.KIND_GPU for group in groups)


def _has_library(folder: Path, name: str) -> bool:
    """Whether the model brings the library of its backend along, as Triton looks for it."""
    library = f"libtriton_{name}.so"
    return any((place / library).exists() for place in (folder, *versions.present(folder)))


def _names(written: str) -> str:
    close = get_close_matches(written, BACKENDS, n=1, cutoff=0.5)
    return f'"{close[0]}"' if close else f"one of {', '.join(sorted(BACKENDS))}"
