"""Output for the person (stderr: progress, tables) and for the next program (stdout: results)."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.status import Status
from rich.table import Column, Table
from rich.text import Text

from loadtests.text import visible, visible_in_json

WIDTH = 160  # of tables that go to a file or a pipe
WORD_WIDTH = 11


class _Console(Console):
    """Prints texts as they are: brackets and colons of a label are no markup, and control characters are shown."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Rich's own control sequences pass: they are segments of another kind."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))

    def status(self, status: RenderableType, **options: Any) -> Status:
        """A spinner beside a text, which rich would take for markup."""
        return super().status(Text(status) if isinstance(status, str) else status, **options)

    def on_broken_pipe(self) -> None:
        """The command's own exit status for it; rich's would be 1, which stands for a failed check."""
        raise BrokenPipeError


err = _Console(stderr=True)
out = _Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(visible_in_json(text) + "\n")
    sys.stdout.flush()  # a program may wait for it while the command goes on, as `serve` does


def print_sentence(text: str) -> None:
    """A sentence of the result: whole words a line on a terminal, one line elsewhere."""
    out.print(text, soft_wrap=not out.is_terminal)


def print_labelled(word: str, text: str) -> None:
    """A sentence of the result behind a label, indented."""
    if not out.is_terminal:
        out.print(f"  {word:<{WORD_WIDTH}}{text}", soft_wrap=True)
        return
    table = Table.grid(padding=0)
    table.add_column(width=2 + WORD_WIDTH, no_wrap=True)
    table.add_row(f"  {word}", Text(text))
    out.print(table, soft_wrap=False)


def note(text: str) -> None:
    """One line for a person, on stderr."""
    err.print("note:", style="yellow", end=" ")
    err.print(text, soft_wrap=True)


def cell(value: float | None) -> str:
    """An accuracy figure for a table: five significant digits, `-` where it was not measured."""
    return "-" if value is None else f"{value:.5g}"


class Steps:
    """Progress of a command on stderr: one bar per task, a line per finished task where stderr is no terminal."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            TextColumn(
                "{task.fields[note]}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
            ),
            TimeElapsedColumn(),
            console=err,
            expand=True,  # the note gives way, not the title
            disable=not err.is_terminal,
        )

    def __enter__(self) -> Steps:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """A bar that runs while the block does."""
        step = Step(self._bars, title)
        yield step
        step.finish()


class Step:
    """One bar: `update(step, done, total)` is what export's progress callback calls."""

    def __init__(self, bars: Progress, title: str) -> None:
        self._bars = bars
        self._title = title
        self._task = bars.add_task(title, total=None, note="")
        self._note = ""

    def update(self, note: str, done: int = 0, total: int = 0) -> None:
        """Show what is being done, and how much of it (no total: only that it runs)."""
        self._note = note
        self._bars.update(self._task, note=note, completed=done, total=total or None)

    def finish(self) -> None:
        """Fill the bar; the last note stays."""
        self._bars.update(self._task, completed=1, total=1)
        if self._bars.disable:
            err.print(f"{self._title}: {self._note or 'done'}")
