"""The README's Python session prints what it shows, and the recipes of the guide run, against the served models."""

import doctest
import re
from pathlib import Path

import pytest

from export.models.pictures import digits

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
(SESSION,) = re.findall(r"^```python\n(>>> .*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
RECIPES = re.findall(
    r"(<!-- compiled -->\n)?^```python\n(.*?)^```",
    (ROOT / "docs" / "guides" / "recipes.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


def test_the_session_of_the_readme_prints_what_it_shows(served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "demo").mkdir(parents=True)
    (tmp_path / "results" / "demo" / "digit.png").write_bytes(digits.held_out_png(0)[0])
    session = SESSION.replace("localhost:8001", served.grpc_url)
    test = doctest.DocTestParser().get_doctest(session, {}, "README.md", None, 0)
    said = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert result.attempted >= 14
    assert result.failed == 0, "".join(said)


def test_the_recipes_run(served):
    run = [code for compiled, code in RECIPES if not compiled]
    assert len(run) == len(RECIPES) - 1
    for code in run:
        names = {}
        exec(compile(code.replace("localhost:8001", served.grpc_url), "recipes.md", "exec"), names)
        names["client"].close()
