"""What a step of the proof is given, and where its rows go: JSON lines, so that a killed step keeps its own."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fathom.proof.settings import Settings
from fathom.proof.subject import Subject

Row = dict[str, Any]


class SkipStepError(Exception):
    """The step cannot be done on this machine; the message says why."""


@dataclass
class Context:
    """One step's view: the settings, the models there are, a scratch folder, and the rows of the steps before it."""

    settings: Settings
    room: Path
    repository: Path
    """The model repository that bundled models come from."""
    artefacts: Path | None
    """A folder with one model repository per precision, made beforehand where export's packages are installed."""
    lines: Path
    seconds: float
    """How long the step may take; it should stop adding rows by itself before that."""
    before: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """Seconds until the step is killed, less a reserve for writing and stopping servers."""
        return self.seconds * 0.9 - (time.monotonic() - self.began)

    def subjects(self, *precisions: str) -> list[Subject]:
        """The prepared models, in the settings' order; of some precisions only."""
        wanted = precisions or self.settings.precisions
        found = [Subject(name, precision, self.room) for precision in wanted for name in self.settings.models]
        return [subject for subject in found if subject.onnx.is_file()]

    def spread(self, what: str) -> list[Subject]:
        """The models at fp32, for what takes several servers each; a dry run `what`, the one that starts fastest."""
        subjects = self.subjects("fp32")
        if not self.settings.dry_run or len(subjects) < 2:
            return subjects
        smallest = min(subjects, key=lambda subject: subject.onnx.stat().st_size)
        for subject in subjects:
            if subject is not smallest:
                self.skip(subject.name, f"a dry run {what}")
        return [smallest]

    def add(self, **row: Any) -> None:
        """One measured row."""
        self._write("row", row)

    def skip(self, what: str, why: object) -> None:
        """Something that was not measured, by name, and why."""
        self._write("skipped", {"what": what, "why": one_line(why)})

    def fail(self, what: str, why: object) -> None:
        """Something that was tried and failed."""
        self._write("failed", {"what": what, "why": one_line(why)})

    def out_of_time(self, what: str, needs_s: float = 0.0) -> bool:
        """Whether no time is left for `what`, which is then noted as skipped."""
        if self.left_s > needs_s:
            return False
        self.skip(what, "the step's time was over")
        return True

    def _write(self, kind: str, record: Mapping[str, Any]) -> None:
        with self.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps({kind: record}) + "\n")


def one_line(why: object) -> str:
    """An exception or text as one line of at most 300 characters."""
    said = getattr(why, "stderr", None)  # of a process that failed
    if isinstance(said, bytes) and said.strip():
        why = said.decode(errors="replace").strip().splitlines()[-1]
    text = " ".join(str(why).split()) or type(why).__name__
    return text if len(text) <= 300 else text[:297] + "..."
