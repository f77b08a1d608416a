"""What the site needs beside its pages: equations, which GitHub renders by itself, become MathML."""

from __future__ import annotations

from typing import Any

from latex2mathml.converter import convert


def on_config(config: Any) -> None:
    """Called by MkDocs. Fences named `math` are equations in LaTeX."""
    config["mdx_configs"].setdefault("pymdownx.superfences", {})["custom_fences"] = [
        {
            "name": "math",
            "class": "math",
            "format": lambda source, *_, **__: f"<p>{convert(source, display='block')}</p>",
        }
    ]
