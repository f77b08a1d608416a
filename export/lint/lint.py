"""Lint a model repository: what Triton would refuse, what it would silently take, and what no longer fits together.

The rules follow the checks that Triton's core makes when it loads a model, and add those it does not make: unknown
`parameters` keys, negative counts, queues without a bound, artefacts that are not what was published.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from export.config import config as configs
from export.config.deployment import deployment
from export.errors import ConfigError, LimitError
from export.lint import artefacts, ensemble, inflight, model, parameters, scheduling, served
from export.lint.finding import Finding, Findings, Subject

__all__ = ["Finding", "lint"]

RULES = (model.check, scheduling.check, parameters.check, artefacts.check)
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
    present = _model_names(model_repository)
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
    for name in chosen:
        for subject in subjects[name]:
            for rule in RULES:
                findings += _within_limits(name, rule(subject))
        findings += _within_limits(name, artefacts.check_folder(model_repository / name, subjects[name], triton_tag))
    findings += ensemble.check(subjects, chosen)
    deployed = deployment(model_repository.resolve().parent)
    findings += inflight.check(subjects, chosen, triton_tag or deployed.triton_tag)
    findings += served.check(model_repository, chosen, config_name or deployed.config_name)
    unique = list(dict.fromkeys(findings))
    return sorted(unique, key=lambda finding: (finding.file, finding.severity, finding.line or 0))


def _within_limits(name: str, findings: Iterable[Finding]) -> Findings:
    """The findings, up to where a graph takes more time or memory to check than it may."""
    try:
        yield from findings
    except LimitError as error:
        yield Finding("error", name, "", error.what, error.remedy or "")


def _model_names(model_repository: Path) -> list[str]:
    if not model_repository.is_dir():
        raise ConfigError(
            f"{model_repository} is not a folder: name a model repository with --model-repository",
            file=model_repository,
        )
    folders = [path for path in model_repository.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return sorted(folder.name for folder in folders)


def _read(folder: Path) -> tuple[list[Subject], list[Finding]]:
    """The configurations of a folder that parse, and a finding for each that does not."""
    subjects, broken = [], []
    for path in configs.config_paths(folder):
        try:
            config = configs.load(path)
            _ = config.places
            subjects.append(Subject(config, folder))
        except ConfigError as error:
            broken.append(_unreadable(path, folder, error))
    return subjects, broken


def _unreadable(path: Path, folder: Path, error: ConfigError) -> Finding:
    name = path.relative_to(folder.parent).as_posix()
    field = re.search(r"unknown field '(\w+)'", str(error))
    message = str(error).removeprefix(f"{name}: ")
    if not path.exists():
        return Finding("error", name, "", "the file is missing", "write one: every model folder needs its contract")
    remedy = "remove it, or see the Triton model configuration for its place and spelling" if field else "correct it"
    return Finding("error", name, field[1] if field else "", message, remedy, error.line)
