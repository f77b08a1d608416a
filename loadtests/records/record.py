"""What a probe recorded, request by request, and the percentiles and histograms made from it."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import ResultsError
from loadtests.slo import Measure

Floats = NDArray[np.float64]

OK = 0
CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE = 1, 4, 14
EMPTY_RESPONSE, UNANSWERED, NOT_SENT = 100, 101, 102
"""Statuses of our own beside the gRPC codes 0..16: OK without a body; no answer in time; given up before sending."""

_MOST_BYTES = 4 << 30
_ALWAYS = ("intended_s", "sent_s", "done_s", "status", "model", "worker")
_COLUMNS = (*_ALWAYS, "first_s", "gap_s", "parts", "begun_s", "requests")
_INSTANTS = ("intended_s", "sent_s", "done_s", "first_s", "begun_s")
MOST_TIMELINES = 24
"""Streams of a probe whose parts are kept one by one."""

LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS = 1, 3_600_000_000, 3


StopReason = Literal["", "backlog", "hopeless", "connection lost", "asked", "budget"]


@dataclass(frozen=True)
class Outcome:
    """What the generator says about itself after a probe."""

    wall_s: float
    cpu_s: float
    """User and system time of the generator process while it fired."""
    stopped: StopReason
    started_unix_s: float
    messages: dict[str, str] = field(default_factory=dict)
    """The server's first message per status that is not OK."""
    workers: tuple[tuple[float, float], ...] = ()
    """CPU and wall seconds of each of several generators, in the order of `Record.worker`; empty for a single one."""
    priority: str = ""
    """How the operating system schedules the generator: `real-time`, `nice -10` or `normal`; or several of them."""
    lost: str = ""
    """How a generator ended in the middle of the probe, which makes it worthless; empty when none did."""


@dataclass(frozen=True)
class Record:
    """One row per scheduled request; times in seconds from the start of the schedule, NaN where nothing happened.

    `first_s`, `gap_s` and `parts` are about answers that came in parts (streams). They are NaN and 0 where no answer
    did. Of a model that keeps state a row is a sequence of requests: its times are those of the last one, but it is as
    late as the latest was sent, and it has failed if any has.
    """

    intended_s: Floats
    sent_s: Floats
    done_s: Floats
    status: NDArray[np.uint8]
    model: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    """Which model of a mix each request asked; all 0 where there is only one."""
    worker: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    """Which generator sent each request; all 0 where there is only one."""
    first_s: Floats = field(default_factory=lambda: np.zeros(0))
    """When the first part of each answer was complete."""
    gap_s: Floats = field(default_factory=lambda: np.zeros(0))
    """The longest time between two parts of each answer, NaN where fewer than two came; of a sequence the longest time
    from when one of its requests was due until it was answered."""
    parts: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    """Parts of each answer; a model that generates text sends one for each token."""
    begun_s: Floats = field(default_factory=lambda: np.zeros(0))
    """When the first request of each sequence was due; NaN where a row is one request."""
    requests: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    """Requests of each sequence; 0 where a row is one request."""
    timelines: Mapping[int, Floats] = field(default_factory=dict)
    """Of at most MOST_TIMELINES rows, when each part came."""

    def __post_init__(self) -> None:
        rows = len(self.intended_s)
        for name, nothing in _NOTHING.items():
            if len(getattr(self, name)) != rows:
                object.__setattr__(self, name, np.full(rows, nothing))

    def __len__(self) -> int:
        return len(self.intended_s)

    @property
    def attempted(self) -> NDArray[np.bool_]:
        """Requests that were really sent (an early stop leaves the rest out)."""
        return np.not_equal(self.status, NOT_SENT)

    @property
    def ok(self) -> NDArray[np.bool_]:
        return np.equal(self.status, OK)

    @property
    def streamed(self) -> bool:
        """Whether any answer came in parts."""
        return bool(self.parts.any())

    @property
    def unit(self) -> str:
        """What a row is: `requests`, or `sequences` where all models keep state."""
        return "sequences" if len(self) and self.requests.all() else "requests"

    def of_streaming_models(self) -> Record:
        """Only the requests to models of which any answer came in parts."""
        return self.where(np.isin(self.model, self.model[self.parts > 0]))

    # One entry per attempted request, infinite where there was no good answer.

    def latencies_ms(self) -> Floats:
        """Done minus *intended* time."""
        latency_ms = (self.done_s - self.intended_s) * 1e3
        return np.where(self.ok, latency_ms, np.inf)[self.attempted]

    def ttft_ms(self) -> Floats:
        """Time to first token: the first part minus the *intended* time.

        A stream that was still running when the probe was stopped counts, for its first part is known.
        """
        known = (self.ok | np.equal(self.status, UNANSWERED)) & (self.parts > 0)
        return np.where(known, (self.first_s - self.intended_s) * 1e3, np.inf)[self.attempted]

    def itl_ms(self) -> Floats:
        """Inter-token latency: (latency - ttft) / (parts - 1); 0 for an answer of one part."""
        each_ms = (self.done_s - self.first_s) * 1e3 / np.maximum(self.parts.astype(np.int64) - 1, 1)
        return np.where(self.ok, np.where(self.parts > 1, each_ms, 0.0), np.inf)[self.attempted]

    def gaps_ms(self) -> Floats:
        """The longest time between two parts, 0 for an answer of one part; of a sequence its slowest request."""
        return np.where(self.ok, np.nan_to_num(self.gap_s * 1e3), np.inf)[self.attempted]

    def measured_ms(self, measure: Measure) -> Floats:
        """What an SLO with this measure is about."""
        return {"": self.latencies_ms, "ttft": self.ttft_ms, "itl": self.itl_ms, "gap": self.gaps_ms}[measure]()

    def send_lags_ms(self) -> Floats:
        """How much later than intended each request left the generator."""
        return ((self.sent_s - self.intended_s) * 1e3)[self.attempted]

    def achieved_per_s(self) -> float:
        """Good answers per second, from the first intended send to the last good answer."""
        answered = int(self.ok.sum())
        if answered < 2:
            return 0.0
        span_s = float(np.max(self.done_s[self.ok]) - self.intended_s[0])
        return (answered - 1) / span_s if span_s > 0 else 0.0

    def known_at(self, stop_s: float, limit_s: float) -> Record:
        """Only the requests scheduled at least `limit_s` before a stop: of those it is known whether they were late.

        The younger ones are left out altogether, for among them only the quick ones have been answered.
        """
        return self.where(self.intended_s <= max(stop_s - limit_s, 0.0))

    def ended_at(self, stop_s: float) -> Record:
        """Only the requests whose answers had ended by a stop: of those it is known how evenly the parts came.

        The quick ones end first, so the share over a limit between parts is no smaller among all of them.
        """
        return self.where((self.intended_s <= max(stop_s, 0.0)) & np.not_equal(self.status, UNANSWERED))

    def where(self, chosen: NDArray[Any]) -> Record:
        """Only the requests of a mask, or all in the order of an index."""
        rows = np.arange(len(self))[chosen].tolist() if self.timelines else ()
        kept = {new: self.timelines[old] for new, old in enumerate(rows) if old in self.timelines}
        return Record(**{name: getattr(self, name)[chosen] for name in _COLUMNS}, timelines=kept)

    def since(self, zero_s: float) -> Record:
        """The record with all times counted from another start."""
        moved = {name: getattr(self, name) - zero_s for name in _INSTANTS}
        return replace(self, **moved, timelines={row: times - zero_s for row, times in self.timelines.items()})

    def columns(self) -> dict[str, NDArray[Any]]:
        """The stored columns by name; those of streams and sequences only where there are any."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        columns = {name: column for name, column in columns.items() if name in _ALWAYS or _holds_any(column)}
        if self.timelines:
            columns["timeline_row"] = np.repeat(list(self.timelines), list(map(len, self.timelines.values())))
            columns["timeline_s"] = np.concatenate(list(self.timelines.values()))
        return columns

    @classmethod
    def of_columns(cls, columns: Mapping[str, NDArray[Any]]) -> Record:
        """The inverse of `columns`; others are passed over. Raises KeyError, ValueError."""
        return cls(**{name: columns[name] for name in _COLUMNS if name in columns}, timelines=_timelines(columns))

    def save(self, path: Path) -> None:
        """One compressed file; microsecond columns are exact to 0.1 us up to hours."""
        written = io.BytesIO()  # where a disk is full, numpy would leave an archive that complains at its end
        np.savez_compressed(written, **self.columns())
        try:
            path.write_bytes(written.getbuffer())
        except OSError:
            path.unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: Path) -> Record:
        try:
            if not path.is_file():
                raise ValueError("it is missing or no regular file")
            with ZipFile(path) as archive:
                if (size := sum(part.file_size for part in archive.infolist())) > _MOST_BYTES:
                    raise ValueError(f"its columns have {size:,} bytes together, more than {_MOST_BYTES:,}")
            with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:
                record = cls.of_columns(columns)
            shapes = {getattr(record, name).shape for name in _COLUMNS}
            if shapes != {(len(record),)}:
                raise ValueError(f"its columns have the shapes {', '.join(map(str, sorted(shapes)))}")
            if unknown := [row for row in record.timelines if not 0 <= row < len(record)]:
                raise ValueError(f"it has a time line of request {unknown[0]}, of {len(record):,}")
            return record
        except Exception as error:  # zipfile, zlib, lzma and numpy raise some fifteen kinds between them
            raise ResultsError(f"cannot read the raw results {path}: {error}", path) from error

    @classmethod
    def merge(cls, records: Sequence[Record]) -> Record:
        """The probes of several generators that started together, ordered by intended time."""
        if len(records) == 1:
            return records[0]
        starts = np.cumsum([0, *map(len, records)]).tolist()
        timelines = {
            start + row: times
            for start, record in zip(starts, records, strict=False)
            for row, times in list(record.timelines.items())[: MOST_TIMELINES // len(records)]
        }
        columns = {name: np.concatenate([getattr(record, name) for record in records]) for name in _COLUMNS}
        together = cls(**columns, timelines=timelines)
        return together.where(np.argsort(together.intended_s, kind="stable"))


_NOTHING: dict[str, Any] = {
    "model": np.uint8(0),
    "worker": np.uint8(0),
    "first_s": np.nan,
    "gap_s": np.nan,
    "parts": np.uint32(0),
    "begun_s": np.nan,
    "requests": np.uint32(0),
}
"""What a column holds that was not given."""


def _holds_any(column: NDArray[Any]) -> bool:
    return bool(np.any(np.isfinite(column)) if column.dtype.kind == "f" else column.any())


def _timelines(columns: Mapping[str, NDArray[Any]]) -> dict[int, Floats]:
    """The time lines of a stored record. ValueError: not a time for each row."""
    if "timeline_row" not in columns:
        return {}
    rows, times = columns["timeline_row"], columns["timeline_s"]
    if rows.shape != times.shape:
        raise ValueError(f"its time lines have the shapes {rows.shape} and {times.shape}")
    return {int(row): times[rows == row] for row in dict.fromkeys(rows.tolist())}


def finite(value: float) -> float | None:
    """The value, or None where JSON cannot represent it."""
    return value if math.isfinite(value) else None


def percentile(values: Floats, share: float) -> float:
    """The exact nearest-rank percentile: the smallest value that at least `share` of all values do not exceed."""
    if not len(values):
        return float("nan")
    rank = max(int(np.ceil(share * len(values) - 1e-9)) - 1, 0)
    return float(np.partition(values, rank)[rank])


def histogram(latencies_ms: Floats) -> Any:
    """An `hdrh.histogram.HdrHistogram` of the finite latencies: microseconds, three significant digits, mergeable."""
    from hdrh.histogram import HdrHistogram

    filled = HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS)
    finite_us = np.clip(np.rint(latencies_ms[np.isfinite(latencies_ms)] * 1e3), LOWEST_US, HIGHEST_US)
    values, counts = np.unique(finite_us.astype(np.int64), return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        filled.record_value(value, count)
    return filled
