"""Every command and option that a text of the product names exists: found in the source, so that none is left out."""

import argparse
import ast
import re
import shlex
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fathom import cli

ROOT = Path(__file__).parents[2]
PACKAGES = ("clients", "export", "fathom", "loadtests", "model_repository", "server")
LEFT_OPEN = "7"
"""In place of what a text fills in; a size, a rate, a name."""
OTHER_PROGRAMS = {
    "tritonserver": (
        "--allow-client-shm",
        "--backend-config",
        "--grpc-restricted-protocol",
        "--grpc-server-cert",
        "--grpc-server-key",
        "--grpc-use-ssl",
        "--load-model",
        "--model-config-name",
        "--model-control-mode",
    ),
    "pip": ("--no-deps",),
    "docker run": ("--ipc", "--shm-size"),
    "Python's configure": ("--enable-shared",),
    "locust": (
        "--host",
        "--master-bind-host",
        "--master-host",
        "--master-port",
        "--web-host-display-name",
        "--worker",
    ),
}
PLACEHOLDERS = {"LIMIT": "9ms", "DIR": ".", "RATE": "9"}
INCOMPLETE = ("missing", "needs a value")
"""What is only mentioned in a sentence need not be complete."""


def texts(path):
    """(line, text) of each text of a module but docstrings; what is filled in stands as LEFT_OPEN."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    left_out = {id(each.value) for each in nodes if isinstance(each, ast.Expr)}
    left_out |= {id(part) for each in nodes if isinstance(each, ast.JoinedStr) for part in each.values}
    for each in nodes:
        if id(each) in left_out:
            continue
        if isinstance(each, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else LEFT_OPEN for part in each.values)
            yield each.lineno, "".join(parts)
        elif isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.lineno, each.value


def calls(path):
    """(line, words) of each command that is spelt by `export.command.fathom` or `export.lint.remedies.export`."""
    for each in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = each.func.id if isinstance(each, ast.Call) and isinstance(each.func, ast.Name) else ""
        if name not in ("fathom", "export", "_build"):
            continue
        words = [
            arg.value if isinstance(arg, ast.Constant) else LEFT_OPEN
            for arg in each.args
            if not isinstance(arg, ast.Starred)
        ]
        before = {"fathom": (), "export": ("export",), "_build": ("export", "--engine")}[name]
        if words and isinstance(words[0], str) and (name != "fathom" or words[0] in cli.COMMANDS):
            yield each.lineno, shlex.join([*before, *words])


MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
TEXTS = [(f"{path.relative_to(ROOT)}:{line}", text) for path in MODULES for line, text in texts(path)]
COMMANDS = [
    (place, found)
    for place, text in TEXTS
    for found in re.findall(r"`fathom ([^`]+)`|(?:^|: )fathom ([a-z]+ [^`]*)$", text)
]
COMMANDS = [(place, (quoted or bare).rstrip(". ")) for place, (quoted, bare) in COMMANDS] + [
    (f"{path.relative_to(ROOT)}:{line}", words) for path in MODULES for line, words in calls(path)
]


def options_of(parser):
    return {option for action in parser._actions for option in action.option_strings}


@pytest.fixture(scope="module")
def known_options():
    """Those of all commands, and of the programs that they are used with."""
    found = set().union(*OTHER_PROGRAMS.values())
    for name in cli.COMMANDS:
        (subcommands,) = (each for each in cli.parser(name)._actions if isinstance(each, argparse._SubParsersAction))
        found |= options_of(subcommands.choices[name])
    return found


def test_the_product_suggests_commands():
    assert len(COMMANDS) > 40
    assert {words.split()[0] for _, words in COMMANDS} >= {"add", "capacity", "check", "export", "infer", "serve"}


def test_commands_are_understood(monkeypatch, capsys):
    monkeypatch.setattr("fathom.console.options.folder", Path)  # of the reader, not of this machine
    for place, command in COMMANDS:
        words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)]
        if words[0] == "COMMAND":
            continue
        assert words[0] in cli.COMMANDS, f"{place}: fathom {command}"
        try:
            cli.parser(words[0]).parse_args(words)
        except SystemExit:
            said = capsys.readouterr().err
            assert any(word in said for word in INCOMPLETE), f"{place}: fathom {command}: {said}"


def test_options_exist(known_options):
    unknown = []
    for place, text in TEXTS:
        if " " not in text or place.startswith("loadtests/report/svg.py"):
            continue  # no sentence; there, CSS variables
        for option in re.findall(r"(?<![\w{}-])--[a-z][a-z0-9-]*[a-z0-9]", text):
            if option not in known_options:
                unknown.append(f"{place}: {option}")
    assert unknown == []


def test_what_pip_is_to_install_is_what_the_project_needs():
    projects = [tomllib.loads((ROOT / name / "pyproject.toml").read_text())["project"] for name in (".", "clients")]
    extras = {**projects[0]["optional-dependencies"], **projects[1].get("optional-dependencies", {})}
    needed = [text for project in projects for text in project["dependencies"]]
    needed += [text for texts in extras.values() for text in texts]
    names = {Requirement(text).name for text in needed}
    names |= set(re.findall(r"([\w.-]+)==", (ROOT / "Makefile").read_text()))
    installed = re.compile(r"pip install (?:--no-deps )?('[^']+'|[\w.-]+)")
    found = [(place, line) for place, text in TEXTS for line in installed.findall(text)]
    assert len(found) > 5
    for place, line in found:
        wanted = Requirement(shlex.split(line)[0])
        own = wanted.name == projects[0]["name"] and wanted.extras <= extras.keys()
        assert own or wanted.name in names, f"{place}: pip install {line}"


def test_modules_that_python_is_to_run_exist():
    found = [(place, name) for place, text in TEXTS for name in re.findall(r"python -m ([\w.]+)", text)]
    assert found
    assert [place for place, name in found if find_spec(name) is None] == []
