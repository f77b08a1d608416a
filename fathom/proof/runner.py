"""Runs the steps one after the other, each in a process of its own and within its share of the time.

A step that crashes, hangs or leaves the GPU in error takes nothing with it but the rest of its own rows.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fathom.proof.context import Row, one_line
from fathom.proof.settings import Settings

STEPS: Mapping[str, float] = {
    "prepare": 4, "accuracy": 3, "roofline": 4, "served": 8, "hand_over": 2, "sweep": 10, "tensorrt": 3, "eager": 3,
}  # fmt: skip
"""Each step with its share of the time; what one leaves over, the next ones have."""
TITLES = {
    "prepare": "0. Models",
    "accuracy": "a. Accuracy",
    "roofline": "b. Bare ONNX Runtime against the roofline",
    "served": "c. Served",
    "hand_over": "c. Handed over from model to model",
    "sweep": "d. Instances, batch and queue delay",
    "tensorrt": "e. TensorRT",
    "eager": "f. torch eager and torch.compile",
}
SKIPPED_STATUS = 3
LEAST_S = 5.0


@dataclass(frozen=True)
class Outcome:
    """What came of a step: "measured", "skipped" or "failed" with the reason, and its rows and gaps in any case."""

    step: str
    status: str
    why: str = ""
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)

    @property
    def lines(self) -> list[str]:
        """What is missing, a sentence for each."""
        own = [] if self.status == "measured" else [f"{self.status}: {self.step}: {self.why}"]
        gaps = [("skipped", each) for each in self.skipped] + [("failed", each) for each in self.failed]
        return [*own, *(f"{kind}: {self.step}, {each['what']}: {each['why']}" for kind, each in gaps)]


def run(
    settings: Settings,
    room: Path,
    repository: Path,
    artefacts: Path | None,
    chosen: tuple[str, ...],
    tell: Callable[[Outcome], None],
) -> list[Outcome]:
    """Run the chosen steps and "prepare", telling of each when it is over."""
    deadline = time.monotonic() + 60 * settings.minutes
    names = [name for name in STEPS if name == "prepare" or name in chosen]
    outcomes: list[Outcome] = []
    for index, name in enumerate(names):
        left = deadline - time.monotonic()
        share = STEPS[name] / sum(STEPS[each] for each in names[index:])
        if left < LEAST_S:
            outcomes.append(Outcome(name, "skipped", f"the {settings.minutes:g} minutes were over"))
        else:
            before = {outcome.step: outcome.rows for outcome in outcomes}
            outcomes.append(_run_one(name, settings, room, repository, artefacts, max(LEAST_S, left * share), before))
        tell(outcomes[-1])
    return outcomes


def _run_one(
    name: str,
    settings: Settings,
    room: Path,
    repository: Path,
    artefacts: Path | None,
    seconds: float,
    before: Mapping[str, list[Row]],
) -> Outcome:
    lines, task, log = (room / f"{name}.{ending}" for ending in ("jsonl", "task.json", "log"))
    task.write_text(
        json.dumps(
            {
                "settings": settings.to_json(),
                "room": str(room),
                "repository": str(repository),
                "artefacts": str(artefacts) if artefacts else None,
                "lines": str(lines),
                "seconds": seconds,
                "before": before,
            }
        )
    )
    temporary = room / "tmp"  # a killed step leaves nothing elsewhere
    temporary.mkdir(exist_ok=True)
    began = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "fathom.proof.step", name, str(task)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            env=os.environ | {"TMPDIR": str(temporary)},
        )
        try:
            status: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:  # out of time, or Ctrl-C here
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return _outcome(name, status, seconds, time.monotonic() - began, lines, log)


def _outcome(name: str, status: int | None, limit_s: float, took_s: float, lines: Path, log: Path) -> Outcome:
    kept: dict[str, list[dict[str, Any]]] = {"row": [], "skipped": [], "failed": []}
    if lines.exists():
        for line in lines.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # a line that was being written when the step was killed
                for kind, record in json.loads(line).items():
                    kept[kind].append(record)
    last = next((line for line in reversed(log.read_text(errors="replace").splitlines()) if line.strip()), "")
    if status == 0:
        words, why = ("measured", "") if kept["row"] else ("skipped", "nothing was measured")
    elif status == SKIPPED_STATUS:
        words, why = "skipped", one_line(last)
    elif status is None:
        words, why = "failed", f"stopped after its {limit_s:.0f} s; {len(kept['row'])} rows were kept"
    else:
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        words, why = "failed", one_line(f"{how}: {last}" if last else how)
    return Outcome(name, words, why, round(took_s, 1), kept["row"], kept["skipped"], kept["failed"])
