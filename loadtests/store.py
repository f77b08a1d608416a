"""The folder of raw results, written while measuring; every report is derived from it and can be made again.

<folder>/<model>/run.json          what was asked: SLOs, settings, seed, manifest, hardware, server
<folder>/<model>/points.jsonl      one line per point, as soon as it is measured
<folder>/<model>/raw/probe-003.npz intended, sent and done times and the status of every request of a probe
<folder>/<model>/capacity.json     the result, when the search ended
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.errors import BadRequestError, ResultsError
from loadtests.point import Point
from loadtests.record import Record
from loadtests.result import CapacityResult, summarise
from loadtests.slo import Slo

FORMAT = 1
_RUN, _POINTS, _RAW, _CAPACITY = "run.json", "points.jsonl", "raw", "capacity.json"

_MEASURE = "give the folder that a search wrote: fathom capacity MODEL --slo p99=50ms --report DIR"


@dataclass(frozen=True)
class Run:
    """What `run.json` holds."""

    model: str
    server: str
    slos: tuple[Slo, ...]
    seed: int
    settings: Mapping[str, Any]
    manifest: Mapping[str, Any] | None
    hardware: Mapping[str, Any]
    started_at: str
    """ISO 8601 with offset."""

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "model": self.model,
            "server": self.server,
            "slos": [str(slo) for slo in self.slos],
            "seed": self.seed,
            "settings": dict(self.settings),
            "manifest": dict(self.manifest) if self.manifest is not None else None,
            "hardware": dict(self.hardware),
            "started_at": self.started_at,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Run:
        fields = {key: value for key, value in document.items() if key != "format"}
        fields["slos"] = tuple(Slo.parse(text) for text in document["slos"])
        return cls(**fields)

    def result(self, points: Sequence[Point], *, partial: str, folder: Path | None) -> CapacityResult:
        """What these points come to; see `summarise`."""
        return summarise(
            points,
            self.slos,
            model=self.model,
            server=self.server,
            base_seed=self.seed,
            partial=partial,
            manifest=self.manifest,
            hardware=self.hardware,
            settings=self.settings,
            folder=str(folder) if folder is not None else None,
        )


class Store:
    """Writes one run; an earlier run of the same model in the same folder is replaced, but for the points `kept`."""

    def __init__(self, folder: Path, run: Run, kept: Sequence[Point] = ()) -> None:
        self.folder = folder / run.model
        self.trouble = ""
        """What could not be written, and why."""
        self._given_up: set[str] = set()
        try:
            (self.folder / _RAW).mkdir(parents=True, exist_ok=True)
            raw = {self.folder / point.raw for point in kept if point.raw}
            for stale in [self.folder / _CAPACITY, *(self.folder / _RAW).glob("probe-*.npz")]:
                if stale not in raw:
                    stale.unlink(missing_ok=True)
            _replace(self.folder / _POINTS, "".join(json.dumps(point.to_json()) + "\n" for point in kept))
            _replace(self.folder / _RUN, json.dumps(run.to_json(), indent=2) + "\n")
        except OSError as error:
            raise BadRequestError(f"cannot write results to {self.folder}: {error.strerror}") from error

    def save_record(self, number: int, record: Record) -> str:
        """Returns the file's name relative to the run's folder."""
        name = f"{_RAW}/probe-{number:03d}.npz"
        return name if self._kept(_RAW, lambda: record.save(self.folder / name)) else ""

    def add(self, point: Point) -> None:
        self._kept(_POINTS, lambda: _append(self.folder / _POINTS, json.dumps(point.to_json()) + "\n"))

    def finish(self, result: CapacityResult) -> None:
        self._kept(_CAPACITY, lambda: _replace(self.folder / _CAPACITY, json.dumps(result.to_json(), indent=2) + "\n"))

    def _kept(self, what: str, write: Callable[[], None]) -> bool:
        """Whether it could be written. What once could not is not tried again: half a line may stand at the end."""
        if what in self._given_up:
            return False
        try:
            write()
        except OSError as error:
            self._given_up.add(what)
            why = f"cannot write {what}: {error.strerror}"
            self.trouble = self.trouble or f"{self.folder} does not hold all that was measured: {why}"
            return False
        return True


@dataclass(frozen=True)
class Stored:
    """A run read back, with the result recomputed from its points."""

    folder: Path
    run: Run
    result: CapacityResult

    def record(self, point: Point) -> Record:
        return Record.load(self.folder / point.raw)


def read_runs(folder: Path) -> list[Stored]:
    """All runs in a results folder (or in one run's folder), oldest first; ResultsError when there is none."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise ResultsError(f"{folder} {what}; {_MEASURE}")
    files = sorted([*folder.glob(_RUN), *folder.glob(f"*/{_RUN}")])
    if not files:
        raise ResultsError(f"{folder} holds no capacity results ({_RUN}); {_MEASURE}")
    return sorted((_read(file.parent) for file in files), key=lambda stored: stored.run.started_at)


def _read(folder: Path) -> Stored:
    path = folder / _RUN
    try:
        document = json.loads(path.read_text())
        if document.get("format") != FORMAT:
            raise ResultsError(f"{path} has format {document.get('format')}; this version of Fathom reads {FORMAT}")
        run = Run.from_json(document)
        path = folder / _POINTS
        points = _points(path)
        path = folder / _CAPACITY
        ended = json.loads(path.read_text()) if path.exists() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"cannot read {path}: {error}") from error
    partial = ""
    if ended is None:
        partial = "the search did not end"
    elif ended["partial"]:
        partial = str(ended["reason"]).partition("; ")[0]
    return Stored(folder, run, run.result(points, partial=partial, folder=folder))


def _points(path: Path) -> list[Point]:
    """One a line. A search that was killed may have left half a line at the end, which is no point yet."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    points = []
    for number, line in enumerate(lines, start=1):
        try:
            points.append(Point.from_json(json.loads(line)))
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ResultsError(f"cannot read {path} line {number}: {error}") from error
    return points


def _replace(path: Path, text: str) -> None:
    """The old file stays where the new one cannot be written."""
    scratch = path.with_name(f"{path.name}.part")
    try:
        scratch.write_text(text)
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line)
