"""The parser of the command line; what it cannot understand is among the tests of words."""

import os
import subprocess
import sys

import pytest

from export.command import default_repository
from export.errors import did_you_mean
from fathom import cli


def test_options_may_stand_between_the_arguments():
    options = cli.parser("infer").parse_args(["infer", "m", "a=1", "--top", "2", "b=2", "--json"])
    assert (options.model, options.inputs, options.top, options.json) == ("m", ["a=1", "b=2"], 2, True)


def test_without_a_command_there_is_the_help_and_exit_status_2(capsys):
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert all(f"    {name}" in captured.err for name in cli.COMMANDS)


def test_nothing_is_suggested_where_nothing_is_near():
    assert did_you_mean("zebra", cli.COMMANDS) == ""


def test_the_help_loads_no_heavy_library():
    """What takes a second to import is imported by the command that needs it."""
    program = "import sys; from fathom import cli; cli.parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"numpy", "grpc", "torch", "rich", "onnx", "clients", "loadtests.capacity"} & set(done.stdout.split())


def test_a_reader_that_goes_away_ends_it_quietly():
    """As `head` does; 141 is what a shell makes of it, too."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "fathom.cli", "check"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "fathom.cli", "check"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("fathom check: No space left on device")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_fits_the_terminal(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command = cli.parser(name)._subparsers._group_actions[0].choices[name]
    examples = [line for line in command.description.splitlines() if line.startswith("  ")]
    shown = command.format_help().partition("\n\n")[2].splitlines()  # usage is wrapped by argparse alone
    assert [line for line in shown if len(line) > 80 and line not in examples] == []
    assert set(examples) <= set(shown)


def test_the_models_beside_the_package_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FATHOM_MODEL_REPOSITORY", raising=False)

    assert (default_repository() / "mobilenet_v2" / "config.pbtxt").is_file()
