"""The page of a tuning run: the answer, predicted against measured, and every configuration with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loadtests.errors import ResultsError
from loadtests.report import page
from loadtests.report.svg import GRID, INK, MUTED, P99, PASS, Picture, make_picture
from loadtests.results.store import replace
from loadtests.tuning.result import TuningResult

_LISTED = 300
"""Rows of the table; the JSON beside it has all."""


def headline(result: TuningResult) -> str:
    """The answer in a sentence."""
    if not result.meets_slo:
        near = f"; nearest is {result.nearest}" if result.nearest else ""
        return f"no configuration meets {result.slo}{near}"
    if not result.changes:
        measured = sum(1 for row in result.rows if row.probes)
        if measured < 2 and any(not row.predicted for row in result.rows):
            return "no other configuration could be predicted or measured in time: use a longer --budget"
        best = "the committed configuration is the best"
        if result.ended:
            best = "none is shown to be better than the committed configuration"
        return f"{best} under {result.slo}: {len(result.rows):,} were ranked, {measured} measured"
    if result.gain is None:
        return f"best is {result.winner}"
    if not result.gain_shown:
        low, high = ((value - 1) * 100 for value in result.gain[1:])
        return (
            f"no gain is shown: {result.winner} differs from committed by {low:+.0f} to {high:+.0f} %, which "
            "chance can explain; use a longer budget on a quiet machine to tell them apart"
        )
    ratio, low, high = ((value - 1) * 100 for value in result.gain)
    better = "more" if ratio >= 0 else "less"
    return (
        f"best is {result.winner}: {abs(ratio):.0f} % {better} than committed "
        f"(95 % interval {low:+.0f} to {high:+.0f} %, measured in turns)"
    )


def write(result: TuningResult, folder: Path) -> Path:
    """`report.html` in the folder. Raises ResultsError."""
    path = folder / "report.html"
    measured = [row for row in result.rows if row.probes]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace(
            path,
            page.render(
                "tuning.html",
                result=result,
                headline=headline(result),
                measured=measured,
                others=[row for row in result.rows if not row.probes][:_LISTED],
                hidden=max(len(result.rows) - len(measured) - _LISTED, 0),
                picture=_picture(result) if any(row.measured and row.predicted for row in measured) else None,
                settings=[(key.replace("_", " "), page.plain(value)) for key, value in result.settings.items()],
            ),
        )
    except OSError as error:
        raise ResultsError(f"cannot write the report to {folder}: {error.strerror}", folder) from error
    return path


def _picture(result: TuningResult) -> Picture:
    """Predicted against measured, one dot a configuration, on the line where both are equal."""
    shown = [row for row in result.rows if row.measured and row.predicted and row.low and row.high]

    def draw(figure: Any, narrow: bool) -> None:
        axes = figure.subplots()
        most = 1.08 * max(max(row.high or 0, row.predicted or 0) for row in shown)
        least = 0.92 * min(min(row.low or most, row.predicted or most) for row in shown)
        axes.plot([least, most], [least, most], color=GRID, linewidth=1.2)
        for row in shown:
            best = row.configuration == result.winner
            colour = PASS if best else INK if row.configuration == "committed" else P99
            axes.plot([row.predicted] * 2, [row.low, row.high], color=colour, linewidth=4, alpha=0.35)
            axes.plot(row.predicted, row.measured, "o", color=colour, markersize=7)
            if best or row.configuration == "committed":
                axes.annotate(
                    "best" if best else "committed", (row.predicted, row.measured), (8, -4),
                    textcoords="offset points", color=colour, fontsize=9,
                )  # fmt: skip
        axes.annotate("measured = predicted", (most, most), (-6, -14), textcoords="offset points", color=MUTED,
                      fontsize=8, ha="right")  # fmt: skip
        axes.set_xlim(least, most)
        axes.set_ylim(least, most)
        axes.set_xlabel(f"predicted, {result.unit}", labelpad=6)
        axes.set_ylabel(f"measured, {result.unit}", labelpad=9)

    return make_picture(f"{result.model}: predicted against measured", "tuning", draw, 4.6, 4.2)
