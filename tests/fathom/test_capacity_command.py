"""`fathom capacity` and `fathom load` as processes: what is on which stream, and with which exit status they end."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from haste import haste
from queue_process import QueueProcess
from waiting import until

from fathom.cli import main
from loadtests.results import store
from loadtests.results.lock import writing
from loadtests.results.result import INTERRUPTED
from loadtests.slo import Slo

pytestmark = [pytest.mark.process, pytest.mark.alone]

KEYS = {"capacity_per_s", "capacity_estimate_per_s", "verdict", "reason", "slo", "model", "seeds", "manifest", "points"}


@pytest.fixture
def hasty():
    with haste():
        yield


@pytest.fixture(scope="module")
def queue():
    running = QueueProcess("--service-ms", "4")
    yield running
    running.stop()


def start(tmp_path, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "fathom.cli", *arguments, "--report", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )


def test_an_slo_that_the_unloaded_server_misses_is_a_result_with_exit_status_1(queue, tmp_path):
    asked = ("capacity", "queue", "--slo", "p99=2ms", "--server", queue.address)
    process = start(tmp_path / "told", *asked)
    in_json = start(tmp_path / "json", *asked, "--json")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "p99=2ms" in err
    assert err.count("\n") == 1
    out, err = in_json.communicate(timeout=60)
    document = json.loads(out)
    assert (in_json.returncode, err) == (1, "")
    assert set(document) >= KEYS
    assert (document["verdict"], document["capacity_per_s"], document["points"]) == ("fail", None, [])
    assert "p99=2ms" in document["reason"]


@pytest.mark.parametrize(
    ("patched", "error"),
    [
        ("loadtests.results.store._append", OSError(errno.ENOSPC, "No space left on device")),
        ("loadtests.report.page.render", OSError(errno.EROFS, "Read-only file system")),
    ],
    ids=["the points cannot be written", "the report cannot be written"],
)
def test_what_was_measured_is_said_before_the_disk_is_complained_about(
    queue, tmp_path, capsys, monkeypatch, hasty, patched, error
):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(patched, full)
    folder = ("--report", str(tmp_path))
    asked = ("capacity", "queue", "--slo", "p90=80ms", "--budget", "2s", "--max-rate", "40", "--server", queue.address)
    assert main([*asked, *folder, "--json"]) == 2
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document["points"]
    assert document["report"] is None
    complaints = [line for line in told.err.splitlines() if line.startswith("fathom capacity: ")]
    assert len(complaints) == 1
    assert error.strerror in complaints[0]


@pytest.mark.parametrize("search", [["--report"], ["--resume"]], ids=["a new search", "going on with it"])
def test_a_folder_in_use_is_refused_with_its_process(queue, tmp_path, capsys, search):
    (tmp_path / "queue").mkdir()
    store.Store(tmp_path, store.Run("queue", "x:1", (Slo.parse("p99=40ms"),), 0, {}, None, {}, "2026-11-22T00:00"))
    with writing(tmp_path / "queue"):
        asked = ("capacity", "queue", "--slo", "p99=40ms", "--server", queue.address)
        assert main([*asked, *search, str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert str(os.getpid()) in told
    assert str(tmp_path / "queue") in told


def test_a_load_that_is_stopped_shows_what_it_measured(queue):
    """Ctrl-C for a person, SIGTERM for a program; both at the same time."""
    asked = ["load", "queue", "--slo", "p99=40ms", "--schedule", "poisson:50", "--duration", "60", "--server"]
    command = [sys.executable, "-m", "fathom.cli", *asked, queue.address]
    started = [
        subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for options in ([], ["--json"])
    ]
    for process in started:
        until(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text)
    time.sleep(3)  # the generators start, and fire
    for process, number in zip(started, (signal.SIGINT, signal.SIGTERM), strict=True):
        process.send_signal(number)
    (shown, noted), (document, _) = (process.communicate(timeout=30) for process in started)
    assert [process.returncode for process in started] == [130, 130]
    assert "interrupted" in shown
    assert "Traceback" not in noted
    point = json.loads(document)
    assert (point["stopped"], point["verdict"]) == ("asked", "undecided")
    assert point["requests"] > 0
    assert point["p50_ms"] > 0
    assert isinstance(point["doubts"], list)  # of this machine, which nobody knows


@pytest.fixture(scope="module")
def cut_short(queue, tmp_path_factory):
    """Two searches at the same time, as `(status, stdout, stderr, folder)`: after the first point of each, one gets
    Ctrl-C and the other loses its server."""
    mortal = QueueProcess("--service-ms", "4")
    folders = [tmp_path_factory.mktemp(name) for name in ("interrupted", "bereaved")]
    asked = ("capacity", "queue", "--slo", "p99=40ms", "--budget", "60", "--server")
    processes = [start(folder, *asked, at.address) for folder, at in zip(folders, (queue, mortal), strict=True)]
    try:
        first = [process.stderr.readline() for process in processes]  # a line for each point, as it comes
        processes[0].send_signal(signal.SIGINT)
    finally:
        mortal.stop()
    rest = [process.communicate(timeout=120) for process in processes]
    return [
        (process.returncode, out, line + err, folder)
        for process, (out, err), line, folder in zip(processes, rest, first, folders, strict=True)
    ]


def test_ctrl_c_ends_with_130_and_keeps_what_was_measured(cut_short):
    status, out, err, folder = cut_short[0]
    first = err.partition("\n")[0]
    assert first.startswith("double ")
    assert first.endswith(("pass", "fail", "undecided", "invalid"))
    assert status == 130
    assert "Traceback" not in err
    assert "\x1b" not in err + out
    assert re.search(rf"^  partial +{INTERRUPTED}", out, re.MULTILINE)
    assert f"--resume {folder}" in out
    assert (folder / "queue" / "latest" / "report.html").is_file()
    assert len((folder / "queue" / "latest" / "points.jsonl").read_text().splitlines()) >= 1


def test_a_server_that_dies_is_exit_status_1_and_the_reason_is_told_once(cut_short):
    status, out, *_ = cut_short[1]
    assert status == 1
    partial = re.findall(r"^  partial +(.*?);", out, re.MULTILINE)
    assert len(partial) == 1
    assert out.count(partial[0]) == 1


def test_ctrl_c_while_everything_is_still_being_loaded_is_silent(tmp_path):
    process = start(tmp_path, "capacity", "queue", "--slo", "p99=40ms", "--server", "127.0.0.1:9")
    mapped = Path(f"/proc/{process.pid}/maps")
    until(lambda: "numpy" in mapped.read_text())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert out == ""
    assert err in ("", "fathom capacity: stopped\n")
