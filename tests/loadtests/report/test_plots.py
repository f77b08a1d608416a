"""Words in the report's pictures, by the places where matplotlib really renders them."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from loadtests.report.labels import label_line

LIMIT = 100.0


@pytest.fixture
def axes() -> Any:
    figure = Figure(figsize=(9.6, 4.4), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_yscale("log")
    axes.set_xlim(0, 400)
    axes.set_ylim(1, 1000)
    return axes


@pytest.mark.parametrize(
    ("marks", "side", "above"),
    [
        ([(200, 50)], "right", True),
        ([(380, 120)], "left", True),
        ([(380, 120), (10, 120)], "right", False),
        ([(380, 120), (10, 120), (390, 90)], "left", False),
    ],
)
def test_words_on_a_line_keep_off_the_marks(
    axes: Any, marks: list[tuple[float, float]], side: str, above: bool
) -> None:
    label_line(axes, LIMIT, "p99 limit 100ms", "#000000", marks)
    axes.figure.draw_without_rendering()
    (box,) = [text.get_window_extent() for text in axes.texts]
    line = axes.transData.transform((0, LIMIT))[1]
    assert (box.x0 > 300, box.y0 > line) == (side == "right", above)
    assert not any(box.contains(*axes.transData.transform(mark)) for mark in marks)
