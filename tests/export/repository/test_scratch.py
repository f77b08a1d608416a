"""Scratch folders: what is not ours, by link or by owner, is neither entered nor removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from export.errors import PublishError
from export.repository.publish import Change, hold, publish
from export.repository.scratch import SCRATCH, scratch

LINKS: dict[str, Callable[[Path], Path]] = {
    "the folder beside the repository": lambda repository: repository.parent / SCRATCH,
    "the repository's folder in it": lambda repository: repository.parent / SCRATCH / repository.name,
    "the folder inside a model": lambda repository: repository / "m" / SCRATCH,
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = tmp_path / "project" / "model_repository"
    (made / "m").mkdir(parents=True)
    (made / "m" / "config.pbtxt").write_text("config")
    return made


@pytest.mark.parametrize("place", LINKS.values(), ids=LINKS)
def test_a_link_in_the_place_of_a_scratch_folder_is_refused(
    repository: Path, tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    victim = tmp_path / "victim"
    for folder in (victim / "m-1-x", victim / repository.name):
        folder.mkdir(parents=True)
        (folder / "thesis.txt").write_text("precious")
    link = place(repository)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(victim)

    with pytest.raises(PublishError) as refused, hold(repository):
        pytest.fail("held a repository with a scratch folder that is not ours")

    assert refused.value.file == str(link)
    assert (victim / "m-1-x" / "thesis.txt").exists()
    assert (victim / repository.name / "thesis.txt").exists()


def test_a_link_to_the_repository_itself_leaves_it_whole(repository: Path) -> None:
    (repository.parent / SCRATCH).symlink_to(".")

    with pytest.raises(PublishError), hold(repository):
        pytest.fail("held a repository with a scratch folder that is not ours")

    assert (repository / "m" / "config.pbtxt").read_text() == "config"


def test_the_folder_of_another_user_is_left_alone(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = repository.parent / SCRATCH / repository.name / "m-1-x"
    room.mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(PublishError), hold(repository):
        pytest.fail("swept the folder of another user")
    with pytest.raises(PublishError), scratch(repository / "m"):
        pytest.fail("built in the folder of another user")

    assert room.is_dir()


def test_a_pipe_in_a_model_folder_is_refused_before_anything_changes(repository: Path) -> None:
    os.mkfifo(repository / "m" / "pipe")

    with hold(repository), scratch(repository / "m") as room:
        (room / "new").write_text("new")
        with pytest.raises(PublishError) as refused:
            publish([Change(repository / "m", {"1/model.onnx": room / "new"})])

    assert refused.value.file == str(repository / "m" / "pipe")
    assert sorted(path.name for path in (repository / "m").iterdir()) == ["config.pbtxt", "pipe"]
