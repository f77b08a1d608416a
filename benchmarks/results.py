"""The last figures of each claim: benchmarks/results.json, from which docs/benchmarks.md is made."""

from __future__ import annotations

import datetime
import json
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.claims import CLAIMS
from benchmarks.row import Row
from loadtests.slo import about
from loadtests.target.hardware import describe_hardware

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("results.json")
PAGE = ROOT / "docs" / "benchmarks.md"
_TOP = """\
# Benchmarks

`make bench` measures these claims, and writes the figures to `benchmarks/results.json` and this page. A result is the
median of n repetitions, with the smallest and the largest. Nothing else may run on the machine meanwhile. On another
machine, absolute figures differ more than ratios.
"""
_HEAD = "| measured | result | min to max | n | wanted | |\n|---|---|---|---|---|---|"
_MARKS = {True: "reached", False: "missed", None: ""}


@dataclass(frozen=True)
class Measured:
    """The rows of a claim, and when and where they were measured."""

    rows: tuple[Row, ...]
    date: str
    commit: str
    hardware: str

    @classmethod
    def now(cls, rows: Sequence[Row]) -> Measured:
        """Rows that were measured just now, with this checkout on this machine."""
        return cls(tuple(rows), datetime.date.today().isoformat(), _commit(), _machine(describe_hardware()))


def read(path: Path = RESULTS) -> dict[str, Measured]:
    """The claims in the file."""
    return {
        name: Measured(**{**claim, "rows": tuple(Row(**row) for row in claim["rows"])})
        for name, claim in json.loads(path.read_text(encoding="utf-8")).items()
    }


def write(found: Mapping[str, Measured], path: Path = RESULTS) -> None:
    """The claims as a file."""
    text = json.dumps({name: asdict(found[name]) for name in CLAIMS if name in found}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def page(found: Mapping[str, Measured]) -> str:
    """docs/benchmarks.md."""
    return "\n".join([_TOP, *(_section(name, found[name]) for name in CLAIMS if name in found)])


def _section(name: str, measured: Measured) -> str:
    claim = CLAIMS[name]
    where = f"`{claim.command}`, {measured.date}, commit {measured.commit}, {measured.hardware}:"
    rows = "\n".join(map(_line, measured.rows))
    about = "\n\n".join(textwrap.fill(paragraph, 120) for paragraph in claim.about.split("\n\n"))
    return f"## {claim.title}\n\n{about}\n\n{where}\n\n{_HEAD}\n{rows}\n"


def _line(row: Row) -> str:
    spread = f"{about(row.low)} to {about(row.high)}" if row.repetitions > 1 else ""
    result = f"{about(row.value)} {row.unit}".strip()
    return f"| {row.name} | {result} | {spread} | {row.repetitions} | {row.wanted} | {_MARKS[row.reached]} |"


def _machine(hardware: Mapping[str, Any]) -> str:
    gpus = ", ".join(hardware.get("gpus", ())) or "no GPU"
    return f"{hardware['cpu']}, {hardware['cores']} cores, {gpus}, Python {hardware['python']}"


def _commit() -> str:
    """The short hash of this checkout, with a + for changes beside it; `unknown` without git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
