"""The report's pictures, each a function of a result and the raw records it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from loadtests.judge.backlog import backlog_at_arrivals
from loadtests.records.point import Point
from loadtests.records.record import Record
from loadtests.report.prose import capacity, proven, shown_verdict
from loadtests.report.svg import (
    BAND,
    FAIL,
    INVALID,
    MUTED,
    P50,
    P99,
    PAPER,
    PASS,
    QUEUE,
    SLO,
    STEPS,
    UNDECIDED,
    Picture,
    dots,
    make_picture,
    plain_ticks,
)
from loadtests.results.result import CapacityResult
from loadtests.search.certificate import certificates
from loadtests.slo import as_requested, format_ms, format_rate

VERDICTS = {"pass": (PASS, "o"), "fail": (FAIL, "X"), "undecided": (UNDECIDED, "D"), "invalid": (INVALID, "s")}
_MOST_DOTS = 600
_DASHES = ((), (7, 2), (4, 2), (1.5, 1.5), (7, 2, 1.5, 2))
"""Of the curves of one picture, the deciding probe's first."""


def latency_against_rate(result: CapacityResult) -> Picture | None:
    """p50 and p99 of every probe over its rate, with the limit, the estimate and the proven rate."""
    points = sorted((point for point in result.points if point.p99_ms), key=lambda point: point.rate_per_s)
    if not points:
        return None
    confirmed = certificates(result.points)

    def draw(figure: Any, narrow: bool) -> None:
        axes = figure.add_subplot()
        rates = [point.rate_per_s for point in points]
        axes.set_yscale("log")
        if result.capacity_estimate_interval_per_s:
            axes.axvspan(*result.capacity_estimate_interval_per_s, color=BAND, linewidth=0, zorder=0)
        limits = [(slo.metric, slo.limit_ms) for slo in as_requested(result.slos) if slo.limit_ms is not None]
        for _, limit_ms in limits:
            axes.axhline(limit_ms, color=SLO, linewidth=1.4, dashes=(5, 3), zorder=1)
        # What a stopped probe reached is no percentile; of several at one rate the longest knows best.
        whole = list({p.rate_per_s: p for p in sorted(points, key=_by_length) if not p.stopped}.values())
        for name, colour in (("p50_ms", P50), ("p99_ms", P99)):
            values = [getattr(point, name) for point in whole]
            axes.plot([p.rate_per_s for p in whole], values, color=colour, linewidth=1.5, zorder=2)
        axes.plot(rates, [p.p50_ms for p in points], "o", color=P50, markersize=3.5, zorder=3, linestyle="none")
        for point in points:
            colour, marker = VERDICTS[shown_verdict(point, confirmed)]
            size = 10 if point.phase == "confirm" else 7
            axes.plot(
                point.rate_per_s, point.p99_ms, marker, color=colour, markersize=size, zorder=5,
                markeredgecolor=PAPER, markeredgewidth=1.2,
            )  # fmt: skip
        if (best := result.capacity_estimate_per_s) and (estimate := capacity(result)):
            _mark(axes, best, f"about {estimate[0]}/s", P99, max(rates), top=True)
        if result.capacity_per_s:
            _mark(axes, result.capacity_per_s, f"proven {proven(result)}", PASS, max(rates), top=False)
        axes.set_xlim(0, max(rates) * 1.06)
        _pad_log(axes)
        marks = [(p.rate_per_s, ms) for p in points for ms in (p.p50_ms, p.p99_ms) if ms is not None]
        for metric, limit_ms in limits:
            label_line(axes, limit_ms, f"{metric} limit {format_ms(limit_ms)}", SLO, marks)
        _label(axes, "arrival rate, requests/s", "latency from the intended send, ms")
        plain_ticks(axes.yaxis)

    return make_picture(f"{result.model}: latency against arrival rate", f"rate-{result.model}", draw, 4.4, 3.9)


def _mark(axes: Any, rate_per_s: float, text: str, colour: str, largest: float, *, top: bool) -> None:
    """A rate as an upright line with words at one end."""
    axes.axvline(rate_per_s, color=colour, linewidth=1.4, zorder=1)
    right = rate_per_s > 0.6 * largest
    axes.annotate(
        text,
        (rate_per_s, 1 if top else 0),
        (-5 if right else 5, -14 if top else 6),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        color=colour,
        fontsize=10,
        ha="right" if right else "left",
    )


def _by_length(point: Point) -> tuple[float, int]:
    return point.rate_per_s, point.requests


def server_breakdown(result: CapacityResult) -> Picture | None:
    """Per rate, the server's own account of a request: queue and the work of each step, stacked."""
    longest = {p.rate_per_s: p for p in sorted(result.points, key=_by_length) if p.steps}
    points = list(longest.values())
    if not points:
        return None
    models = step_models(result)

    def draw(figure: Any, narrow: bool) -> None:
        axes = figure.add_subplot()
        rows = np.arange(len(points))
        left = np.zeros(len(points))
        parts: list[tuple[str, list[float]]] = [(QUEUE, [point.queue_ms or 0.0 for point in points])]
        for number, model in enumerate(models):
            work = [
                sum(step.share * step.compute_ms for step in point.steps if step.model == model) for point in points
            ]
            parts.append((STEPS[number % len(STEPS)], work))
        for colour, widths in parts:
            axes.barh(rows, widths, left=left, color=colour, height=0.66, edgecolor=PAPER, linewidth=0.6)
            left += np.asarray(widths)
        limit = float(left.max()) * 1.22
        for row, point in enumerate(points):
            axes.annotate(
                f"batch {point.mean_batch or 1:.2g}", (left[row], row), (5, 0), textcoords="offset points",
                va="center", color=MUTED, fontsize=9,
            )  # fmt: skip
        axes.set_yticks(rows, [format_rate(point.rate_per_s).removesuffix("/s") for point in points])
        axes.set_xlim(0, limit or 1)
        _label(axes, "mean time per request inside the server, ms", "arrival rate, requests/s")
        axes.grid(axis="y", visible=False)

    height = 1.1 + 0.27 * len(points)
    return make_picture(f"{result.model}: time inside the server", f"server-{result.model}", draw, height, height)


def distribution(result: CapacityResult, chosen: Sequence[tuple[Point, Record]]) -> Picture | None:
    """For some probes, which share of the requests took longer than a latency."""
    if not chosen:
        return None
    confirmed = certificates(result.points)

    def draw(figure: Any, narrow: bool) -> None:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.set_yscale("log")
        for number, ((point, record), dashes) in enumerate(zip(chosen, _DASHES, strict=False)):
            latencies_ms = np.sort(record.latencies_ms())
            latencies_ms = latencies_ms[np.isfinite(latencies_ms)]
            if not len(latencies_ms):
                continue
            share = 1 - np.arange(len(latencies_ms)) / len(record)
            thin = np.unique(np.geomspace(1, len(share), 200).astype(int))
            keep = np.unique(np.concatenate([len(share) - thin, thin - 1]))
            axes.step(
                latencies_ms[keep], share[keep], where="post", color=MUTED if number else P99, linewidth=1.7,
                dashes=dashes, label=f"{format_rate(point.rate_per_s)} {shown_verdict(point, confirmed)}",
            )  # fmt: skip
        for slo in as_requested(result.slos):
            if slo.limit_ms is not None:
                axes.plot([slo.limit_ms] * 2, [1e-9, slo.allowed_share], color=SLO, linewidth=1.2, dashes=(5, 3))
                axes.plot([1e-9, slo.limit_ms], [slo.allowed_share] * 2, color=SLO, linewidth=1.2, dashes=(5, 3))
        requests = max(len(record) for _, record in chosen)
        axes.set_ylim(0.7 / requests, 1.3)
        fastest = min(float(np.min(record.latencies_ms())) for _, record in chosen)
        axes.set_xlim(left=fastest * 0.85)
        axes.legend(loc="lower left", frameon=False, fontsize=9, handlelength=3.2)  # where no curve comes
        _label(axes, "latency, ms", "share of requests slower")
        plain_ticks(axes.xaxis)
        _percent_ticks(axes.yaxis)

    return make_picture(f"{result.model}: distribution of the latency", f"tail-{result.model}", draw, 4.0, 3.7)


def time_series(result: CapacityResult, point: Point, record: Record) -> Picture:
    """One probe over time: each request's latency, and how many were unanswered."""

    def draw(figure: Any, narrow: bool) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
        at_s, latencies_ms = record.intended_s[record.attempted], record.latencies_ms()
        late = latencies_ms > min(slo.limit_ms for slo in result.slos if slo.limit_ms is not None)
        keep = late | (np.arange(len(at_s)) % max(len(at_s) // _MOST_DOTS, 1) == 0)
        for marks, colour in ((keep & ~late, P99), (keep & late, FAIL)):
            dots(upper, at_s[marks], latencies_ms[marks], colour, size=2.4)
        for slo in as_requested(result.slos):
            if slo.limit_ms is not None:
                upper.axhline(slo.limit_ms, color=SLO, linewidth=1.2, dashes=(5, 3))
        upper.set_ylim(bottom=0)
        _label(upper, "", "latency, ms")
        backlog = backlog_at_arrivals(record)
        keep_line = np.linspace(0, len(backlog) - 1, min(len(backlog), 400)).astype(int)
        lower.fill_between(at_s[keep_line], backlog[keep_line], step="post", color=P50, alpha=0.5, linewidth=0)
        lower.set_ylim(bottom=0)
        lower.set_xlim(0, float(at_s[-1]) if len(at_s) else 1)
        _label(lower, "time since the start of the probe, s", "unanswered")

    title = f"{result.model}: the probe at {format_rate(point.rate_per_s)} over time"
    return make_picture(title, f"time-{result.model}", draw, 4.4, 4.2)


def step_models(result: CapacityResult) -> list[str]:
    """The pipeline's models in the server's order."""
    found: list[str] = []
    for point in result.points:
        found += [step.model for step in point.steps if step.model not in found]
    return found


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x, labelpad=6)
    axes.set_ylabel(y, labelpad=9)  # the page's font is wider than the one the layout was computed with


def _pad_log(axes: Any) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.3, high * 1.2)


def _percent_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)


__all__ = ["Picture", "distribution", "latency_against_rate", "server_breakdown", "step_models", "time_series"]


# Words inside a picture, placed where no mark lies.
#
# The places are computed before the layout is final, in points, from the usual width of a letter: near enough.

_SIZE_PT = 10
_LETTER_PT, _LINE_PT = 0.6 * _SIZE_PT, 1.2 * _SIZE_PT
_MARK_PT, _GAP_PT = 5.0, 4.0  # half of a large mark; between words and a line


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
