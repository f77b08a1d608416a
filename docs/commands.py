"""Write reference/commands.md from the parsers: `python docs/commands.py`. A test compares the page with them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from fathom import cli

PAGE = Path(__file__).parent / "reference" / "commands.md"
WIDTH = "100"
INTRODUCTION = """\
# Commands

Every command with its options, as `--help` prints them. [Exit statuses](exit-statuses.md) are the same for all.

<!-- python docs/commands.py -->
"""


def page() -> str:
    """The whole page, at the same width on every terminal."""
    os.environ["COLUMNS"] = WIDTH
    return INTRODUCTION + "".join(map(_section, cli.COMMANDS))


def _section(name: str) -> str:
    found = next(each for each in cli.parser(name)._actions if isinstance(each, argparse._SubParsersAction))
    return f"\n## fathom {name}\n\n```text\n{found.choices[name].format_help().strip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
