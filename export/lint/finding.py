"""A finding of the linter, the input of its rules, and how a rule gets its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec

from export.config import backends
from export.config.config import Config
from export.lint import versions

Severity = Literal["error", "warning"]

LONGEST = 500
"""Characters of a message: names and shapes in a configuration can be as long as the file."""


@dataclass(frozen=True)
class Finding:
    """One thing to change. An error keeps a model from loading or from being what it says; a warning is advice.

    `file` is relative to the model repository, `field` a path like `dynamic_batching.preferred_batch_size[1]` (empty
    where the whole file is meant), `line` the field's line where the file writes it, `rule` the name of the rule.
    """

    severity: Severity
    file: str
    field: str
    message: str
    remedy: str
    line: int | None = None
    rule: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        named = f" {self.field}" if self.field else ""
        return f"{where}{named}: {self.message}; {self.remedy}"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for `--json`."""
        return asdict(self)


Findings = Iterator[Finding]
P = ParamSpec("P")


def rule(check: Callable[P, Findings]) -> Callable[P, Findings]:
    """Give each finding of a function the function's name as its rule: `_warm_up` is the rule `warm-up`."""
    name = check.__name__.strip("_").replace("_", "-")

    @wraps(check)
    def named(*args: P.args, **kwargs: P.kwargs) -> Findings:
        for finding in check(*args, **kwargs):
            yield finding if finding.rule else replace(finding, rule=name)

    return named


@dataclass(frozen=True)
class Subject:
    """One configuration file under the linter's eyes, with the folder of its model."""

    config: Config
    folder: Path

    @property
    def message(self) -> Any:
        """The parsed `inference.ModelConfig`, as the file writes it."""
        return self.config.message

    @property
    def variant(self) -> str | None:
        """The configuration's name (`cpu` for configs/cpu.pbtxt), None for config.pbtxt itself."""
        return self.config.path.stem if self.config.path.parent.name == "configs" else None

    @property
    def is_ensemble(self) -> bool:
        """Whether the model is a pipeline of others."""
        return bool(self.message.platform == "ensemble" or self.message.HasField("ensemble_scheduling"))

    @cached_property
    def backend(self) -> str:
        """The backend that Triton takes, which it completes from the platform or the files; empty where it cannot."""
        return "" if self.is_ensemble else backends.completed(self.message, self.folder)

    @cached_property
    def versions(self) -> list[Path]:
        """The version folders that Triton serves by the version policy, lowest first."""
        return versions.served(self.message.version_policy, versions.present(self.folder))

    def model_files(self, version: Path) -> list[Path]:
        """The files that can be the model in a version folder, by their names; empty where the backend decides."""
        written = self.message.default_model_filename
        names = [written] if written else backends.default_files(self.backend, self.message.platform)
        return [version / name for name in names]

    def error(self, field: str, message: str, remedy: str) -> Finding:
        """An error about a field of this file."""
        return self._finding("error", field, message, remedy)

    def warning(self, field: str, message: str, remedy: str) -> Finding:
        """A warning about a field of this file."""
        return self._finding("warning", field, message, remedy)

    def _finding(self, severity: Severity, field: str, message: str, remedy: str) -> Finding:
        line = self.config.places.line(field) if field else None
        return Finding(severity, self.config.label, _short(field), _short(message), _short(remedy), line)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
