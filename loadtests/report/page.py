"""HTML pages that need no network: templates, the style they share, and files that a reader can save from them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtests.slo import about
from loadtests.text import visible

_HERE = Path(__file__).with_name("templates")
_MIME = {"svg": "image/svg+xml", "png": "image/png", "csv": "text/csv"}

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""A page runs no script and fetches nothing. Styles stand in the page, and those of the pictures in attributes."""


def render(template: str, **values: Any) -> str:
    """A template of this folder with the shared style and number formats."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_visible
    )
    environment.filters.update(
        number=number, text=plain, seconds=seconds, share=share, percent=percent, batches=batches, prose=prose
    )
    return environment.get_template(template).render(policy=_POLICY, style=_style(), **values)


def colours() -> dict[str, str]:
    """The light theme: a value such as `#1c2330` for each variable such as `--ink`."""
    return dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", _light()))


def standalone(svg: str) -> str:
    """The picture with the light theme written into it, for use outside the page."""
    style = f"<style>svg {{{_light()} font-family: sans-serif; background: #fff }}</style>"
    return svg.replace("<title>", f"{style}<title>", 1)


def download(name: str, content: bytes) -> str:
    """A `data:` address from which the page itself saves a file."""
    return f"data:{_MIME[name.rpartition('.')[2]]};base64,{base64.b64encode(content).decode()}"


def prose(text: str) -> Any:
    """A sentence as HTML, whose lines end neither within `--an-option` nor before a per cent sign."""
    from markupsafe import Markup, escape

    return Markup(
        re.sub(r"--\w[\w-]*", r'<span class="whole">\g<0></span>', str(escape(visible(text))).replace(" %", "\u00a0%"))
    )


def number(value: float | None, digits: int = 3) -> str:
    """So many significant digits; a dash for what was not measured."""
    return "–" if value is None else about(value, digits)


def seconds(value: float) -> str:
    return f"{value:.1f} s"


def share(value: float | None) -> str:
    """A part of one as per cent."""
    return "–" if value is None else f"{value * 100:.0f} %"


def percent(value: float) -> str:
    """A small part of one, with the digits that tell it from none."""
    return f"{about(value * 100, 2)} %"


def batches(executions: Mapping[str, int]) -> str:
    """How often each batch size was executed, as `1 × 50, 4 × 12`."""
    sizes = sorted((int(size), count) for size, count in executions.items())
    return ", ".join(f"{size} × {count:,}" for size, count in sizes) or "–"


def plain(value: Any) -> str:
    """Any value of a settings table."""
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return about(value, 4)
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, indent=2, default=str)
    return str(value)


def _visible(value: Any) -> Any:
    return visible(value) if type(value) is str else value


def _style() -> str:
    return (_HERE / "report.css").read_text(encoding="utf-8")


def _light() -> str:
    _, _, rest = _style().partition("/* light */")
    return rest.partition("/* end */")[0]
