"""The folder of raw results, written while measuring; every report is derived from it and can be made again.

Each run has a folder of its own (see `folders`) with these files:

run.json          what was asked: SLOs, settings, seed, manifest, hardware, server
points.jsonl      one line per point, as soon as it is measured
raw/probe-003.npz intended, sent and done times and the status of every request of a probe
capacity.json     the result, when the search ended
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.errors import BadRequestError, ResultsError
from loadtests.records.batching import Batching
from loadtests.records.documents import read
from loadtests.records.point import Point
from loadtests.records.record import Record
from loadtests.results import folders
from loadtests.results.folders import RUN_FILE
from loadtests.results.lock import writer
from loadtests.results.result import CapacityResult, summarise
from loadtests.slo import Slo, check_limited
from loadtests.workload.arrivals import POISSON
from loadtests.workload.sizes import Sizes
from loadtests.workload.variability import Variability

FORMAT = 1
_POINTS, RAW, _CAPACITY = "points.jsonl", "raw", "capacity.json"

_MEASURE = "name the folder of a search: fathom capacity MODEL --slo p99=50ms --report DIR"


@dataclass(frozen=True)
class _Numbers:
    """Settings that are computed with, where they are present."""

    budget_s: float = 0.0
    least_s: float | None = None
    filled_s: float | None = None
    start_per_s: float | None = None
    max_per_s: float | None = None
    unloaded_ms: float | None = None
    busy_before_share: float | None = None
    workers: int = 1
    payload_bytes_mean: float | None = None
    payloads_sha256: str | None = None
    model_config_sha256: str | None = None
    payload_sizes: Mapping[str, Sizes] | None = None
    inputs: Mapping[str, str] | None = None
    arrivals: str = POISSON.name
    arrivals_sha256: str = ""
    arrivals_recorded: Variability | None = None
    mix: Mapping[str, float] | None = None
    batching: Mapping[str, Batching] | None = None
    resumed: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Format:
    """The part of `run.json` that is read first."""

    format: int


@dataclass(frozen=True)
class _Ended:
    """The part of `capacity.json` that is read: all else follows from the points."""

    partial: bool
    reason: str


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
    def from_json(cls, document: Any) -> Run:
        """ValueError that says what is wrong with it."""
        run = read(cls, document)
        read(_Numbers, run.settings)
        check_limited(run.slos)
        return run

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
    """Writes one run into a new folder among those of its model; no other run is touched."""

    def __init__(self, folder: Path, run: Run, kept: Sequence[Point] = (), *, at: Path | None = None) -> None:
        """`at` is the folder of an earlier run to go on with instead, of whose points these are kept.

        BadRequestError: it cannot be written.
        """
        self.trouble = ""
        """What could not be written, and why."""
        self._given_up: set[str] = set()
        home = folders.home_of(at, run.model) if at else folders.model_folder(folder, run.model)
        self.folder = at or home
        try:
            self.folder = at or folders.make_run_folder(home, run.started_at)
            self._begin(run, kept)
        except OSError as error:
            if self.folder not in (at, home):  # it is new, and nothing is in it
                shutil.rmtree(self.folder, ignore_errors=True)
            raise BadRequestError(f"cannot write results to {home}: {error.strerror}", field="folder") from error
        folders.point_latest(home, self.folder)

    def _begin(self, run: Run, kept: Sequence[Point]) -> None:
        (self.folder / RAW).mkdir(exist_ok=True)
        if (self.folder / RAW).is_symlink():  # stale files in it are removed
            raise OSError(errno.ELOOP, f"{RAW} is a link to another folder")
        replace(self.folder / _POINTS, "".join(json.dumps(point.to_json()) + "\n" for point in kept))
        replace(self.folder / RUN_FILE, json.dumps(run.to_json(), indent=2) + "\n")
        raw = {self.folder / point.raw for point in kept if point.raw}
        for stale in [self.folder / _CAPACITY, *(self.folder / RAW).glob("probe-*.npz")]:
            if stale not in raw:
                stale.unlink(missing_ok=True)

    def save_record(self, number: int, record: Record) -> str:
        """Returns the file's name relative to the run's folder."""
        name = f"{RAW}/probe-{number:03d}.npz"
        return name if self._kept(RAW, lambda: record.save(self.folder / name)) else ""

    def add(self, point: Point) -> None:
        self._kept(_POINTS, lambda: _append(self.folder / _POINTS, json.dumps(point.to_json()) + "\n"))

    def finish(self, result: CapacityResult) -> None:
        self._kept(_CAPACITY, lambda: replace(self.folder / _CAPACITY, json.dumps(result.to_json(), indent=2) + "\n"))

    def _kept(self, what: str, write: Callable[[], None]) -> bool:
        """Whether it could be written. What once could not is not tried again: half a line may stand at the end."""
        if what in self._given_up:
            return False
        try:
            write()
        except OSError as error:
            self._given_up.add(what)
            why = f"cannot write {what}: {error.strerror}"
            self.trouble = self.trouble or f"{self.folder} does not contain the whole result: {why}"
            return False
        return True


@dataclass(frozen=True)
class Stored:
    """A run read back, with the result recomputed from its points."""

    folder: Path
    run: Run
    result: CapacityResult

    def record(self, point: Point) -> Record:
        """The requests of one point. Raises ResultsError, also for a file outside the run's folder."""
        with _naming_file(self.folder / _POINTS):
            path = self.folder / point.raw
            if not path.resolve().is_relative_to(self.folder.resolve()):
                raise ValueError(f"its raw results {point.raw} lead out of the folder")
        return Record.load(path)


def read_runs(folder: Path) -> list[Stored]:
    """The newest run of each model in a results folder, that of a model's folder, or that of a run's own; oldest first.

    ResultsError when there is none, or when one cannot be read.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise ResultsError(f"{folder} {what}; {_MEASURE}", folder)
    with _naming_file(folder):
        found = folders.newest_runs(folder)
    if not found:
        raise ResultsError(f"{folder} has no capacity results ({RUN_FILE}); {_MEASURE}", folder)
    return sorted(map(_read, found), key=lambda stored: stored.run.started_at)


def _read(folder: Path) -> Stored:
    with _naming_file(folder / RUN_FILE) as path:
        document = json.loads(path.read_text(encoding="utf-8"))
        if (written := read(_Format, document).format) != FORMAT:
            raise ValueError(f"it has format {written}, and this version of Fathom reads {FORMAT}: measure again")
        run = Run.from_json(document)
    points = _points(folder / _POINTS, run)
    with _naming_file(folder / _CAPACITY) as path:
        ended = read(_Ended, json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
    if ended is None:
        home = folders.home_of(folder, run.model)
        newest = folders.newest_run(home)
        process = writer(home) if newest and newest.samefile(folder) else ""
        partial = f"the search is still running in process {process}" if process else "the search did not end"
    else:
        partial = ended.reason.partition("; ")[0] if ended.partial else ""
    with _naming_file(folder):  # each field is what it should be, but edited ones may contradict one another
        return Stored(folder, run, run.result(points, partial=partial, folder=folder))


@contextlib.contextmanager
def _naming_file(path: Path, line: int | None = None) -> Iterator[Path]:
    """Whatever is wrong with a file becomes a line that names it."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError("it is not a regular file")
        yield path
    except (OSError, ValueError, ArithmeticError, LookupError, TypeError, RecursionError) as error:
        where = path if line is None else f"{path} line {line}"
        raise ResultsError(f"cannot read {where}: {error}", path, line) from error


def _points(path: Path, run: Run) -> list[Point]:
    """One a line. A search that was killed may have left half a line at the end, which is no point yet."""
    if not path.exists():
        return []
    with _naming_file(path):
        *lines, last = path.read_text(encoding="utf-8").split("\n")
        with contextlib.suppress(json.JSONDecodeError):
            lines += [last] if json.loads(last) else []
    points = []
    for number, line in enumerate(lines, start=1):
        with _naming_file(path, number):
            point = Point.from_json(json.loads(line))
            if (found := {count.slo for count in point.slos}) != (asked := set(map(str, run.slos))):
                about = ", ".join(sorted(found)), ", ".join(sorted(asked))
                raise ValueError(f"it is about {about[0]}, and {RUN_FILE} about {about[1]}")
            points.append(point)
    return points


def replace(path: Path, content: str | bytes) -> None:
    """Write a file anew: the old one stays where that fails, and a link is replaced, not followed."""
    scratch = path.with_name(f"{path.name}.part")
    try:
        scratch.unlink(missing_ok=True)
        with scratch.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line)
