"""The folder of results: two searches do not mix in it, a full disk loses nothing that was said, old ones are read."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from simulated import run_search

from fathom.cli import main
from loadtests import report
from loadtests.errors import BadRequestError, ResultsError
from loadtests.records.record import Record
from loadtests.report.prose import explain
from loadtests.results import store
from loadtests.results.lock import writer, writing
from loadtests.results.store import Run, Store, read_runs
from loadtests.slo import Slo

P99 = Slo.parse("p99=20ms")
SETTINGS = {"unloaded_ms": 1.0, "budget_s": 60.0, "workers": 1, "mix": {"queue": 1.0}}


def a_run():
    return Run("queue", "simulated:1", (P99,), 0, SETTINGS, {}, {"cpu": "none"}, "2026-11-22T00:00")


@pytest.fixture(scope="module")
def points():
    return [*run_search(P99, 0.001, budget_s=60, seed=1)[:5]]


@pytest.fixture
def kept(points, tmp_path):
    """A finished search of five points, as its folder."""
    kept = Store(tmp_path, a_run())
    for point in points:
        kept.add(point)
    kept.finish(a_run().result(points, partial="", folder=kept.folder))
    return kept.folder


LATER = dataclasses.replace(a_run(), started_at="2026-11-23T00:00")


def test_a_new_search_leaves_the_last_one_and_is_found_from_every_folder_above(kept, points):
    before = {file: file.read_bytes() for file in kept.rglob("*") if file.is_file()}
    _, newer = (Store(folder, LATER).folder for folder in (kept.parents[1], kept.parent))  # two within a second
    assert {file: file.read_bytes() for file in before} == before
    assert newer.parent == kept.parent
    assert (kept.parent / "latest").resolve() == newer
    for folder in (kept.parents[1], kept.parent, kept.parent / "latest", newer):
        assert [stored.folder.resolve() for stored in read_runs(folder)] == [newer]
    assert list(read_runs(kept)[0].result.points) == points


def test_going_on_with_an_older_search_makes_it_the_latest_where_it_is(kept, points):
    newer = Store(kept.parents[1], LATER).folder
    again = Store(kept, a_run(), points[:2], at=kept)
    again.add(points[2])
    assert list(read_runs(kept.parent)[0].result.points) == points[:3]
    assert again.folder == kept
    assert read_runs(newer)[0].run == LATER


def with_old_layout(kept):
    """Before a search had a folder of its own: the files lie in the model's."""
    (kept.parent / "latest").unlink()
    for file in kept.iterdir():
        file.rename(kept.parent / file.name)
    kept.rmdir()
    return kept.parent


def copy_without_links(kept):
    shutil.copytree(kept.parents[1], kept.parents[2] / "copy")
    return kept.parents[2] / "copy" / kept.parent.name / kept.name


WITHOUT_A_LINK = {
    "as an earlier version wrote it": with_old_layout,
    "a download that lost the link": lambda kept: (kept.parent / "latest").unlink() or kept,
    "a copy that followed the link": copy_without_links,
    "a link to a folder that is gone": lambda kept: shutil.rmtree(Store(kept.parents[1], LATER).folder) or kept,
}


@pytest.mark.parametrize("case", WITHOUT_A_LINK)
def test_results_are_found_without_the_link(kept, points, case):
    run = WITHOUT_A_LINK[case](kept)
    home = run if "earlier" in case else run.parent
    for folder in (home.parent, home):
        (stored,) = read_runs(folder)
        assert stored.folder == run
        assert list(stored.result.points) == points
    newer = Store(home.parent, LATER).folder
    assert [stored.folder for stored in read_runs(home)] == [newer]


def edit(home, name, change):
    """Changes the JSON in a file, of `points.jsonl` that in its second line."""
    lines = (home / name).read_text().splitlines()
    if name == "points.jsonl":
        lines[1] = json.dumps(change(json.loads(lines[1])))
    else:
        lines = [json.dumps(change(json.loads("\n".join(lines))))]
    (home / name).write_text("\n".join(lines) + "\n")


def with_field(document, key, value):
    """The document with another value, or with `...` without the field."""
    return {name: value if name == key else old for name, old in document.items() if (name, value) != (key, ...)}


@pytest.mark.parametrize("name", ["run.json", "points.jsonl", "capacity.json"])
def test_an_old_or_edited_result_is_read_or_refused_in_one_line(kept, name):
    """Each field in turn is missing, null, text and an object."""
    text = (kept / name).read_text()
    document = json.loads(text.splitlines()[1] if name == "points.jsonl" else text)
    refused = []
    for key in ("partial", "reason") if name == "capacity.json" else document:
        for value in (..., None, "x", {"a": "b"}):
            (kept / name).write_text(text)
            edit(kept, name, lambda old, key=key, value=value: with_field(old, key, value))
            try:
                explain(read_runs(kept)[0].result)
            except ResultsError as error:
                refused.append(error)
    assert not any("\n" in str(error) for error in refused)
    assert sum(error.path == kept / name for error in refused) > (3 if name == "capacity.json" else len(document))


@pytest.mark.parametrize(
    ("name", "change", "place", "words"),
    [
        ("run.json", lambda run: {**run, "format": 2}, ("run.json", None), ["format", "2"]),
        ("run.json", lambda run: [run], ("run.json", None), []),
        ("run.json", lambda run: {k: v for k, v in run.items() if k != "format"}, ("run.json", None), ["format"]),
        ("run.json", lambda run: {**run, "slos": ["fast"]}, ("run.json", None), ["'fast'"]),
        ("run.json", lambda run: {**run, "slos": ["p99=30ms"]}, ("points.jsonl", 1), ["p99=30ms"]),
        ("run.json", lambda run: {**run, "settings": {"budget_s": "long"}}, ("run.json", None), ["budget_s", "'long'"]),
        ("points.jsonl", lambda point: {**point, "rate_per_s": 0}, ("points.jsonl", 2), ["rate_per_s", "0"]),
        ("points.jsonl", lambda point: {**point, "verdict": "fine"}, ("points.jsonl", 2), ["verdict", "'fine'"]),
        ("points.jsonl", lambda point: {**point, "p99_ms": math.nan}, ("points.jsonl", 2), ["p99_ms", "nan"]),
        ("points.jsonl", lambda point: point["seed"], ("points.jsonl", 2), []),
        ("capacity.json", lambda ended: {}, ("capacity.json", None), ["partial"]),
    ],
)
def test_what_is_wrong_with_a_result_is_named(kept, capsys, name, change, place, words):
    edit(kept, name, change)
    with pytest.raises(ResultsError) as refused:
        read_runs(kept)
    assert (refused.value.path, refused.value.line) == (kept / place[0], place[1])
    assert main(["plan", "--rate", "9", "--report", str(kept)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert all(word in told for word in words)


def test_fields_of_a_newer_version_and_a_missing_last_newline_are_passed_over(kept, points):
    edit(kept, "points.jsonl", lambda point: {**point, "colour": "red"})
    (kept / "points.jsonl").write_text((kept / "points.jsonl").read_text().rstrip("\n"))
    assert list(read_runs(kept)[0].result.points) == points


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x93NUMPY"], ids=["empty", "cut short", "no zip"])
def test_raw_data_that_cannot_be_read_is_an_error_of_results(tmp_path, content):
    (tmp_path / "probe-000.npz").write_bytes(content)
    with pytest.raises(ResultsError) as refused:
        Record.load(tmp_path / "probe-000.npz")
    assert refused.value.path == tmp_path / "probe-000.npz"


def test_a_link_in_a_results_folder_is_not_followed(kept, points, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "probe-001.npz").write_text("precious")
    for name in ("report.html", "run.json.part"):
        for folder in (tmp_path, kept):
            (folder / name).symlink_to(victim / "probe-001.npz")
    report.write(tmp_path)
    with pytest.raises(ResultsError):
        read_runs(tmp_path)[0].record(replace(points[0], raw="../victim/probe-001.npz"))
    (kept / "raw").rmdir()
    (kept / "raw").symlink_to(victim)
    with pytest.raises(BadRequestError):
        Store(tmp_path, a_run(), at=kept)
    assert (victim / "probe-001.npz").read_text() == "precious"


def test_a_pipe_among_the_results_is_refused_at_once(kept):
    (kept / "points.jsonl").unlink()
    os.mkfifo(kept / "points.jsonl")
    with pytest.raises(ResultsError):
        read_runs(kept)


def test_a_second_search_is_refused_while_the_first_lives(tmp_path):
    program = "import sys, time, pathlib; from loadtests.results.lock import writing\n"
    program += "with writing(pathlib.Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    first = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        first.stdout.readline()
        with pytest.raises(BadRequestError) as refused, writing(tmp_path):
            pass
        assert str(first.pid) in str(refused.value)
        assert str(tmp_path) in str(refused.value)
        assert writer(tmp_path) == str(first.pid)
    finally:
        first.kill()  # no time to clean up
        first.communicate()
    assert writer(tmp_path) == ""
    with writing(tmp_path):
        assert writer(tmp_path) == str(os.getpid())


def test_a_search_that_goes_on_is_read_as_such(kept):
    (kept / "capacity.json").unlink()
    assert read_runs(kept)[0].result.partial
    with writing(kept.parent):
        assert str(os.getpid()) in read_runs(kept)[0].result.ended_because
        assert report.write(kept).is_file()


@pytest.mark.parametrize("make", [lambda path: path.write_text("x"), lambda path: path.symlink_to("/proc/none/x")])
def test_a_folder_that_cannot_be_is_refused_before_anything_is_measured(tmp_path, make):
    make(tmp_path / "queue")
    with pytest.raises(BadRequestError) as refused, writing(tmp_path / "queue"):
        pass
    assert refused.value.field == "folder"
    assert str(tmp_path / "queue") in str(refused.value)


FULL = {"points.jsonl": "_append", "capacity.json": "replace", "raw": "record"}


@pytest.mark.parametrize("what", FULL)
def test_a_disk_that_fills_up_is_complained_about_once_and_the_rest_is_kept(tmp_path, points, monkeypatch, what):
    record = Record(*([[0.0]] * 3), [0])  # type: ignore[arg-type]
    folder = Store(tmp_path, a_run())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(monkeypatch.context())
        patch.setattr(*((Record, "save") if what == "raw" else (store, FULL[what])), full)
        raw = [folder.save_record(number, record) for number in range(2)]
        for point in points:
            folder.add(point)
        folder.finish(a_run().result(points, partial="", folder=folder.folder))
    assert raw == (["", ""] if what == "raw" else ["raw/probe-000.npz", "raw/probe-001.npz"])
    assert what in folder.trouble
    assert "No space left" in folder.trouble
    assert len(read_runs(tmp_path)[0].result.points) == (0 if what == "points.jsonl" else len(points))


def test_an_earlier_result_stays_when_the_next_cannot_begin(kept, points, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "replace", full)
        with pytest.raises(BadRequestError):
            Store(kept.parents[1], a_run())
    (stored,) = read_runs(kept.parents[1])
    assert stored.folder.samefile(kept)
    assert list(stored.result.points) == points
    assert not stored.result.partial
