"""What the linter says about one field, and what its rules are given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from export.config.config import Config

Severity = Literal["error", "warning"]

LONGEST = 500
"""Characters of a message: names and shapes in a configuration can be as long as the file."""


@dataclass(frozen=True)
class Finding:
    """One thing to change. An error keeps a model from loading or from being what it says; a warning is advice.

    `file` is relative to the model repository, `field` a path like `dynamic_batching.preferred_batch_size[1]` (empty
    where the whole file is meant), `line` the field's line where the file writes it.
    """

    severity: Severity
    file: str
    field: str
    message: str
    remedy: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        named = f" {self.field}" if self.field else ""
        return f"{where}{named}: {self.message}; {self.remedy}"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class Subject:
    """One configuration file under the linter's eyes, with the folder of its model."""

    config: Config
    folder: Path

    @property
    def message(self) -> Any:
        """The parsed `inference.ModelConfig`."""
        return self.config.message

    @property
    def variant(self) -> str | None:
        """The configuration's name (`cpu` for configs/cpu.pbtxt), None for config.pbtxt itself."""
        return self.config.path.stem if self.config.path.parent.name == "configs" else None

    @property
    def is_ensemble(self) -> bool:
        """Whether the model is a pipeline of others."""
        return bool(self.message.platform == "ensemble" or self.message.HasField("ensemble_scheduling"))

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


Findings = Iterator[Finding]
