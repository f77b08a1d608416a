"""The picture of some streams of a probe: the arrival time of each part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from loadtests.records.point import Point
from loadtests.records.record import CANCELLED, OK, UNANSWERED, Floats, Record
from loadtests.report.labels import label
from loadtests.report.svg import FAIL, INVALID, MUTED, P99, QUEUE, Picture, make_picture
from loadtests.results.result import CapacityResult
from loadtests.slo import format_rate

_TICKS, _TICKS_NARROW = 250, 115
"""Parts nearer to one another than the picture's width by this number are drawn as one."""


def draw_timelines(result: CapacityResult, point: Point, record: Record) -> Picture | None:
    """One row a stream, from the moment it was due: the wait, a tick for each part, the longest gap, and a bad end."""
    rows = sorted(row for row, times in record.timelines.items() if len(times))
    if not rows:
        return None
    ends = [_end_s(record, row) for row in rows]
    longest_s = max(end - record.intended_s[row] for end, row in zip(ends, rows, strict=True))

    def draw(figure: Any, narrow: bool) -> None:
        axes = figure.add_subplot()
        apart_s = longest_s / (_TICKS_NARROW if narrow else _TICKS)
        came = [np.sort(record.timelines[row]) - record.intended_s[row] for row in rows]
        for y, (row, end_s, came_s) in enumerate(zip(rows, ends, came, strict=True)):
            end_s = end_s - record.intended_s[row]
            axes.plot([0, came_s[0]], [y, y], color=INVALID, linewidth=2.5, solid_capstyle="butt")
            axes.plot([came_s[0], end_s], [y, y], color=P99, linewidth=0.8)
            if len(came_s) > 1:
                gap = int(np.argmax(np.diff(came_s)))
                width_s = max(came_s[gap + 1] - came_s[gap], apart_s)  # never too short to be seen
                axes.barh(y, width_s, 0.64, left=came_s[gap], color=QUEUE, zorder=3)
            if record.status[row] == CANCELLED:
                axes.plot(end_s, y, "D", color=MUTED, markersize=5, zorder=4)
            elif record.status[row] not in (OK, UNANSWERED):
                axes.plot(end_s, y, "X", color=FAIL, markersize=7, zorder=4)
        _draw_ticks(axes, [_thin(came_s, apart_s) for came_s in came])
        axes.set_ylim(len(rows) - 0.3, -0.7)
        axes.set_yticks(range(len(rows)), [f"{record.intended_s[row]:.1f} s" for row in rows], fontsize=8)
        axes.set_xlim(0, longest_s * 1.03)
        axes.grid(axis="y", visible=False)
        label(axes, "time since the scheduled send, s", "scheduled, from the start of the probe")

    height_in = 1.2 + 0.19 * len(rows)
    title = f"{result.model}: {len(rows)} streams of the probe at {format_rate(point.rate_per_s)}"
    return make_picture(title, f"timelines-{result.model}", draw, height_in, height_in)


def _end_s(record: Record, row: int) -> float:
    """When a stream ended, or its last part came where that is not known."""
    last_s, done_s = float(np.max(record.timelines[row])), float(record.done_s[row])
    return last_s if np.isnan(done_s) else max(last_s, done_s)


def _thin(came_s: Floats, apart_s: float) -> Floats:
    """Without the parts that nobody could tell from the one before."""
    kept = [float(came_s[0])]
    for when_s in came_s.tolist():
        if when_s - kept[-1] >= apart_s:
            kept.append(when_s)
    return np.asarray(kept)


def _draw_ticks(axes: Any, rows: Sequence[Floats]) -> None:
    """All ticks as one path, which is a tenth as long as one each."""
    x = np.concatenate([np.repeat(came_s, 3) for came_s in rows])
    y = np.concatenate([np.tile([y - 0.32, y + 0.32, np.nan], len(came_s)) for y, came_s in enumerate(rows)])
    axes.plot(x, y, color=P99, linewidth=0.9, solid_capstyle="butt")
