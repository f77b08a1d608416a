"""The folder of raw results, written while measuring; every report is derived from it and can be made again.

<folder>/<model>/run.json          what was asked: SLOs, settings, seed, manifest, hardware, server
<folder>/<model>/points.jsonl      one line per point, as soon as it is measured
<folder>/<model>/raw/probe-003.npz intended, sent and done times and the status of every request of a probe
<folder>/<model>/capacity.json     the result, when the search ended
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from loadtests.errors import BadRequestError, ResultsError
from loadtests.records.documents import read
from loadtests.records.point import Point
from loadtests.records.record import Record
from loadtests.results.lock import writer
from loadtests.results.result import CUT_OFF, CapacityResult, summarise
from loadtests.slo import Slo, loosest_limit_ms
from loadtests.target.hardware import MACHINE

FORMAT = 1
_RUN, _POINTS, _RAW, _CAPACITY = "run.json", "points.jsonl", "raw", "capacity.json"

_MEASURE = "give the folder that a search wrote: fathom capacity MODEL --slo p99=50ms --report DIR"


@dataclass(frozen=True)
class _Numbers:
    """Settings that are computed with, where they are present."""

    budget_s: float = 0.0
    least_s: float | None = None
    max_per_s: float | None = None
    unloaded_ms: float | None = None
    busy_before_share: float | None = None
    workers: int = 1
    mix: Mapping[str, float] | None = None
    resumed: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Format:
    """What is read of `run.json` first."""

    format: int


@dataclass(frozen=True)
class _Ended:
    """What is read of `capacity.json`: all else follows from the points."""

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
        loosest_limit_ms(run.slos)
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


def model_folder(folder: Path, model: str) -> Path:
    """Where the results of a model lie in a results folder: KServe's names may have slashes."""
    return folder / quote(model, safe="+ ")


class Store:
    """Writes one run; an earlier run of the same model in the same folder is replaced, but for the points `kept`."""

    def __init__(self, folder: Path, run: Run, kept: Sequence[Point] = ()) -> None:
        self.folder = model_folder(folder, run.model)
        self.trouble = ""
        """What could not be written, and why."""
        self._given_up: set[str] = set()
        try:
            (self.folder / _RAW).mkdir(parents=True, exist_ok=True)
            if (self.folder / _RAW).is_symlink():  # stale files in it are removed
                raise OSError(errno.ELOOP, f"{_RAW} is a link to another folder")
            replace(self.folder / _POINTS, "".join(json.dumps(point.to_json()) + "\n" for point in kept))
            replace(self.folder / _RUN, json.dumps(run.to_json(), indent=2) + "\n")
            raw = {self.folder / point.raw for point in kept if point.raw}
            for stale in [self.folder / _CAPACITY, *(self.folder / _RAW).glob("probe-*.npz")]:
                if stale not in raw:
                    stale.unlink(missing_ok=True)
        except OSError as error:
            raise BadRequestError(f"cannot write results to {self.folder}: {error.strerror}", field="folder") from error

    def save_record(self, number: int, record: Record) -> str:
        """Returns the file's name relative to the run's folder."""
        name = f"{_RAW}/probe-{number:03d}.npz"
        return name if self._kept(_RAW, lambda: record.save(self.folder / name)) else ""

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
        """The requests of one point. Raises ResultsError, also for a file outside the run's folder."""
        with _naming_file(self.folder / _POINTS):
            path = self.folder / point.raw
            if not path.resolve().is_relative_to(self.folder.resolve()):
                raise ValueError(f"its raw results {point.raw} lead out of the folder")
        return Record.load(path)


def read_runs(folder: Path) -> list[Stored]:
    """All runs in a results folder (or in one run's folder), oldest first; ResultsError when there is none."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise ResultsError(f"{folder} {what}; {_MEASURE}", folder)
    files = sorted([*folder.glob(_RUN), *folder.glob(f"*/{_RUN}")])
    if not files:
        raise ResultsError(f"{folder} holds no capacity results ({_RUN}); {_MEASURE}", folder)
    return sorted((_read(file.parent) for file in files), key=lambda stored: stored.run.started_at)


def _read(folder: Path) -> Stored:
    with _naming_file(folder / _RUN) as path:
        document = json.loads(path.read_text(encoding="utf-8"))
        if (written := read(_Format, document).format) != FORMAT:
            raise ValueError(f"it has format {written}, and this version of Fathom reads {FORMAT}: measure again")
        run = Run.from_json(document)
    points = _points(folder / _POINTS, run)
    with _naming_file(folder / _CAPACITY) as path:
        ended = read(_Ended, json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
    if ended is None:
        process = writer(folder)
        partial = f"the search goes on in process {process}" if process else "the search did not end"
    else:
        partial = ended.reason.partition("; ")[0] if ended.partial else ""
    with _naming_file(folder):  # each field is what it should be, but edited ones may contradict one another
        return Stored(folder, run, run.result(points, partial=partial, folder=folder))


@contextlib.contextmanager
def _naming_file(path: Path, line: int | None = None) -> Iterator[Path]:
    """Whatever is wrong with a file becomes a line that names it."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError("it is no regular file")
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
                raise ValueError(f"it is about {', '.join(sorted(found))}, and {_RUN} about {', '.join(sorted(asked))}")
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


# Going on with an earlier search: which of its points count, and whether they may be mixed with new ones.


def earlier_run(
    folder: Path, model: str, slos: Sequence[Slo], manifest: Mapping[str, Any] | None, budget_s: float
) -> Stored:
    """The run to go on with.

    Raises ResultsError when there is none and BadRequestError when it measured something else or has spent the budget.
    """
    stored = next((run for run in read_runs(folder) if run.run.model == model), None)
    if stored is None:
        raise BadRequestError(f"{folder} has no search of {model} to resume", field="model")
    if sorted(map(str, stored.run.slos)) != sorted(map(str, slos)):
        before, now = (", ".join(map(str, given)) for given in (stored.run.slos, slos))
        raise BadRequestError(
            f"the search in {folder} was for {before}, not {now}: resume it with the same --slo", field="slos"
        )
    if stored.run.manifest != json.loads(json.dumps(manifest)):
        raise BadRequestError(
            f"{model} was exported anew since the search in {folder}: its points do not count any more",
            field="manifest",
        )
    spent_s = sum(point.took_s for point in usable_points(stored))
    if spent_s >= budget_s * 0.95:
        raise BadRequestError(
            f"the search in {folder} has spent {spent_s:.0f} s of its {budget_s:g} s; give a longer --budget to go on",
            field="budget_s",
        )
    return stored


def changes(before: Run, server: str, settings: Mapping[str, Any], hardware: Mapping[str, Any]) -> list[str]:
    """What is no longer as it was when the points so far were measured, now or at an earlier resumption."""
    found = list(before.settings.get("resumed") or ())
    then: dict[str, Any] = {**before.hardware, **before.settings}
    now: dict[str, Any] = {**hardware, **settings}
    if before.server.rpartition(":")[0] != server.rpartition(":")[0]:
        found.append(f"server {before.server}, then {server}")
    for key in (*MACHINE, "server_name"):
        if then.get(key) != now.get(key):
            found.append(f"{key.replace('_', ' ')} {json.dumps(then.get(key))}, then {json.dumps(now.get(key))}")
    return found


def usable_points(stored: Stored) -> list[Point]:
    """Those up to the first that was cut off and is measured again, which keeps numbers and seeds in order."""
    usable: list[Point] = []
    for point in stored.result.points:
        if point.stopped in CUT_OFF:
            break
        usable.append(point)
    return usable
