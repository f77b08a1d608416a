"""What the command line cannot understand: one line, exit status 2, and what would have been right."""

import os
import subprocess
import sys

import pytest

from fathom import cli
from fathom.arguments import did_you_mean

WRONG = {
    "a misspelt command": ("capcity", "fathom: no command 'capcity' (did you mean capacity?); there are demo, export,"),
    "no such command": ("help", "fathom: no command 'help'; there are demo, export,"),
    "a misspelt option before any command": ("--verison", "fathom: no option --verison (did you mean --version?); see"),
    "an option without its value": (
        "capacity m --slo",
        "fathom capacity: --slo needs a value; see fathom capacity --help",
    ),
    "a missing option": (
        "capacity m",
        "fathom capacity: --slo pNN=LIMIT is missing, as in `fathom capacity image_classifier --slo p99=50ms`",
    ),
    "a missing argument": ("infer", "fathom infer: MODEL is missing, as in `fathom infer image_classifier image=@"),
    "one of several is missing": ("add x", "fathom add: one of --onnx --torch --hf --sklearn is missing, as in"),
    "a misspelt option that is missed": (
        "capacity m --sol p99=1ms",
        "fathom capacity: no option --sol (did you mean --slo?)",
    ),
    "a misspelt option": ("infer m --tpo 3", "fathom infer: no option --tpo (did you mean --top?)"),
    "one too many": ("report a b", "fathom report: 'b' is one argument too many"),
    "a value that is no choice": (
        "export --precision int9",
        "fathom export: --precision int9 is not possible (did you mean int8?)",
    ),
    "a word for a number": (
        "capacity m --slo p99=1ms --tolerance x",
        "fathom capacity: --tolerance 'x' is not a number",
    ),
    "a word for a whole number": (
        "capacity m --slo p99=1ms --seed x",
        "fathom capacity: --seed 'x' is not a whole number",
    ),
    "options that exclude each other": (
        "add x --onnx a --hf b",
        "fathom add: --hf cannot be combined with --onnx",
    ),
    "no time": ("demo --budget 0", "fathom demo: --budget: '0' is not a length of time above zero"),
    "no generator": (
        "capacity m --slo p99=1ms --workers 0",
        "fathom capacity: --workers: '0' is not a whole number above",
    ),
    "no rate": ("plan --rate -1", "fathom plan: --rate: '-1' is not a rate above zero"),
    "no port": (
        "serve --grpc-port 99999",
        "fathom serve: --grpc-port: '99999' is not a port; give one from 1 to 65535",
    ),
    "no folder": ("check --model-repository no", "fathom check: --model-repository: no folder 'no'; see"),
    "a file for a folder": (
        f"check --model-repository {__file__}",
        f"fathom check: --model-repository: '{__file__}' is not",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_with_what_is_right(case, capsys):
    arguments, said = WRONG[case]
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments.split())
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith(said)
    assert captured.err.count("\n") == 1


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
    assert not {"numpy", "grpc", "torch", "rich", "onnx", "clients", "loadtests"} & set(done.stdout.split())


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
    assert (done.returncode, done.stderr) == (2, "fathom check: No space left on device\n")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_fits_the_terminal(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command = cli.parser(name)._subparsers._group_actions[0].choices[name]
    examples = [line for line in command.description.splitlines() if line.startswith("  ")]
    shown = command.format_help().partition("\n\n")[2].splitlines()  # usage is wrapped by argparse alone
    assert [line for line in shown if len(line) > 80 and line not in examples] == []
    assert set(examples) <= set(shown)
