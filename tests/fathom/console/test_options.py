"""The options of all commands together: one syntax for times and shares, one meaning per name."""

import argparse
from collections import defaultdict

import pytest

from fathom import cli
from fathom.console import options


def all_options() -> list[tuple[str, argparse.Action]]:
    """(command, option) of every command."""
    found = []
    for name in cli.COMMANDS:
        commands = cli.parser(name)._subparsers._group_actions[0].choices
        found += [
            (name, action) for action in commands[name]._actions if action.option_strings and action.dest != "help"
        ]
    return found


OPTIONS = all_options()


def of_kind(metavar: str) -> list:
    return [
        pytest.param(action, id=f"{command} {action.option_strings[0]}")
        for command, action in OPTIONS
        if action.metavar == metavar
    ]


@pytest.mark.parametrize("option", of_kind("TIME"))
def test_times_are_written_alike(option):
    assert [option.type(text) for text in ("90", "90s", "3m", "80ms", "1.5h")] == [90, 90, 180, 0.08, 5400]


@pytest.mark.parametrize("option", of_kind("SHARE"))
def test_shares_are_written_alike(option):
    assert [option.type(text) for text in ("3%", "0.03", "0", "100%")] == [0.03, 0.03, 0, 1]


@pytest.mark.parametrize("option", of_kind("RATE"))
def test_rates_are_written_alike(option):
    assert [option.type(text) for text in ("200", "200/s")] == [200, 200]


def test_an_option_takes_the_same_in_every_command():
    """`--example` is the one exception: `add` takes example requests from a file, and `infer` sends the first."""
    values = defaultdict(set)
    for _, action in OPTIONS:
        values[action.option_strings[0]].add(action.metavar)
    assert {name: kinds for name, kinds in values.items() if len(kinds) > 1} == {"--example": {"FILE", None}}


def test_the_folder_of_results_has_one_name():
    assert {command for command, action in OPTIONS if action.option_strings == ["--report"]} == {
        "capacity",
        "demo",
        "plan",
        "tune",
    }


WRONG = {
    "no time": (options.duration_s, "soon"),
    "a time of nothing": (options.duration_s, "0"),
    "a time below zero": (options.duration_s, "-1"),
    "a time with an unknown unit": (options.duration_s, "3 min"),
    "a time that is not finite": (options.duration_s, "nan"),
    "an empty time": (options.duration_s, ""),
    "no share": (options.share, "some"),
    "a share below zero": (options.share, "-3%"),
    "a percentage without its sign": (options.share, "3"),
    "a share of more than everything": (options.share, "101%"),
    "a rate of nothing": (options.rate, "0"),
    "a rate that is not finite": (options.rate, "inf"),
    "a count of nothing": (options.count, "0"),
    "a number below zero": (options.whole, "-1"),
    "a number with a fraction": (options.whole, "1.5"),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_values_are_refused(case):
    read, text = WRONG[case]
    with pytest.raises(argparse.ArgumentTypeError):
        read(text)
