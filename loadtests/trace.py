"""Recorded arrivals: a CSV file of offsets in seconds, with an optional model and payload number per row.

    offset_s,model,payload
    0.000,image_classifier,3
    0.012,text_embedding,0

The header may be left out; columns are then in this order. Every complaint names the line.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import BadRequestError

_COLUMNS = ("offset_s", "model", "payload")


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


def read_trace(path: Path) -> Trace:
    """Raises BadRequestError with the line that is wrong."""
    rows: list[tuple[int, list[str]]] = []
    try:
        with path.open(newline="") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadRequestError(f"cannot read the trace {path}: {getattr(error, 'strerror', None) or error}") from error
    columns = _columns(path, *rows[0]) if rows and not _is_number(rows[0][1][0]) else None
    if columns is not None:
        rows = rows[1:]
    if not rows:
        raise BadRequestError(f"{path} holds no offsets; write one number of seconds per line")
    places = columns or dict(zip(_COLUMNS, range(len(rows[0][1])), strict=False))
    offsets: list[float] = []
    models: list[str] = []
    payloads: list[int] = []
    for line, row in rows:
        if len(row) <= max(places.values()):
            raise BadRequestError(f"{path} line {line}: {len(row)} columns where {', '.join(places)} are due")
        offsets.append(_offset_s(path, line, row[places["offset_s"]], offsets[-1] if offsets else -math.inf))
        if "model" in places:
            models.append(row[places["model"]].strip())
        if "payload" in places:
            payloads.append(_payload(path, line, row[places["payload"]]))
    offsets_s = np.asarray(offsets, np.float64) - offsets[0]
    numbers = np.asarray(payloads, np.int32) if payloads else None
    return Trace(path, offsets_s, tuple(models), numbers, tuple(line for line, _ in rows))


def _columns(path: Path, line: int, header: list[str]) -> dict[str, int]:
    """Where each column is; the first is always the offset, whatever it is called."""
    names = ["offset_s", *(name.strip().lower() for name in header[1:])]
    if unknown := set(names) - set(_COLUMNS):
        raise BadRequestError(
            f"{path} line {line}: column {min(unknown)!r} is unknown; there are {', '.join(_COLUMNS)}"
        )
    return {name: names.index(name) for name in names}


def _offset_s(path: Path, line: int, text: str, before_s: float) -> float:
    if not _is_number(text):
        raise BadRequestError(
            f"{path} line {line}: {text!r} is not an offset in seconds; write one number of seconds per line"
        )
    offset_s = float(text)
    if not math.isfinite(offset_s):
        raise BadRequestError(f"{path} line {line}: offset {text} is not a number of seconds")
    if offset_s < before_s:
        raise BadRequestError(f"{path} line {line}: offset {text} is before the one above it; sort the trace by time")
    return offset_s


def _payload(path: Path, line: int, text: str) -> int:
    if not text.strip().isdigit():
        raise BadRequestError(f"{path} line {line}: payload {text!r} is not a number from 0")
    return int(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
