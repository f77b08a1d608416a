"""How long a batch takes: a table of measured seconds by rows and by instances that are busy at the same time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadtests.errors import BadRequestError


@dataclass(frozen=True)
class BatchTimes:
    """Seconds of a batch by the instances that are busy when it starts (itself included) and by its rows.

    `BatchTimes({1: {1: 0.002, 8: 0.007}, 2: {1: 0.003, 8: 0.013}})`. Between measured sizes the seconds lie on a
    straight line. Beyond the largest size they go on as between the last two; below the smallest they stay. The same
    holds for the busy instances, except that beyond the most that were measured they stay. Raises BadRequestError for
    an empty table and for seconds that are not above zero.
    """

    seconds: Mapping[int, Mapping[int, float]]
    variation: float = 0.0
    """Coefficient of variation of equal batches (standard deviation / mean). Each batch's time is drawn from the gamma
    distribution with that mean: 0 is constant, 1 is exponential."""

    def __post_init__(self) -> None:
        if not self.seconds or not all(self.seconds.values()):
            raise BadRequestError(
                "a table of batch times needs a measured size for each number of instances", field="seconds"
            )
        for busy, row in self.seconds.items():
            for rows, seconds in row.items():
                if not seconds > 0 or rows < 1 or busy < 1:
                    raise BadRequestError(
                        f"a batch of {rows} rows on {busy} instances cannot take {seconds:g} s; give more than 0 s for "
                        "1 row and 1 instance or more",
                        field="seconds",
                    )

    @classmethod
    def constant(cls, seconds: float, per_row_s: float = 0.0, *, variation: float = 0.0) -> BatchTimes:
        """`seconds + per_row_s * rows`, however many instances are busy."""
        return cls({1: {1: seconds + per_row_s, 2: seconds + 2 * per_row_s}}, variation)

    def __call__(self, rows: float, busy: int = 1) -> float:
        """Mean seconds of a batch of so many rows."""
        measured = sorted(self.seconds)
        at = bisect_right(measured, busy)
        if at == 0 or at == len(measured):
            return _along(self.seconds[measured[0 if at == 0 else -1]], rows)
        low, high = measured[at - 1], measured[at]
        share = (busy - low) / (high - low)
        return (1 - share) * _along(self.seconds[low], rows) + share * _along(self.seconds[high], rows)

    def beside(self, work_s: float, *, instances: int, threads: int, cores: int) -> BatchTimes:
        """The times where each row brings `work_s` CPU seconds of other work, such as handling its request.

        A batch keeps `threads` cores busy. As long as cores are idle, they do the other work meanwhile. Otherwise
        batches take as long as the cores need for both.
        """

        def stretched_s(busy: int, rows: int) -> float:
            seconds = self(rows, busy)
            return max(seconds, (min(busy * threads, cores) * seconds + busy * rows * work_s) / cores)

        sizes = {rows for row in self.seconds.values() for rows in row}
        table = {busy: {rows: stretched_s(busy, rows) for rows in sizes} for busy in range(1, instances + 1)}
        return BatchTimes(table, self.variation)

    def to_json(self) -> dict[str, Any]:
        table = {str(busy): {str(rows): s for rows, s in row.items()} for busy, row in self.seconds.items()}
        return {"seconds": table, "variation": self.variation}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> BatchTimes:
        table = {int(busy): {int(rows): s for rows, s in row.items()} for busy, row in document["seconds"].items()}
        return cls(table, document.get("variation", 0.0))


def of_shape(tables: Mapping[int, BatchTimes], shape: int) -> BatchTimes:
    """The times of the next larger class of shape where this one was not measured, else of the largest."""
    return tables[min((known for known in tables if known >= shape), default=max(tables))]


def _along(row: Mapping[int, float], rows: float) -> float:
    """On the straight lines through the measured sizes."""
    sizes = sorted(row)
    if rows <= sizes[0] or len(sizes) == 1:
        return row[sizes[0]]
    at = min(bisect_right(sizes, rows), len(sizes) - 1)
    low, high = sizes[at - 1], sizes[at]
    slope = (row[high] - row[low]) / (high - low)
    return max(row[low] + slope * (rows - low), min(row.values()))
