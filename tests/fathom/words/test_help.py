"""The help of every command, and what each says of arguments that it does not understand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from fathom import cli


@pytest.mark.parametrize("command", ["", *cli.COMMANDS], ids=lambda command: command or "fathom")
def test_help(command: str, shown: Callable[[], str], snapshot: SnapshotAssertion) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert shown() == snapshot


WRONG = {
    "a misspelt command": "capcity",
    "no such command": "help",
    "a misspelt option before any command": "--verison",
    "an option without its value": "capacity m --slo",
    "a missing option": "capacity m",
    "a missing argument": "infer",
    "one of several is missing": "add x",
    "a misspelt option that is missed": "capacity m --sol p99=1ms",
    "a misspelt option": "infer m --tpo 3",
    "one too many": "report a b",
    "a value that is no choice": "export --precision int9",
    "a word for a number": "plan --rate 9 --cost-per-hour x",
    "no share": "capacity m --slo p99=1ms --gap 3",
    "a word for a whole number": "capacity m --slo p99=1ms --seed x",
    "options that exclude each other": "add x --onnx a --hf b",
    "no time": "demo --budget 0",
    "no generator": "capacity m --slo p99=1ms --workers 0",
    "no rate": "plan --rate -1",
    "no port": "serve --grpc-port 99999",
    "no folder": "check --model-repository no",
    "a file for a folder": "check --model-repository file",
}


@pytest.mark.parametrize("case", WRONG)
def test_arguments(case: str, folder: Path, capsys: pytest.CaptureFixture[str], snapshot: SnapshotAssertion) -> None:
    """One line, exit status 2, and what would have been right."""
    (folder / "file").touch()
    with pytest.raises(SystemExit) as ended:
        cli.main(WRONG[case].split())
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert captured.err == snapshot
