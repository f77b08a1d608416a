"""The README's session, run: the questions it asks get the answers it shows, and the commands it lists exist."""

import re
import shlex
from pathlib import Path

import pytest

from export.models.pictures import digits
from fathom import cli

pytestmark = pytest.mark.process

README = (Path(__file__).parents[2] / "README.md").read_text()
SESSION = re.findall(r"^    \$ fathom (infer .*)\n    (.*)$", README, re.MULTILINE)


def test_the_session_asks_every_bundled_model():
    assert [command.split()[1] for command, _ in SESSION] == ["image_classifier", "text_embedding", "rain_forecast"]


@pytest.mark.parametrize(("command", "shown"), SESSION, ids=[command.split()[1] for command, _ in SESSION])
def test_the_session_shows_what_the_command_prints(command, shown, served, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "demo").mkdir(parents=True)
    (tmp_path / "results" / "demo" / "digit.png").write_bytes(digits.held_out_png(0)[0])
    assert cli.main([*shlex.split(command), "--server", served.grpc_url]) == 0
    assert capsys.readouterr().out.splitlines()[0] == shown


def test_every_command_of_the_readme_exists_and_none_is_left_out():
    section = README.split("## Commands")[1].split("##")[0]
    named = set(re.findall(r"^    fathom (\w+)", section, re.MULTILINE))
    assert named == set(cli.COMMANDS)
