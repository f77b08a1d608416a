"""Labels of axes and inside pictures, placed where no mark lies.

The places are computed before the layout is final, in points, from the usual width of a letter: near enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_SIZE_PT = 10
_LETTER_PT, _LINE_PT = 0.6 * _SIZE_PT, 1.2 * _SIZE_PT
_MARK_PT, _GAP_PT = 5.0, 4.0  # half of a large mark; between words and a line


def label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x, labelpad=6)
    axes.set_ylabel(y, labelpad=9)  # the page's font is wider than the one the layout was computed with


def label_line(axes: Any, y: float, text: str, colour: str, marks: Sequence[tuple[float, float]]) -> None:
    """Writes along a horizontal line at `y`: at its right or left end, above or below, where fewest marks lie."""
    width_pt, height_pt = _LETTER_PT * len(text), _LINE_PT
    dots = axes.transData.transform(np.asarray(marks, dtype=float))
    (left, right), line = axes.transAxes.transform([(0, 0), (1, 0)])[:, 0], axes.transData.transform((0, y))[1]

    def crowd(place: tuple[str, bool]) -> int:
        side, above = place
        corner = np.array([right - width_pt if side == "right" else left, line + _GAP_PT * (1 if above else -1)])
        corner[1] -= 0 if above else height_pt
        outside = np.maximum(corner - dots, dots - corner - (width_pt, height_pt))
        return int(np.count_nonzero(np.all(outside < _MARK_PT, axis=1)))

    side, above = min((("right", True), ("left", True), ("right", False), ("left", False)), key=crowd)
    axes.annotate(
        text, (1 if side == "right" else 0, y), (-2 if side == "right" else _GAP_PT, _GAP_PT if above else -_GAP_PT),
        xycoords=("axes fraction", "data"), textcoords="offset points", color=colour, fontsize=_SIZE_PT, ha=side,
        va="bottom" if above else "top",
    )  # fmt: skip
