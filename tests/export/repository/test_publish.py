"""Publishing: a folder changes at once or not at all, whatever happens to the process."""

from __future__ import annotations

import errno
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scale_model import tree

from export.errors import PublishError
from export.repository import publish
from export.repository import scratch as rooms
from export.repository.publish import Change, hold
from export.repository.scratch import SCRATCH, scratch

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


class NoLibc:
    """A C library without `renameat2`."""

    def __init__(self, *arguments: object, **options: object) -> None: ...


def publish_files(folder: Path, files: dict[str, str], drop: frozenset[str] = frozenset()) -> None:
    """Publish texts as an export would."""
    with hold(folder.parent), scratch(folder) as room:
        built = {}
        for index, (name, text) in enumerate(files.items()):
            built[name] = room / str(index)
            built[name].write_text(text)
        publish.publish([Change(folder, built, drop)])


def publish_all(repository: Path) -> None:
    """Publish new files of the three models `m`, `second` and `third` at once."""
    with hold(repository), scratch(repository / "m") as room:
        changes = []
        for name in ("m", "second", "third"):
            built = {path: room / f"{name}-{index}" for index, path in enumerate(NEW)}
            for path, text in NEW.items():
                built[path].write_text(text)
            changes.append(Change(repository / name, built))
        publish.publish(changes)


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
    for module in (publish, rooms):
        monkeypatch.setattr(module, "same_mount", lambda one, other: False)
    seen = []
    monkeypatch.setattr(
        publish, "_exchange", lambda new, old, swap=publish._exchange: (seen.append(new), swap(new, old))
    )

    publish_files(model, NEW, frozenset({"1/model.plan"}))

    assert tree(model) == EXPECTED
    assert [new.relative_to(model).parts[0] for new in seen] == [SCRATCH] * 2
    assert sorted(path.name for path in model.parents[1].iterdir()) == ["model_repository"]


def test_a_filesystem_without_exchange_moves_aside_and_in(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish.ctypes, "CDLL", NoLibc)

    publish_files(model, NEW, frozenset({"1/model.plan"}))

    assert tree(model) == EXPECTED


def test_what_died_between_aside_and_in_is_put_back_by_the_next(model: Path) -> None:
    before = tree(model)
    room = model.parents[1] / SCRATCH / "model_repository" / "m-1234-abc"
    room.mkdir(parents=True)
    model.rename(room / f"m{publish.ASIDE}")

    with hold(model.parent):
        assert tree(model) == before
    assert not (model.parents[1] / SCRATCH).exists()


def test_a_version_folder_moved_aside_within_its_model_folder_is_put_back(model: Path) -> None:
    before = tree(model)
    room = model / SCRATCH / "m-1234-abc" / "m"
    room.mkdir(parents=True)
    (model / "1").rename(room / f"1{publish.ASIDE}")

    with hold(model.parent):
        pass

    assert tree(model) == before


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


def test_an_exchange_that_fails_is_an_error_and_changes_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(new: Path, old: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(publish, "_exchange", refuse)
    before = tree(model)

    with pytest.raises(PublishError) as caught:
        publish_files(model, NEW)
    assert caught.value.file == str(model)

    assert tree(model) == before


INSIDE, BESIDE = True, False
FAILURES = [
    (BESIDE, 3, OSError(errno.EBUSY, "Device or resource busy"), "the last of three folders"),
    (BESIDE, 2, OSError(errno.ENOSPC, "No space left on device"), "the second folder"),
    (BESIDE, 2, KeyboardInterrupt(), "an interrupt between two folders"),
    (INSIDE, 2, OSError(errno.EROFS, "Read-only file system"), "a file beside the version folder of the first model"),
    (INSIDE, 4, OSError(errno.EROFS, "Read-only file system"), "the second model of a repository that is a mount"),
]


@pytest.mark.parametrize(("inside", "nth", "error", "why"), FAILURES, ids=[row[-1] for row in FAILURES])
def test_several_folders_change_all_or_not_at_all(
    model: Path, monkeypatch: pytest.MonkeyPatch, inside: bool, nth: int, error: BaseException, why: str
) -> None:
    repository = model.parent
    for name in ("second", "third"):
        shutil.copytree(model, repository / name)
    (repository / "second" / "labels.txt").unlink()  # a file that is new has none to change back to
    before, exchange, calls = tree(repository), publish._exchange, []

    def fail_at_nth(new: Path, old: Path) -> None:
        calls.append(old)
        if len(calls) == nth:
            raise error
        exchange(new, old)

    monkeypatch.setattr(publish, "_exchange", fail_at_nth)
    if inside:
        for module in (publish, rooms):
            monkeypatch.setattr(module, "same_mount", lambda one, other: False)
    with pytest.raises(PublishError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        publish_all(repository)

    assert tree(repository) == before
    assert not (repository.parent / SCRATCH).exists()
    if isinstance(caught.value, PublishError):
        assert (caught.value.found, caught.value.remedy) == ([], None)

    monkeypatch.setattr(publish, "_exchange", exchange)
    publish_all(repository)
    assert {(repository / name / "labels.txt").read_text() for name in ("m", "second", "third")} == {"new labels"}


def test_a_folder_that_cannot_change_back_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = model.parent
    for name in ("second", "third"):
        shutil.copytree(model, repository / name)
    exchange, calls = publish._exchange, []

    def fail_from_third(new: Path, old: Path) -> None:
        calls.append(old)
        if len(calls) == 3 or (len(calls) > 3 and old == model):
            raise OSError(errno.EBUSY, "Device or resource busy")
        exchange(new, old)

    monkeypatch.setattr(publish, "_exchange", fail_from_third)
    with pytest.raises(PublishError) as caught:
        publish_all(repository)

    assert (caught.value.file, caught.value.found) == (str(repository / "third"), [str(model)])
    assert caught.value.remedy
    new = [name for name in ("m", "second", "third") if (repository / name / "1" / "model.onnx").read_text() == "new"]
    assert new == ["m"]


def test_a_filesystem_without_exchange_puts_back_what_it_moved_aside(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def refuse_new(self: Path, target: Path) -> Path:
        if target == model and not self.name.endswith(publish.ASIDE):
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(publish.ctypes, "CDLL", NoLibc)
    monkeypatch.setattr(Path, "rename", refuse_new)
    before = tree(model)
    with pytest.raises(PublishError) as caught:
        publish_files(model, NEW)
    assert caught.value.found == []
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


def test_a_second_export_waits_and_then_names_the_repository(model: Path) -> None:
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
    monkeypatch.setattr(rooms.tempfile, "mkdtemp", refuse)
    with pytest.raises(PublishError) as refused:  # noqa: SIM117
        with scratch(tmp_path / "model_repository" / "m"):
            pytest.fail("made a scratch folder where it may not")
    assert refused.value.file == str(tmp_path / SCRATCH / "model_repository")


@pytest.mark.slow
@pytest.mark.parametrize("inside", [False, True], ids=["beside the repository", "inside the model folder"])
def test_sigkill_at_random_moments_leaves_one_whole_version(model: Path, inside: bool) -> None:
    """A process publishes version after version as fast as it can; every kill must leave all files of one version."""
    names = [f"1/part{index}.bin" for index in range(8)]
    program = f"""
import sys, time
from pathlib import Path
from export.repository import publish
from export.repository import scratch as rooms
from export.repository.publish import Change, hold
from export.repository.scratch import scratch
if {inside}:
    publish.same_mount = rooms.same_mount = lambda one, other: False
folder = Path({str(model)!r})
version = 0
while True:
    version += 1
    began = time.monotonic()
    with hold(folder.parent), scratch(folder) as room:
        built = {{}}
        for name in {names!r}:
            built[name] = room / name.replace("/", "-")
            built[name].write_bytes(version.to_bytes(8, "little") * 20_000)
        publish.publish([Change(folder, built)])
    if version == 1:
        print(time.monotonic() - began, flush=True)
"""
    moments = random.Random(SEED)
    versions = set()
    for _ in range(12):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as publisher:
            assert publisher.stdout is not None
            time.sleep(moments.uniform(0.0, 5.0) * float(publisher.stdout.readline()))
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
