"""The table of a capacity search, which grows in the terminal while the search runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fathom.console.output import err
from loadtests.records.point import Point
from loadtests.report.prose import shown_verdict
from loadtests.search.certificate import certificates
from loadtests.search.estimate import estimate
from loadtests.slo import Slo, about, format_rate

COLOURS = {"pass": "green", "fail": "red", "invalid": "magenta"}
_NEEDED_WIDTH = 74
_COLUMNS = {
    "rate/s": ("rate_per_s", 1),
    "requests": ("requests", 0),
    "p50\nms": ("p50_ms", 2),
    "p99\nms": ("p99_ms", 2),
    "queue\nms": ("queue_ms", 2),
    "compute\nms": ("compute_ms", 2),
    "mean\nbatch": ("mean_batch", 2),
    "lag\np99 ms": ("send_lag_p99_ms", 2),
}
"""Head: key of the point's JSON and digits behind the point."""
_STREAMED = {
    "rate/s": ("rate_per_s", 2),
    "requests": ("requests", 0),
    "ttft\np99 ms": ("streaming.ttft_p99_ms", 0),
    "itl\np99 ms": ("streaming.itl_p99_ms", 1),
    "tokens\n/s": ("streaming.parts_per_s", 0),
    "streams\nat once": ("streaming.at_once", 1),
    "lag\np99 ms": ("send_lag_p99_ms", 2),
}
"""The same where a model streams its answers."""
_SEQUENCES = {
    "rate/s": ("rate_per_s", 2),
    "sequences": ("requests", 0),
    "p50\nms": ("p50_ms", 2),
    "p99\nms": ("p99_ms", 2),
    "slowest\np99 ms": ("sequences.gap_p99_ms", 2),
    "requests\n/s": ("sequences.requests_per_s", 0),
    "at once": ("sequences.at_once", 1),
    "lag\np99 ms": ("send_lag_p99_ms", 2),
}
"""The same where a model keeps state between the requests of a sequence."""
_NARROW = ("rate/s", "p99\nms", "ttft\np99 ms")


class LiveTable:
    """Called with each point; between two points a line shows the part of the budget that is used."""

    def __init__(self, budget_s: float, slos: Sequence[Slo]) -> None:
        self._points: list[Point] = []
        self._slos, self._progress = slos, ""
        self._table, self._width = Table(), 0
        self._budget_s = budget_s
        self._began_s = time.monotonic()
        self._spinner = Spinner("dots")
        self.running = True

    def __call__(self, point: Point) -> None:
        self._points.append(point)
        self._progress, self._width = progress(self._points, self._slos), 0

    def __bool__(self) -> bool:
        return bool(self._points)

    def render(self) -> RenderableType:
        if self._width != err.width:  # drawn anew for a point only: a search shares its CPUs with what it measures
            self._table, self._width = points_table(self._points, width=err.width), err.width
        shown: list[RenderableType] = [self._table] if self._points else []
        if self.running:
            what = "searching" if self._points else "sending one request at a time"
            used_s = time.monotonic() - self._began_s
            self._spinner.update(text=Text(f"{what}: {used_s:.0f} s of at most {self._budget_s:.0f} s{self._progress}"))
            shown.append(self._spinner)
        return Group(*shown)


@contextmanager
def live_table(budget_s: float, slos: Sequence[Slo], *, transient: bool) -> Iterator[Callable[[Point], None]]:
    """What shows each point on stderr: a table that grows on a terminal, and a line each in a file or a pipe.

    Nothing of the table stays where there was no point, nor if it is `transient`.
    """
    if not err.is_terminal:
        seen: list[Point] = []

        def show(point: Point) -> None:
            seen.append(point)
            err.print(line(point, shown_verdict(point, certificates(seen))), soft_wrap=True)

        yield show
        return
    table = LiveTable(budget_s, slos)
    with Live(console=err, get_renderable=table.render, refresh_per_second=4, transient=transient) as live:
        try:
            yield table
        finally:
            table.running = False
            live.transient = transient or not table


def progress(points: Sequence[Point], slos: Sequence[Slo]) -> str:
    """How far a search is: `; about 108/s, 33/s proven`."""
    fitted = estimate(points, slos)
    if fitted is None:
        return ""
    proven = next((format_rate(found.rate_per_s) for found in certificates(points)), "nothing")
    return f"; about {about(fitted.rate_per_s)}/s, {proven} proven"


def line(point: Point, verdict: str) -> str:
    """A point for a log."""
    shown = {"p50": point.p50_ms, "p99": point.p99_ms}
    if point.streaming:
        shown = {"ttft p99": point.streaming.ttft_p99_ms, "itl p99": point.streaming.itl_p99_ms}
    values = ", ".join(f"{name} {_cell(value, 2)} ms" for name, value in shown.items())
    if point.streaming:
        values += f", {point.streaming.parts_per_s:,.0f} tokens/s"
    return (
        f"{point.phase:<8}{format_rate(point.rate_per_s):>10}  {point.requests:>8,} {point.unit}, {values}: {verdict}"
    )


def points_table(points: Sequence[Point], *, width: int) -> Table:
    """One row per point; on a terminal of less than 74 columns only what decides."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    columns = _STREAMED if any(point.streaming for point in points) else _COLUMNS
    columns = _SEQUENCES if any(point.sequences for point in points) else columns
    heads = [head for head in columns if width >= _NEEDED_WIDTH or head in _NARROW]
    table.add_column("phase", no_wrap=True, min_width=7)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True, vertical="bottom")
    table.add_column("verdict", no_wrap=True)
    confirmed = certificates(points)
    for point in points:
        values = (_cell(_value(point, columns[head][0]), columns[head][1]) for head in heads)
        table.add_row(point.phase, *values, coloured(shown_verdict(point, confirmed)))
    return table


def coloured(verdict: str) -> Text:
    return Text(verdict, COLOURS.get(verdict, "yellow"))


def _value(point: Point, key: str) -> float | None:
    """None also where no answer of the point came in parts."""
    holder, _, name = key.rpartition(".")
    return getattr(getattr(point, holder) if holder else point, name, None)


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
