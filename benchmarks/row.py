"""One measured figure: its name, value, spread and bound."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """`value` is the median over `repetitions` interleaved ones; `low` and `high` are the extremes.

    `wanted` is the bound to reach, as text with its direction (">= 0.9"); empty where the row only informs.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str
    wanted: str
    detail: str
    repetitions: int

    @property
    def reached(self) -> bool | None:
        """Whether the median keeps the bound; None where there is none."""
        if not self.wanted:
            return None
        direction, bound = self.wanted.split()
        return self.value >= float(bound) if direction == ">=" else self.value <= float(bound)


def from_repetitions(name: str, values: Sequence[float], *, unit: str, wanted: str = "", detail: str = "") -> Row:
    """A row from one value per repetition."""
    return Row(
        name=name,
        value=statistics.median(values),
        low=min(values),
        high=max(values),
        unit=unit,
        wanted=wanted,
        detail=detail,
        repetitions=len(values),
    )
