"""The page of a comparison: its findings, a picture of all runs, and their figures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests.errors import ResultsError
from loadtests.report import page
from loadtests.report.compare import Comparison, compare_folders
from loadtests.report.streams import limited_measures, names
from loadtests.report.svg import P99, PASS, SLO, STEPS, Picture, make_picture, plain_ticks
from loadtests.slo import Measure, format_ms
from loadtests.text import visible


def write(folders: Sequence[Path], path: Path) -> list[Comparison]:
    """The comparison as a page at `path`."""
    found = compare_folders(folders)
    measures = [limited_measures(comparison.results[0])[0] for comparison in found]
    shown = [
        (comparison, _picture(comparison, number, measure), names(comparison.results[0])[measure])
        for number, (comparison, measure) in enumerate(zip(found, measures, strict=True))
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page.render("compare.html", shown=shown), encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"cannot write the comparison to {path}: {error.strerror}", path) from error
    return found


def _picture(comparison: Comparison, number: int, measure: Measure) -> Picture:
    """p99 over the rate for each run, and below the estimates with their intervals and the proven rates."""
    palette = (P99, *STEPS[1:])
    rows = len(comparison.names)

    def draw(figure: Any, narrow: bool) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 0.5 + 0.42 * rows))
        upper.set_yscale("log")
        top = 0.0
        for row, (name, result) in enumerate(zip(comparison.names, comparison.results, strict=True)):
            colour = palette[row % len(palette)]
            longest = sorted(result.points, key=lambda point: point.requests)
            known = ((p.rate_per_s, p.percentile_ms(measure)) for p in longest if not p.stopped)
            points = sorted({rate_per_s: value for rate_per_s, value in known if value}.items())
            if points:
                upper.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, linewidth=1.6)
                top = max(top, points[-1][0])
            if result.capacity_estimate_interval_per_s and result.capacity_estimate_per_s:
                lower.plot(result.capacity_estimate_interval_per_s, [row, row], color=colour, linewidth=5, alpha=0.35)
                lower.plot(result.capacity_estimate_per_s, row, "o", color=colour, markersize=8)
                top = max(top, result.capacity_estimate_interval_per_s[1])
            if result.capacity_per_s:
                lower.plot(result.capacity_per_s, row, "|", color=PASS, markersize=15, markeredgewidth=2.5)
            lower.annotate(
                visible(name), (0, row), (6, 8), textcoords="offset points", color=colour, fontsize=9, va="center"
            )
        for slo in comparison.results[0].slos:
            if slo.limit_ms is not None and slo.measure == measure:
                upper.axhline(slo.limit_ms, color=SLO, linewidth=1.2, dashes=(5, 3))
                upper.annotate(
                    f"{slo.metric} limit {format_ms(slo.limit_ms)}", (0, slo.limit_ms), (6, 4),
                    xycoords=("axes fraction", "data"), textcoords="offset points", color=SLO, fontsize=9,
                )  # fmt: skip
        lower.set_ylim(rows - 0.4, -0.9)
        lower.set_yticks([])
        lower.set_xlim(0, top * 1.06 or 1)
        plain_ticks(upper.yaxis)
        upper.set_ylabel(f"{f'{names(comparison.results[0])[measure]} ' if measure else ''}p99, ms", labelpad=9)
        lower.set_xlabel(f"{comparison.results[0].unit}/s", labelpad=6)

    return make_picture(
        f"{comparison.model}: runs compared", f"compare-{number}", draw, 4.6 + 0.3 * rows, 4.4 + 0.3 * rows
    )
