"""The command's signals and its last line, in this process: what it changes it puts back."""

from __future__ import annotations

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from clients import ServerError
from fathom import cli

HANDLED = (signal.SIGINT, signal.SIGTERM)


def outcome(run, monkeypatch) -> int:
    """The exit status of a subcommand that does `run`."""
    command = SimpleNamespace(__doc__="", add_arguments=lambda parser: None, run=lambda options: run())
    monkeypatch.setattr(cli, "import_module", lambda name: command)
    before = [signal.getsignal(number) for number in HANDLED]
    try:
        return cli.main(["check"])
    finally:
        assert [signal.getsignal(number) for number in HANDLED] == before


@pytest.mark.parametrize("number", HANDLED)
def test_ctrl_c_and_sigterm_unwind(number, monkeypatch):
    unwound = []

    def run() -> int:
        try:
            signal.raise_signal(number)
        finally:
            unwound.append(number)
        return 0

    assert outcome(run, monkeypatch) == 130
    assert unwound == [number]


def test_arguments_that_cannot_be_parsed_leave_the_signals_alone(monkeypatch):
    before = [signal.getsignal(number) for number in HANDLED]
    with pytest.raises(SystemExit):
        cli.main(["check", "--no-such-option"])
    assert [signal.getsignal(number) for number in HANDLED] == before


def test_bytes_of_an_argument_that_are_no_text_are_one_line(monkeypatch, capsys):
    assert outcome(lambda: "m\udcff".encode(), monkeypatch) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_name_of_megabytes_does_not_fill_the_terminal(monkeypatch, capsys):
    def run() -> int:
        raise ServerError(f"no input {'n' * 1_000_000} at the end", model="m")

    assert outcome(run, monkeypatch) == 2
    printed = capsys.readouterr().err
    assert len(printed) < 5000
    assert printed.endswith("at the end\n")


@pytest.mark.parametrize(
    ("advice", "options"),
    [
        ("it may require TLS (tls=TLS(ca=FILE))", "it may require TLS (--tls-ca FILE)"),
        ("pass tls=TLS(..., cert=FILE, key=FILE)", "pass --tls-cert FILE and --tls-key FILE"),
        ("check TLS(cert=FILE, key=FILE)", "check --tls-cert FILE and --tls-key FILE"),
        ("pass headers={'authorization': TOKEN}", "pass --header authorization=TOKEN"),
    ],
)
def test_the_advice_of_an_error_is_given_in_options(advice, options, monkeypatch, capsys):
    def run() -> int:
        raise ServerError(advice, model="m")

    assert outcome(run, monkeypatch) == 2
    assert capsys.readouterr().err == f"fathom check: {options}\n"


NEVER_ENDS = """
import atexit, sys, time
from types import SimpleNamespace
from fathom import cli

class Stuck:
    def __del__(self):
        time.sleep(60)

def run(options):
    global left
    left = Stuck()  # gone only when the interpreter ends
    atexit.register(print, "cleaned up")
    raise KeyboardInterrupt

cli.import_module = lambda name: SimpleNamespace(__doc__="", add_arguments=lambda parser: None, run=run)
sys.argv = ["fathom", "check"]
cli.entry()
"""


@pytest.mark.process
def test_an_end_of_the_interpreter_that_hangs_does_not_keep_a_stopped_command():
    """As an interrupted call of gRPC can make it; what is registered to be cleaned up is."""
    done = subprocess.run([sys.executable, "-c", NEVER_ENDS], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (130, "cleaned up\n", "fathom check: stopped\n")
