"""Pictures over the arrival rate: latency, or the measures of streams; and how many tokens and streams there were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtests.records.point import Point
from loadtests.report.labels import label, label_line
from loadtests.report.prose import capacity, proven, shown_verdict
from loadtests.report.streams import measures, names
from loadtests.report.svg import (
    BAND,
    FAIL,
    INVALID,
    P50,
    P99,
    PAPER,
    PASS,
    QUEUE,
    SLO,
    STEPS,
    UNDECIDED,
    Picture,
    make_picture,
    plain_ticks,
)
from loadtests.results.result import CapacityResult
from loadtests.search.certificate import certificates
from loadtests.slo import Measure, as_requested, format_ms

_VERDICTS = {"pass": (PASS, "o"), "fail": (FAIL, "X"), "undecided": (UNDECIDED, "D"), "invalid": (INVALID, "s")}


def latency_against_rate(result: CapacityResult) -> Picture | None:
    """p50 and p99 of every probe over its rate, with the limit, the estimate and the proven rate.

    Of streams there is a panel for each measure.
    """
    shown, named = [measure for measure in measures(result) if _measured(result, measure)], names(result)
    if not shown:
        return None

    def draw(figure: Any, narrow: bool) -> None:
        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, measure in zip(panels, shown, strict=True):
            limits = [
                (slo.metric, slo.limit_ms)
                for slo in as_requested(result.slos)
                if slo.limit_ms is not None and slo.measure == measure
            ]
            axes.set_yscale("log")
            _shade(axes, result)
            for _, limit_ms in limits:
                axes.axhline(limit_ms, color=SLO, linewidth=1.4, dashes=(5, 3), zorder=1)
            points = _measured(result, measure)
            _draw_curves(axes, result, points, measure)
            _mark_rates(axes, result, points, top=axes is panels[0], bottom=axes is panels[-1])
            low, high = axes.get_ylim()
            axes.set_ylim(low / 1.3, high * 1.2)
            marks = [
                (point.rate_per_s, ms)
                for point in points
                for ms in (point.percentile_ms(measure, "p50"), point.percentile_ms(measure))
                if ms is not None
            ]
            for metric, limit_ms in limits:
                label_line(axes, limit_ms, f"{metric} limit {format_ms(limit_ms)}", SLO, marks)
            from_send = "" if measure in ("itl", "gap") or result.unit == "sequences" else " from the scheduled send"
            label(axes, arrival_rate(result) if axes is panels[-1] else "", f"{named[measure]}{from_send}, ms")
            plain_ticks(axes.yaxis)

    more_in = 2.2 * (len(shown) - 1)
    title = f"{result.model}: {' and '.join(named[measure] for measure in shown)} against arrival rate"
    return make_picture(title, f"rate-{result.model}", draw, 4.4 + more_in, 3.9 + more_in)


def _measured(result: CapacityResult, measure: Measure) -> list[Point]:
    return sorted(
        (point for point in result.points if point.percentile_ms(measure)), key=lambda point: point.rate_per_s
    )


def _draw_curves(axes: Any, result: CapacityResult, points: Sequence[Point], measure: Measure) -> None:
    """p50 and p99, and a mark for each verdict."""
    confirmed = certificates(result.points)
    # What a stopped probe reached is no percentile; of several at one rate the longest knows best.
    whole = list({p.rate_per_s: p for p in sorted(points, key=by_length) if not p.stopped}.values())
    for name, colour in (("p50", P50), ("p99", P99)):
        values = [point.percentile_ms(measure, name) for point in whole]
        axes.plot([p.rate_per_s for p in whole], values, color=colour, linewidth=1.5, zorder=2)
    rates, medians = [p.rate_per_s for p in points], [p.percentile_ms(measure, "p50") for p in points]
    axes.plot(rates, medians, "o", color=P50, markersize=3.5, zorder=3, linestyle="none")
    for point in points:
        colour, marker = _VERDICTS[shown_verdict(point, confirmed)]
        size = 10 if point.phase == "confirm" else 7
        axes.plot(
            point.rate_per_s, point.percentile_ms(measure), marker, color=colour, markersize=size, zorder=5,
            markeredgecolor=PAPER, markeredgewidth=1.2,
        )  # fmt: skip


def tokens_against_rate(result: CapacityResult) -> Picture | None:
    """Tokens per second of streams, and below how many ran at once, seen by generator and server."""
    points = sorted((point for point in result.points if point.streaming), key=lambda point: point.rate_per_s)
    if not points:
        return None
    longest = {point.rate_per_s: point for point in sorted(points, key=by_length)}.values()
    generations = {p.rate_per_s: p.load.generation for p in longest if p.load and p.load.generation}

    def draw(figure: Any, narrow: bool) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        for axes in (upper, lower):
            _shade(axes, result)
        streams = [(point.rate_per_s, point.streaming) for point in longest if point.streaming]
        _draw_line(upper, [(rate, each.parts_per_s) for rate, each in streams], P99)
        _draw_line(lower, [(rate, each.at_once) for rate, each in streams], P99)
        for name, colour in GENERATION.items():
            values = [(rate, getattr(each, name)) for rate, each in generations.items()]
            _draw_line(lower, [(rate, value) for rate, value in values if value is not None], colour)
        _mark_rates(upper, result, points, top=True, bottom=True)
        _mark_rates(lower, result, points, top=False, bottom=False)
        upper.set_ylim(0, 1.2 * upper.get_ylim()[1])  # room for words above the line
        lower.set_ylim(bottom=0)
        label(upper, "", "tokens/s")
        label(lower, arrival_rate(result), "answers at once")

    return make_picture(f"{result.model}: tokens and answers at once", f"tokens-{result.model}", draw, 4.6, 4.4)


GENERATION = {"slots_mean": PASS, "batch_per_step": STEPS[1], "waiting_max": QUEUE}
"""Figures of a server that generates text in slots, with the colours of their lines."""


def _draw_line(axes: Any, pairs: Sequence[tuple[float, float]], colour: str) -> None:
    if pairs:
        axes.plot(*zip(*pairs, strict=True), "o-", color=colour, linewidth=1.5, markersize=4)


def _shade(axes: Any, result: CapacityResult) -> None:
    """The interval of the estimate."""
    if result.capacity_estimate_interval_per_s:
        axes.axvspan(*result.capacity_estimate_interval_per_s, color=BAND, linewidth=0, zorder=0)


def _mark_rates(axes: Any, result: CapacityResult, points: Sequence[Point], *, top: bool, bottom: bool) -> None:
    """The estimate and the proven rate, with words at the top or the bottom of a picture."""
    largest = max(point.rate_per_s for point in points)
    if (best := result.capacity_estimate_per_s) and (estimate := capacity(result)):
        _mark(axes, best, f"about {estimate[0]}/s" * top, P99, largest, top=True)
    if result.capacity_per_s:
        _mark(axes, result.capacity_per_s, f"proven {proven(result)}" * bottom, PASS, largest, top=False)
    axes.set_xlim(0, largest * 1.06)


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


def arrival_rate(result: CapacityResult) -> str:
    """What an axis of rates shows."""
    return f"arrival rate, {result.unit}/s"


def by_length(point: Point) -> tuple[float, int]:
    """For the longest of several probes at one rate."""
    return point.rate_per_s, point.requests
