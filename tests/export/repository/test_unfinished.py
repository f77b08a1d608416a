"""The mark of a roll-out that was killed: check names its version, and serve takes it back before Triton loads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.lint.lint import lint
from export.repository import unfinished
from export.repository.publish import hold
from fathom.rollout import take_back_unfinished


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The model `m` with version 1, and a version 2 whose publish was killed."""
    made = tmp_path / "model_repository"
    for version in ("1", "2"):
        (made / "m" / version).mkdir(parents=True)
    unfinished.begin(made / "m", 2, ["localhost:8001"], tmp_path)
    return made


def unfinished_versions(repository: Path) -> list[str]:
    return [finding.file for finding in lint(repository) if finding.rule == "unfinished"]


def test_check_names_the_version_unless_the_roll_out_goes_on(repository: Path) -> None:
    assert unfinished_versions(repository) == ["m/2"]
    with hold(repository):
        assert unfinished_versions(repository) == []


def test_serve_takes_the_version_back_unless_the_roll_out_goes_on(repository: Path) -> None:
    reports: list[str] = []
    with hold(repository):
        take_back_unfinished(repository, reports.append)
    assert reports == []
    take_back_unfinished(repository, reports.append)
    assert len(reports) == 1
    assert [path.name for path in (repository / "m").iterdir()] == ["1"]
    assert unfinished_versions(repository) == []


NO_MARKS = {
    "no JSON": "[" * 10_000,
    "another document": '{"version": [2]}',
    "a number that no integer is": '{"version": 1e400, "servers": []}',
    "a path instead of a number": '{"version": "../../x", "servers": []}',
    "the only version, which nothing would be served without": '{"version": 1, "servers": []}',
}


@pytest.mark.parametrize("text", NO_MARKS.values(), ids=NO_MARKS)
def test_what_is_no_mark_takes_nothing_back(repository: Path, text: str) -> None:
    (repository / "m" / unfinished.FILE).write_text(text)
    take_back_unfinished(repository, pytest.fail)
    assert sorted(path.name for path in (repository / "m").iterdir() if path.is_dir()) == ["1", "2"]
