"""Publishing: a folder changes at once or not at all, whatever happens to the process."""

from __future__ import annotations

import errno
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scale_model import tree

from export.errors import PublishError
from export.repository import publish
from export.repository.publish import SCRATCH, Change, hold, scratch

SEED = 20_261_122


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder with committed files and an earlier build."""
    folder = tmp_path / "model_repository" / "m"
    (folder / "1").mkdir(parents=True)
    (folder / "configs").mkdir()
    (folder / "config.pbtxt").write_text("config")
    (folder / "configs" / "cpu.pbtxt").write_text("cpu")
    (folder / "labels.txt").write_text("old labels")
    (folder / "1" / "model.py").write_text("code")
    (folder / "1" / "model.onnx").write_text("old")
    (folder / "1" / "model.plan").write_text("old engine")
    return folder


def publish_files(folder: Path, files: dict[str, str], drop: frozenset[str] = frozenset()) -> None:
    """Publish texts as an export would."""
    with hold(folder.parent), scratch(folder) as room:
        built = {}
        for index, (name, text) in enumerate(files.items()):
            built[name] = room / str(index)
            built[name].write_text(text)
        publish.publish([Change(folder, built, drop)])


NEW = {"1/model.onnx": "new", "labels.txt": "new labels", "1/manifest.json": "manifest"}
EXPECTED = {
    "config.pbtxt": b"config",
    "configs/cpu.pbtxt": b"cpu",
    "1/model.py": b"code",
    "1/model.onnx": b"new",
    "labels.txt": b"new labels",
    "1/manifest.json": b"manifest",
}


def test_built_files_replace_the_old_and_committed_ones_stay(model: Path) -> None:
    mode = model.stat().st_mode

    publish_files(model, NEW, frozenset({"1/model.plan"}))

    assert tree(model) == EXPECTED
    assert model.stat().st_mode == mode
    assert sorted(path.name for path in model.parents[1].iterdir()) == ["model_repository"]


def test_a_repository_on_a_mount_of_its_own_is_changed_from_within(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_same_mount", lambda one, other: False)
    seen = []
    monkeypatch.setattr(
        publish, "_exchange", lambda new, old, swap=publish._exchange: (seen.append(new), swap(new, old))
    )

    publish_files(model, NEW, frozenset({"1/model.plan"}))

    assert tree(model) == EXPECTED
    assert [new.relative_to(model).parts[0] for new in seen] == [SCRATCH]
    assert sorted(path.name for path in model.parents[1].iterdir()) == ["model_repository"]


def test_a_filesystem_without_exchange_moves_aside_and_in(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLibc:
        def __init__(self, *arguments: object, **options: object) -> None: ...

    monkeypatch.setattr(publish.ctypes, "CDLL", NoLibc)

    publish_files(model, NEW, frozenset({"1/model.plan"}))

    assert tree(model) == EXPECTED


def test_what_died_between_aside_and_in_is_put_back_by_the_next(model: Path) -> None:
    before = tree(model)
    room = model.parents[1] / SCRATCH / "model_repository" / "m-1234-abc"
    room.mkdir(parents=True)
    model.rename(room / "m.aside")

    with hold(model.parent):
        assert tree(model) == before
    assert not (model.parents[1] / SCRATCH).exists()


def test_scratch_of_the_dead_is_swept(model: Path) -> None:
    for base in (model.parents[1] / SCRATCH / "model_repository", model / SCRATCH):
        (base / "m-99999-dead" / "m" / "1").mkdir(parents=True)
        (base / "m-99999-dead" / "m" / "1" / "model.onnx").write_text("half")

    with hold(model.parent):
        pass

    assert not (model.parents[1] / SCRATCH).exists()
    assert not (model / SCRATCH).exists()


def test_an_error_before_the_exchange_changes_nothing(model: Path) -> None:
    before = tree(model)

    with pytest.raises(FileNotFoundError), hold(model.parent), scratch(model) as room:
        publish.publish([Change(model, {"1/model.onnx": room / "never built"})])

    assert tree(model) == before
    assert not (model.parents[1] / SCRATCH).exists()


def test_an_exchange_that_fails_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(new: Path, old: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(publish, "_exchange", refuse)
    before = tree(model)

    with pytest.raises(PublishError, match="Invalid cross-device link") as caught:
        publish_files(model, NEW)
    assert caught.value.file == str(model)

    assert tree(model) == before


def test_an_edit_during_the_build_is_carried_over(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody saves config.pbtxt after it was copied and before the folders change places."""

    def edit_first(new: Path, old: Path, swap=publish._exchange) -> None:
        (model / "config.pbtxt").write_text("edited just now")
        (model / "notes.txt").write_text("new file")
        swap(new, old)

    monkeypatch.setattr(publish, "_exchange", edit_first)

    publish_files(model, NEW, frozenset({"1/model.plan"}))

    assert tree(model) == {**EXPECTED, "config.pbtxt": b"edited just now", "notes.txt": b"new file"}


def test_a_second_export_waits_and_then_says_who_it_waited_for(model: Path) -> None:
    steps = []
    program = f"""
import sys, time
from pathlib import Path
from export.repository.publish import hold
with hold(Path({str(model.parent)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(PublishError) as caught:  # noqa: SIM117
            with hold(model.parent, wait_s=0.5, on_progress=lambda step, done, total: steps.append(step)):
                pytest.fail("two exports held one repository")
        holder.kill()
    assert caught.value.file == str(model.parent)
    assert steps
    with hold(model.parent, wait_s=5.0):
        pass  # the kernel let go with the process


def test_a_repository_that_is_missing_or_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PublishError) as caught, hold(tmp_path / "nowhere"):
        pytest.fail("held a folder that is not there")
    assert caught.value.file == str(tmp_path / "nowhere")

    def refuse(*arguments: object, **options: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "model_repository" / "m").mkdir(parents=True)
    monkeypatch.setattr(publish.tempfile, "mkdtemp", refuse)
    with pytest.raises(PublishError, match="Permission denied") as refused:  # noqa: SIM117
        with scratch(tmp_path / "model_repository" / "m"):
            pytest.fail("made a scratch folder where it may not")
    assert refused.value.file == str(tmp_path / SCRATCH / "model_repository")


@pytest.mark.slow
@pytest.mark.parametrize("inside", [False, True], ids=["beside the repository", "inside the model folder"])
def test_sigkill_at_random_moments_leaves_one_whole_version(model: Path, inside: bool) -> None:
    """A process publishes version after version as fast as it can; every kill must leave all files of one version."""
    names = [f"1/part{index}.bin" for index in range(8)]
    program = f"""
import sys
from pathlib import Path
from export.repository import publish
from export.repository.publish import Change, hold, scratch
if {inside}:
    publish._same_mount = lambda one, other: False
folder = Path({str(model)!r})
version = 0
while True:
    version += 1
    with hold(folder.parent), scratch(folder) as room:
        built = {{}}
        for name in {names!r}:
            built[name] = room / name.replace("/", "-")
            built[name].write_bytes(version.to_bytes(8, "little") * 20_000)
        publish.publish([Change(folder, built)])
    if version == 1:
        print("first", flush=True)
"""
    moments = random.Random(SEED)
    versions = set()
    for _ in range(12):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as publisher:
            assert publisher.stdout is not None
            assert publisher.stdout.readline() == b"first\n"
            time.sleep(moments.uniform(0.0, 0.15))
            publisher.send_signal(signal.SIGKILL)
        found = {(model / name).read_bytes() for name in names}
        assert len(found) == 1, "files of two versions lie side by side"
        assert len(found.copy().pop()) == 160_000
        versions |= found
        assert (model / "config.pbtxt").read_text() == "config"
        assert (model / "1" / "model.py").read_text() == "code"
    assert len(versions) > 3, "the kills did not come at different moments"

    publish_files(model, {"1/model.onnx": "after"})

    assert (model / "1" / "model.onnx").read_text() == "after"
    assert not (model.parents[1] / SCRATCH).exists()
    assert not (model / SCRATCH).exists()
    assert [path.name for path in model.parent.iterdir()] == ["m"]
