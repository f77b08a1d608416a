"""Every `fathom` command that the documents show is one that the command line understands."""

import re
import shlex
from pathlib import Path

import pytest

from fathom import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = re.compile(r"^(?:    |\$ |    \$ )?fathom ([a-z].*?)(?:  .*| #.*|\\|&)?$|`fathom ([a-z][^`]*)`", re.MULTILINE)
PLACEHOLDERS = {"RATE": "9", "TIME": "9s", "N": "1", "DIR": "."}
MENTIONED = ("missing", "needs a value")
"""What is only mentioned in a sentence need not be complete."""


def commands(document: Path) -> list[str]:
    found = ((line or inline).strip() for line, inline in SHOWN.findall(document.read_text(encoding="utf-8")))
    return [command for command in found if not re.search(r"\[|\||\.\.\.|…", command)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_its_commands_are_understood(document, monkeypatch, capsys):
    monkeypatch.setattr("fathom.console.options.folder", Path)  # of the reader, not of this machine
    for command in commands(document):
        words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)]
        try:
            cli.parser(words[0]).parse_args(words)
        except SystemExit:
            said = capsys.readouterr().err
            assert any(word in said for word in MENTIONED), f"{document.name}: fathom {command}: {said}"


def test_the_documents_show_commands():
    assert sum(len(commands(document)) for document in DOCUMENTS) > 40
