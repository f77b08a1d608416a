"""The report's pictures, each a function of a result and the raw records it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from loadtests.judge.backlog import backlog_at_arrivals
from loadtests.records.point import Point
from loadtests.records.record import Record
from loadtests.report.labels import label
from loadtests.report.prose import shown_verdict
from loadtests.report.rates import arrival_rate, by_length
from loadtests.report.streams import limited_measures, names
from loadtests.report.svg import (
    FAIL,
    MUTED,
    P50,
    P99,
    PAPER,
    QUEUE,
    SLO,
    STEPS,
    Picture,
    dots,
    make_picture,
    plain_ticks,
)
from loadtests.results.result import CapacityResult
from loadtests.search.certificate import certificates
from loadtests.slo import Measure, as_requested, format_rate

_MOST_DOTS = 600
_DASHES = ((), (7, 2), (4, 2), (1.5, 1.5), (7, 2, 1.5, 2))
"""Of the curves of one picture, the deciding probe's first."""


def server_breakdown(result: CapacityResult) -> Picture | None:
    """Per rate, the server's own account of a request: queue and the work of each step, stacked."""
    longest = {p.rate_per_s: p for p in sorted(result.points, key=by_length) if p.steps}
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
        label(axes, "mean time per request inside the server, ms", arrival_rate(result))
        axes.grid(axis="y", visible=False)

    height = 1.1 + 0.27 * len(points)
    return make_picture(f"{result.model}: time inside the server", f"server-{result.model}", draw, height, height)


def distribution(
    result: CapacityResult, chosen: Sequence[tuple[Point, Record]], measure: Measure = ""
) -> Picture | None:
    """For some probes, which share of the requests took longer than a latency, or than a measure of streams."""
    if not chosen:
        return None
    confirmed = certificates(result.points)

    def draw(figure: Any, narrow: bool) -> None:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.set_yscale("log")
        for number, ((point, record), dashes) in enumerate(zip(chosen, _DASHES, strict=False)):
            latencies_ms = np.sort(record.measured_ms(measure))
            shown = np.isfinite(latencies_ms) & (latencies_ms > 0)  # answers of one part have no time between two
            if not shown.any():
                continue
            share = (1 - np.arange(len(latencies_ms)) / len(record))[shown]
            latencies_ms = latencies_ms[shown]
            thin = np.unique(np.geomspace(1, len(share), 200).astype(int))
            keep = np.unique(np.concatenate([len(share) - thin, thin - 1]))
            axes.step(
                latencies_ms[keep], share[keep], where="post", color=MUTED if number else P99, linewidth=1.7,
                dashes=dashes, label=f"{format_rate(point.rate_per_s)} {shown_verdict(point, confirmed)}",
            )  # fmt: skip
        for slo in as_requested(result.slos):
            if slo.limit_ms is not None and slo.measure == measure:
                axes.plot([slo.limit_ms] * 2, [1e-9, slo.allowed_share], color=SLO, linewidth=1.2, dashes=(5, 3))
                axes.plot([1e-9, slo.limit_ms], [slo.allowed_share] * 2, color=SLO, linewidth=1.2, dashes=(5, 3))
        requests = max(len(record) for _, record in chosen)
        axes.set_ylim(0.7 / requests, 1.3)
        values_ms = [record.measured_ms(measure) for _, record in chosen]
        fastest = min(float(np.min(values[values > 0], initial=np.inf)) for values in values_ms)
        axes.set_xlim(left=fastest * 0.85 if np.isfinite(fastest) else None)
        axes.legend(loc="lower left", frameon=False, fontsize=9, handlelength=3.2)  # where no curve comes
        label(axes, f"{names(result)[measure]}, ms", f"share of slower {result.unit}")
        plain_ticks(axes.xaxis, 2.5 if narrow else 5)
        _percent_ticks(axes.yaxis)

    title = f"{result.model}: distribution of the {names(result)[measure]}"
    return make_picture(title, f"tail{measure}-{result.model}", draw, 4.0, 3.7)


def time_series(result: CapacityResult, point: Point, record: Record) -> Picture:
    """One probe over time: each request's latency (of streams the measure that decides), and how many waited."""
    measure = limited_measures(result)[0]
    limits_ms = [slo.limit_ms for slo in result.slos if slo.limit_ms is not None and slo.measure == measure]

    def draw(figure: Any, narrow: bool) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
        at_s, latencies_ms = record.intended_s[record.attempted], record.measured_ms(measure)
        late = latencies_ms > min(limits_ms)
        keep = late | (np.arange(len(at_s)) % max(len(at_s) // _MOST_DOTS, 1) == 0)
        for marks, colour in ((keep & ~late, P99), (keep & late, FAIL)):
            dots(upper, at_s[marks], latencies_ms[marks], colour, size=2.4)
        for slo in as_requested(result.slos):
            if slo.limit_ms is not None and slo.measure == measure:
                upper.axhline(slo.limit_ms, color=SLO, linewidth=1.2, dashes=(5, 3))
        upper.set_ylim(bottom=0)
        label(upper, "", f"{names(result)[measure]}, ms")
        backlog = backlog_at_arrivals(record)
        keep_line = np.linspace(0, len(backlog) - 1, min(len(backlog), 400)).astype(int)
        lower.fill_between(at_s[keep_line], backlog[keep_line], step="post", color=P50, alpha=0.5, linewidth=0)
        lower.set_ylim(bottom=0)
        lower.set_xlim(0, float(at_s[-1]) if len(at_s) else 1)
        label(lower, "time since the start of the probe, s", "not started" if record.streamed else "unanswered")

    title = f"{result.model}: the probe at {format_rate(point.rate_per_s)} over time"
    return make_picture(title, f"time-{result.model}", draw, 4.4, 4.2)


def step_models(result: CapacityResult) -> list[str]:
    """The pipeline's models in the server's order."""
    found: list[str] = []
    for point in result.points:
        found += [step.model for step in point.steps if step.model not in found]
    return found


def _percent_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)
