"""Recorded arrivals: a CSV file of offsets, with an optional model and payload number per row.

    offset_s,model,payload
    0.000,image_classifier,3
    0.012,text_embedding,0

The header may be left out; columns are then in this order and offsets in seconds. A header may name another unit
(`offset_ms`, `timestamp (us)`). Only differences between offsets count, so they may be negative or seconds since 1970.
Every complaint names the line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import InputFileError
from loadtests.workload.lines import read_lines
from loadtests.workload.mix import ModelMix
from loadtests.workload.variability import Variability

_COLUMNS = ("offset_s", "model", "payload")
_UNITS_S = {
    **dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millis", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "µs", "μs", "usec", "micros", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nanos", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
}
_UNIT = "|".join(filter(None, _UNITS_S))
_OFFSET = re.compile(
    rf"(?:offset|timestamp|time|arrival(?:[ _]time)?|t)(?:[ _]*[(\[]?(?P<unit>{_UNIT})[)\]]?)?|(?P<alone>{_UNIT})"
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_LARGEST_S = 1e11
"""Larger than any time in seconds that anybody means: the year 5138."""
_MOST_PAYLOADS = 2**31


@dataclass(frozen=True)
class Trace:
    """Rows in the order of time; offsets start at zero."""

    path: Path
    offsets_s: NDArray[np.float64]
    models: tuple[str, ...]
    """One per row, or none."""
    payloads: NDArray[np.int32] | None
    lines: tuple[int, ...]
    """Of the file, for complaints."""

    def __len__(self) -> int:
        return len(self.offsets_s)

    @property
    def duration_s(self) -> float:
        return float(self.offsets_s[-1])

    @cached_property
    def variability(self) -> Variability:
        return Variability.of(self.offsets_s)


@dataclass(frozen=True)
class _Form:
    """Where each column is, and how many seconds one unit of the offset has."""

    places: dict[str, int]
    unit_s: float = 1.0


def read_trace(path: Path) -> Trace:
    """Raises InputFileError, with the line that is wrong."""
    rows = _rows(path)
    form = _header(path, *rows[0]) if rows and not _is_number(rows[0][1][0]) else None
    if form is not None:
        rows = rows[1:]
    if not rows:
        raise InputFileError(path, None, "has no offsets: write one number of seconds per line")
    form = form or _Form(dict(zip(_COLUMNS, range(len(rows[0][1])), strict=False)))
    offsets_s: list[float] = []
    models: list[str] = []
    payloads: list[int] = []
    for line, row in rows:
        if len(row) != len(form.places):
            due = ", ".join(form.places)
            raise InputFileError(path, line, f"{len(row)} columns where {len(form.places)} are due ({due})")
        offsets_s.append(_offset_s(path, line, row[form.places["offset_s"]], form.unit_s))
        if offsets_s[-1] < max(offsets_s[-2:]):
            text = row[form.places["offset_s"]]
            raise InputFileError(path, line, f"offset {text} is before the one above it; sort the trace by time")
        if "model" in form.places:
            models.append(row[form.places["model"]])
        if "payload" in form.places:
            payloads.append(_payload(path, line, row[form.places["payload"]]))
    numbers = np.asarray(payloads, np.int32) if payloads else None
    from_zero_s = np.asarray(offsets_s, np.float64) - offsets_s[0]
    return Trace(path, from_zero_s, tuple(models), numbers, tuple(line for line, _ in rows))


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The cells of each line that has any, without the empty ones at its end; commas, semicolons or tabs part them."""
    lines = read_lines(path)
    separator = next((mark for mark in (";", "\t") if lines and mark in lines[0][1]), ",")
    rows = []
    for number, line in lines:
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], delimiter=separator, strict=True))]
        except csv.Error as error:
            raise InputFileError(path, number, f"is not a row of CSV: {error}") from error
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            rows.append((number, cells))
    return rows


def _header(path: Path, line: int, header: list[str]) -> _Form:
    places: dict[str, int] = {}
    unit_s = 1.0
    for place, name in enumerate(header):
        column = name.lower()
        if found := _OFFSET.fullmatch(column):
            column, unit_s = "offset_s", _UNITS_S[found["unit"] or found["alone"] or ""]
        if column not in _COLUMNS:
            raise InputFileError(
                path,
                line,
                f"{name!r} is neither a number nor a column; the columns are {', '.join(_COLUMNS)} (or offset_ms, "
                "offset_us, offset_ns)",
            )
        if column in places:
            raise InputFileError(path, line, f"column {column} comes twice")
        places[column] = place
    if "offset_s" not in places:
        raise InputFileError(path, line, "there is no column offset_s")
    return _Form(places, unit_s)


def _offset_s(path: Path, line: int, text: str, unit_s: float) -> float:
    if not _is_number(text):
        raise InputFileError(path, line, f"{text!r} is not an offset; write one number of seconds per line")
    offset_s = float(text) * unit_s
    if abs(offset_s) > _LARGEST_S:
        raise InputFileError(
            path, line, f"offset {text} is too large for its unit; name the unit in a header, as in offset_ms"
        )
    return offset_s


def _payload(path: Path, line: int, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < _MOST_PAYLOADS):
        raise InputFileError(path, line, f"payload {text!r} is not a number from 0")
    return int(text)


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None


def choices_of(trace: Trace, models: Sequence[str], mix: ModelMix, *, seed: int) -> NDArray[np.int32]:
    """The payload that each request carries; rows may name a model and number its payload (from 0).

    Raises InputFileError for a model that is not asked, or a payload that it does not have.
    """
    if not trace.models:
        owners = mix.owners(len(trace), seed=seed)
    else:
        known = {model: number for number, model in enumerate(models)}
        for line, model in zip(trace.lines, trace.models, strict=True):
            if model not in known:
                problem = f"model {model!r} is not in the workload: {', '.join(models)}"
                raise InputFileError(trace.path, line, problem)
        owners = np.asarray([known[model] for model in trace.models])
    if trace.payloads is not None:
        sizes = np.asarray(mix.sizes)[owners]
        if (beyond := np.flatnonzero(trace.payloads >= sizes)).size:
            row = int(beyond[0])
            raise InputFileError(
                trace.path,
                trace.lines[row],
                f"there is no payload {trace.payloads[row]} of {models[owners[row]]}, which has {sizes[row]} (from 0)",
            )
    return mix.chosen(owners, trace.payloads, seed=seed)
