"""The README's Python session, run against the served models: what it shows is what it prints."""

import doctest
import re
from pathlib import Path

import pytest

from export.models.pictures import digits

pytestmark = pytest.mark.process

README = (Path(__file__).parents[2] / "README.md").read_text()
(SESSION,) = re.findall(r"^```python\n(>>> .*?)^```", README, re.MULTILINE | re.DOTALL)


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
