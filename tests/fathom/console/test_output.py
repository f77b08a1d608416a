"""Nothing that a model, a label, a file or a server says controls the terminal, or is taken for markup."""

from __future__ import annotations

import io
import json
import sys

import pytest
from rich.table import Table

from fathom.cli import main
from fathom.console.live_table import coloured
from fathom.console.output import Steps, _Console, err, note, out, print_json, print_labelled, print_sentence
from loadtests.text import guard_output, visible

CONTROLS = [
    ("\x1b[31m", "a colour"),
    ("\x1b]0;title\x07", "a window's title"),
    ("\x1b]8;;http://x\x1b\\", "a link"),
    ("\x9b2J", "the same in one character: clears the screen"),
    ("a\rb", "overwrites the line"),
    ("a\bb", "overwrites a character"),
    ("a\x7fb", "deletes"),
    ("a\x00b", "NUL"),
    ("\u202ecba", "runs from right to left"),
    ("\u2066cba", "isolates"),
    ("\udcff", "a file name that is no UTF-8"),
]
"""Text, what a terminal would do with it."""
ORDINARY = "[bold]x[/] [/] :smile: naïve 日本語 👩‍🚀 שלום\tb"
UNSEEN = set("\x00\x07\b\r\x1b\x7f\x9b\u202e\u2066\udcff")


@pytest.mark.parametrize("text", [text for text, _ in CONTROLS], ids=[why for _, why in CONTROLS])
def test_no_writer_passes_a_control_character_on(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    guard_output()
    for console in (out, err):
        console.print(text, text.encode(errors="replace"))
        table = Table(text)
        table.add_row(text)
        console.print(table)
        with console.status(text):
            pass
    for say in (print_sentence, note, print):
        say(f"about {text}")
    print_labelled("found", text)
    with Steps().step(text) as step:
        step.update(text)
    print(f"about {text}", file=sys.stderr)
    sys.stdout.writelines([f"about {text}"])
    with pytest.raises(SystemExit):
        main([f"no{text}"])
    assert main(["report", f"no/{text}"]) == 2  # this last: the other leaves Ctrl-C to the system
    printed = capsys.readouterr()
    assert not UNSEEN & set(printed.out + printed.err)
    assert "about" in printed.out
    assert "about" in printed.err


@pytest.mark.parametrize("text", [text for text, _ in CONTROLS], ids=[why for _, why in CONTROLS])
def test_json_means_the_same(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    guard_output()
    print_json({text: [text]})
    printed = capsys.readouterr().out
    assert not UNSEEN & set(printed)
    assert json.loads(printed) == {text: [text]}


def test_ordinary_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    guard_output()
    out.print(ORDINARY.replace("\t", " "))
    print(ORDINARY)
    assert capsys.readouterr().out == f"{ORDINARY.replace(chr(9), ' ')}\n{ORDINARY}\n"
    assert visible(ORDINARY) is ORDINARY


def test_a_terminal_has_the_colours_of_our_own() -> None:
    written = io.StringIO()
    terminal = _Console(file=written, force_terminal=True, color_system="standard")
    terminal.print(coloured("pass"), "\x1b[31mx", style="bold")
    assert written.getvalue().startswith("\x1b[1;32mpass")
    assert "\\x1b[31mx" in written.getvalue()


def test_a_stream_that_the_caller_has_closed_takes_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python leaves it after `fathom infer ... >&-`."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    guard_output()
    for stream in (sys.stdout, sys.stderr):
        print("about", file=stream)
        assert not stream.isatty()
        stream.close()


def test_a_progress_bar_of_another_library_may_begin_its_line_again(capsys: pytest.CaptureFixture[str]) -> None:
    guard_output()
    sys.stderr.write("\r 50%\x1b[A")
    assert capsys.readouterr().err == "\r 50%\\x1b[A"
