"""Numbers as they are shown to a person."""

from __future__ import annotations


def cell(value: float | None) -> str:
    """An accuracy figure for a table: five significant digits, `-` where it was not measured."""
    return "-" if value is None else f"{value:.5g}"


def percent(share: float, digits: int = 1) -> str:
    """`0.992` -> `99.2 %`."""
    return f"{100 * share:.{digits}f} %"
