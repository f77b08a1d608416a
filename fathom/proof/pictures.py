"""The pictures of docs/gpu.md, as SVG: the bare loop under its roofline, and what the server keeps of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

INK, GRID = "#57606a", "#d0d7de"  # read on GitHub's light and dark pages alike
COLOURS = ("#0969da", "#1a7f37", "#bf8700", "#8250df", "#cf222e", "#1b7c83", "#bc4c00", "#6639ba", "#57606a")
SIZE_IN = (8.0, 4.2)


def draw(document: Mapping[str, Any]) -> dict[str, str]:
    """SVG text by the name of the step that it belongs to; nothing for a step without rows."""
    rows = {step["step"]: step["rows"] for step in document["steps"]}
    made = {}
    bare = [row for row in rows.get("roofline", ()) if "batch" in row]
    if bare:
        made["roofline"] = _svg(lambda axes: _roofline(axes, bare))
    served = [row for row in rows.get("served", ()) if row.get("of_bare_from_host") and "batch" in row]
    if served:
        made["served"] = _svg(lambda axes: _served(axes, served))
    return made


def _roofline(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows/s over the batch: measured with a line, the ceiling of the same colour dashed."""
    for colour, key in zip(COLOURS, _keys(rows, "model", "precision"), strict=False):
        own = sorted((row for row in rows if (row["model"], row["precision"]) == key), key=lambda row: row["batch"])
        batches = [row["batch"] for row in own]
        axes.plot(batches, [row["rows_per_s"] for row in own], "o-", color=colour, markersize=3, label=" ".join(key))
        if all(row["roofline_rows_per_s"] for row in own):
            axes.plot(batches, [row["roofline_rows_per_s"] for row in own], "--", color=colour, linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("batch")
    axes.set_ylabel("rows/s on the device (dashed: roofline)")
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)


def _served(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    names = [f"{row['model']}\n{row['transport']}, {row['batch']}" for row in rows]
    axes.bar(range(len(rows)), [row["of_bare_from_host"] for row in rows], color=COLOURS[0])
    axes.set_xticks(range(len(rows)), names, fontsize=7, rotation=60)
    axes.axhline(1.0, color=INK, linewidth=1)
    axes.set_ylabel("served / bare from host memory")


def _keys(rows: Sequence[Mapping[str, Any]], *words: str) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(tuple(str(row[word]) for word in words) for row in rows))


def _svg(paint: Callable[[Any], None]) -> str:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none", "svg.hashsalt": "fathom", "text.color": INK, "axes.edgecolor": GRID,
        "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "axes.axisbelow": True,
    }  # fmt: skip
    with mpl.rc_context(settings):
        figure = Figure(figsize=SIZE_IN, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
