"""How a picture is rendered: SVG text whose colours are CSS variables, so that one file suits both themes, or PNG.

matplotlib knows no CSS variables, so everything is drawn in sentinel colours that are replaced afterwards. Each picture
is drawn twice, wide and narrow, because text that shrinks with the picture cannot be read on a phone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from loadtests.records.record import Floats
from loadtests.text import visible

INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
P99, P50, SLO, BAND = "#050505", "#060606", "#070707", "#080808"
PASS, FAIL, UNDECIDED, INVALID = "#090909", "#0a0a0a", "#0b0b0b", "#0c0c0c"
QUEUE = "#0d0d0d"
STEPS = ("#0e0e0e", "#0f0f0f", "#101010", "#111111")
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    P99: "--p99",
    P50: "--p50",
    SLO: "--slo",
    BAND: "--band",
    PASS: "--pass",
    FAIL: "--fail",
    UNDECIDED: "--undecided",
    INVALID: "--invalid",
    QUEUE: "--queue",
    **{colour: f"--step{number}" for number, colour in enumerate(STEPS)},
}
_PX_PER_INCH = 72
_PNG_PX_PER_INCH = 160
_WIDE, _NARROW = 9.6, 4.6

_DIGITS = re.compile(r"(\d\.\d)\d+")
"""Beyond a tenth of a point nobody sees a difference, and a page has thousands of coordinates."""

Draw = Callable[[Any, bool], None]
"""Draws into a matplotlib Figure; the second argument says whether it is the narrow one."""


@dataclass(frozen=True)
class Picture:
    """One picture in both widths; `title` says in words what it shows."""

    title: str
    wide: str
    narrow: str
    draw: Draw
    height_in: float

    def png(self, colours: Mapping[str, str]) -> bytes:
        """The wide one as a bitmap; `colours` gives a value such as `#1c2330` for each CSS variable such as `--ink`."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        with _style("png"):
            figure = Figure(figsize=(_WIDE, self.height_in), layout="constrained")
            FigureCanvasAgg(figure)
            self.draw(figure, False)
            figure.draw_without_rendering()  # ticks exist only then
            for artist in figure.findobj():
                _recolour(artist, colours)
            figure.patch.set_facecolor(colours["--paper"])
            written = io.BytesIO()
            figure.savefig(written, format="png", dpi=_PNG_PX_PER_INCH)
        return written.getvalue()


def make_picture(title: str, salt: str, draw: Draw, wide_in: float, narrow_in: float) -> Picture:
    """`salt` must differ between the pictures of one page; the heights are in inches."""
    wide = _svg(title, f"{salt}-wide", lambda figure: draw(figure, False), _WIDE, wide_in)
    narrow = _svg(title, f"{salt}-narrow", lambda figure: draw(figure, True), _NARROW, narrow_in)
    return Picture(title, wide, narrow, draw, wide_in)


def _svg(title: str, salt: str, draw: Callable[[Any], None], width_in: float, height_in: float) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with _style(salt):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = visible(text.getvalue())  # XML takes no control characters
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:d|x|y)="[^"]*"', lambda found: _DIGITS.sub(r"\1", found[0]), svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px; font-family: inherit", svg)
    for sentinel, variable in _VARIABLES.items():
        svg = svg.replace(sentinel, f"var({variable})")
    size = f'width="{width_in * _PX_PER_INCH:.0f}" height="{height_in * _PX_PER_INCH:.0f}" role="img"'
    head, _, drawing = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', size, svg, count=1).partition(">")
    title = escape(visible(title))
    return f'{head} aria-label="{title}"><title>{title}</title>{drawing}'


@contextmanager
def _style(salt: str) -> Iterator[None]:
    import matplotlib as mpl

    settings = {
        "svg.fonttype": "none",
        "path.simplify": False,  # it drops lines of no length
        "text.parse_math": False,  # a name may have dollar signs
        "svg.hashsalt": salt,  # ids must differ between the pictures of one page
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": GRID,
        "axes.labelcolor": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": GRID,
        "ytick.color": GRID,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "figure.dpi": _PX_PER_INCH,
    }
    with mpl.rc_context(settings):
        yield


def dots(axes: Any, x: Sequence[float] | Floats, y: Sequence[float] | Floats, colour: str, size: float) -> None:
    """Many dots as one path, which is a tenth as long as a mark each: lines of no length with round ends."""
    apart = np.full(len(x), np.nan)
    pairs = (np.column_stack([values, values, apart]).ravel() for values in (x, y))
    axes.plot(*pairs, color=colour, linewidth=size, alpha=0.55, solid_capstyle="round")


def plain_ticks(axis: Any, most_decades: float = np.inf) -> None:
    """1, 10, 100 instead of powers; 2 and 5 as well where no more than so many decades are shown."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if np.log10(high / low) <= most_decades else (1.0,)
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)


_PARTS = {
    "Text": ("color",),
    "Line2D": ("color", "markerfacecolor", "markeredgecolor"),
    "Patch": ("facecolor", "edgecolor"),
    "Collection": ("facecolor", "edgecolor"),
}


def _recolour(artist: Any, colours: Mapping[str, str]) -> None:
    from matplotlib.colors import to_hex

    kinds = {kind.__name__ for kind in type(artist).__mro__}
    for kind in kinds & _PARTS.keys():
        for part in _PARTS[kind]:
            value = getattr(artist, f"get_{part}")()
            first = value[0] if kind == "Collection" and len(value) else value
            if isinstance(first, str) and first in ("none", "auto"):
                continue
            try:
                variable = _VARIABLES.get(to_hex(first))
            except (TypeError, ValueError):
                continue
            if variable is not None:
                getattr(artist, f"set_{part}")(colours[variable])
