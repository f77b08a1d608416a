"""`fathom capacity` and `fathom load` as processes: what is on which stream, and with which exit status they end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from queue_process import QueueProcess

pytestmark = pytest.mark.alone

KEYS = {"capacity_per_s", "capacity_estimate_per_s", "verdict", "reason", "slo", "model", "seeds", "manifest", "points"}


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
    assert "p99=2ms is missed by" in err
    assert err.count("\n") == 1
    out, err = in_json.communicate(timeout=60)
    document = json.loads(out)
    assert (in_json.returncode, err) == (1, "")
    assert set(document) >= KEYS
    assert (document["verdict"], document["capacity_per_s"], document["points"]) == ("fail", None, [])
    assert "p99=2ms is missed by" in document["reason"]


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
    assert "partial    interrupted; the probes until then count" in out
    assert f"--resume {folder}" in out
    assert (folder / "queue" / "report.html").is_file()
    assert len((folder / "queue" / "points.jsonl").read_text().splitlines()) >= 1


def test_a_server_that_dies_is_exit_status_1_and_the_reason_is_told_once(cut_short):
    status, out, *_ = cut_short[1]
    assert status == 1
    assert "partial    " in out
    assert out.count("went away") <= 1
    assert out.count("no rate was") <= 1


def test_ctrl_c_while_everything_is_still_being_loaded_is_silent(tmp_path):
    process = start(tmp_path, "capacity", "queue", "--slo", "p99=40ms", "--server", "127.0.0.1:9")
    deadline = time.monotonic() + 10
    mapped = Path(f"/proc/{process.pid}/maps")
    while "numpy" not in mapped.read_text() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert out == ""
    assert err in ("", "fathom capacity: stopped\n")
