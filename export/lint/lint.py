"""Lint a model repository: what Triton would refuse, what it would accept but not do, and what no longer fits together.

An error is what Triton, with its official backends, refuses to load, or what the model would not do as it says:
unknown `parameters` keys, artefacts that are not what was published. All else is advice, a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.config import config as configs
from export.config.deployment import deployment
from export.errors import ConfigError, LimitError
from export.lint.ensembles import ensemble, inflight
from export.lint.fields import labels, model, parameters, scheduling, sequences, tensors, warmup
from export.lint.finding import Finding, Findings, Subject, rule
from export.lint.folders import artefacts, served, serving
from export.repository import unfinished
from export.repository.publish import is_held

__all__ = ["Finding", "lint"]

RULES = (
    serving.check,
    model.check,
    tensors.check,
    scheduling.check,
    sequences.check,
    parameters.check,
    warmup.warm_up,
    labels.labels,
)
"""What is said of one configuration file by itself and its own folder."""


def lint(
    model_repository: Path,
    models: Sequence[str] | None = None,
    *,
    triton_tag: str | None = None,
    config_name: str | None = None,
) -> list[Finding]:
    """Every finding about the models (all by default), errors first within a file.

    `triton_tag` is the Triton release that engines must run in, `config_name` what `--model-config-name` gets; by
    default those of docker-compose.yml.
    Raises ConfigError when the repository or a named model does not exist.
    """
    present = model_names(model_repository)
    for name in models or ():
        if name not in present:
            raise ConfigError(
                f"{model_repository} has no model '{name}': it has {', '.join(present) or 'none'}",
                file=model_repository,
                found=name,
                expected=present,
            )
    chosen = models or present
    findings: list[Finding] = []
    subjects: dict[str, list[Subject]] = {}
    for name in present:
        subjects[name], broken = _read(model_repository / name)
        if name in chosen:
            findings += broken
    deployed = deployment(model_repository.resolve().parent)
    triton_tag, config_name = triton_tag or deployed.triton_tag, config_name or deployed.config_name
    for name in chosen:
        for subject in subjects[name]:
            for check in RULES:
                findings += check(subject)
        findings += _within_limits(name, artefacts.check_folder(model_repository / name, subjects[name], triton_tag))
    findings += ensemble.check(subjects, chosen)
    findings += inflight.inflight_requests(subjects, chosen, triton_tag)
    findings += _unfinished(model_repository, chosen)
    findings += served.unserved_plans(model_repository, chosen, config_name)
    unique = _without_repeats(findings)
    return sorted(unique, key=lambda finding: (finding.file, finding.severity, finding.line or 0))


def _without_repeats(findings: Sequence[Finding]) -> list[Finding]:
    """Each finding once: of a published file that is missing the rule `manifest` says so, and `artefact` need not."""
    told = {f"{each.file} {each.message}" for each in findings if each.rule == "manifest"}

    def repeats(each: Finding) -> bool:
        return each.rule == "artefact" and f"{each.file.partition('/')[0]}/{each.message}" in told

    return [each for each in dict.fromkeys(findings) if not repeats(each)]


def _within_limits(name: str, findings: Findings) -> Findings:
    """The findings, up to where a graph takes more time or memory to check than it may."""
    try:
        yield from findings
    except LimitError as error:
        yield Finding("error", name, "", error.what, error.remedy or "", rule="limit")


@rule
def _unfinished(model_repository: Path, chosen: Sequence[str]) -> Findings:
    left = [mark for mark in unfinished.found(model_repository) if mark.folder.name in chosen]
    if left and is_held(model_repository):
        return  # a roll-out goes on
    for mark in left:
        yield Finding(
            "error",
            f"{mark.folder.name}/{mark.version}",
            "",
            f"it is in service unwatched at {', '.join(mark.servers)}, since its `fathom publish` was killed",
            "publish the version again, which rolls it back first",
        )


def model_names(model_repository: Path) -> list[str]:
    """The folders in which Triton looks for models. Raises ConfigError when the repository does not exist."""
    if not model_repository.is_dir():
        raise ConfigError(
            f"{model_repository} is not a folder: name a model repository with --model-repository",
            file=model_repository,
        )
    folders = [path for path in model_repository.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(folder.name for folder in folders)


def _read(folder: Path) -> tuple[list[Subject], list[Finding]]:
    """The configurations of a folder that parse, and a finding for each that does not.

    One without a config.pbtxt has an empty one, which Triton completes, too.
    """
    subjects: list[Subject] = []
    broken: list[Finding] = []
    for path in configs.config_paths(folder):
        if not path.exists():
            subjects.append(Subject(configs.Config(path, "", configs.parse("")), folder))
            broken += _no_config(path)
            continue
        try:
            config = configs.load(path)
            _ = config.places
            subjects.append(Subject(config, folder))
        except ConfigError as error:
            broken += _syntax(path, folder, error)
    return subjects, broken


@rule
def _no_config(path: Path) -> Findings:
    yield Finding(
        "warning",
        configs.label(path),
        "",
        "the file is missing: Triton completes a configuration, without a bound of the queue",
        "write one: every model folder needs its contract",
    )


@rule
def _syntax(path: Path, folder: Path, error: ConfigError) -> Findings:
    name = path.relative_to(folder.parent).as_posix()
    message = str(error).removeprefix(f"{name}: ")
    place = "remove it, or see the Triton model configuration for its place and spelling"
    yield Finding("error", name, error.field or "", message, place if error.field else "correct it", error.line)
