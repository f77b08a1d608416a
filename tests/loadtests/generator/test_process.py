"""One generator process: what it records, when it stops, and that it never outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from interrupting import interrupt
from queue_process import request

from clients import TLS
from loadtests.errors import GeneratorError, TargetLostError
from loadtests.generator.messages import EarlyStop, Limits, read_payloads, write_payloads
from loadtests.generator.process import GeneratorProcess, GeneratorSettings, RunInterrupted
from loadtests.records.record import DEADLINE_EXCEEDED, NOT_SENT, UNANSWERED, UNAVAILABLE, percentile
from loadtests.target.access import Access
from loadtests.workload.schedule import constant, payload_choices, poisson

pytestmark = pytest.mark.process

ROOMY = Limits(max_outstanding=10_000)


def fire(address, schedule, limits=ROOMY, *, timeout_s=10.0):
    with GeneratorProcess(GeneratorSettings(address, [request()] * 3, timeout_s=timeout_s)) as worker:
        return worker.run_schedule(schedule, payload_choices(len(schedule), 3, seed=0), limits)


@pytest.fixture(scope="module")
def worker(shared_queue):
    """A generator at a queue with 1 ms of service."""
    with GeneratorProcess(GeneratorSettings(shared_queue("--service-ms", "1").address, [request()])) as started:
        yield started


def test_on_ready_runs_before_the_first_request(worker):
    ready_at = []
    _, outcome = worker.run_schedule(
        constant(100, count=3), payload_choices(3, 1, seed=0), ROOMY, on_ready=lambda: ready_at.append(time.time())
    )
    assert ready_at[0] <= outcome.started_unix_s


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no such scheduler on this platform")
@pytest.mark.parametrize("real_time", [True, False])
def test_the_priority_is_reported_and_can_be_left_alone(shared_queue, real_time):
    settings = GeneratorSettings(shared_queue("--service-ms", "1").address, [request()], real_time=real_time)
    with GeneratorProcess(settings) as process:
        _, outcome = process.run_schedule(constant(100, count=3), payload_choices(3, 1, seed=0), ROOMY)
        scheduler = os.sched_getscheduler(process.pid) & ~os.SCHED_RESET_ON_FORK
    assert (outcome.priority == "real-time") == (scheduler == os.SCHED_FIFO)
    assert real_time or (outcome.priority, scheduler) == ("normal", os.SCHED_OTHER)


def test_secrets_are_not_on_the_generators_command_line(shared_queue):
    access = Access(headers={"authorization": "xyzzy"})
    settings = GeneratorSettings(shared_queue("--service-ms", "1").address, [request()], access=access)
    with GeneratorProcess(settings) as process:
        record, _ = process.run_schedule(constant(100, count=3), payload_choices(3, 1, seed=0), ROOMY)
        assert record.ok.all()
        command_line = Path(f"/proc/{process.pid}/cmdline").read_text()
        environment = Path(f"/proc/{process.pid}/environ").read_text()
    assert "loadtests.generator" in command_line
    assert "xyzzy" not in command_line + environment


def test_what_the_generator_cannot_use_is_its_own_fault(shared_queue, tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    access = Access(TLS(ca=tmp_path / "ca.pem"))
    settings = GeneratorSettings(shared_queue("--service-ms", "1").address, [request()], access=access)
    with GeneratorProcess(settings) as process, pytest.raises(GeneratorError):
        process.run_schedule(constant(100, count=3), payload_choices(3, 1, seed=0), ROOMY)


def test_ctrl_c_stops_the_run(worker):
    schedule = constant(100, duration_s=30)
    began_s = time.monotonic()
    with interrupt(0.2) as timer, pytest.raises(RunInterrupted) as stopped:
        worker.run_schedule(schedule, payload_choices(len(schedule), 1, seed=0), ROOMY, on_ready=timer.start)
    assert time.monotonic() - began_s < 5
    assert stopped.value.outcome.stopped == "asked"
    assert len(stopped.value.record) == len(schedule)
    record, _ = worker.run_schedule(constant(100, count=5), payload_choices(5, 1, seed=0), ROOMY)
    assert record.ok.all()


@pytest.mark.slow
def test_send_lag_is_small_at_a_modest_rate(worker):
    record, _ = worker.run_schedule(poisson(500, seed=2, count=1500), payload_choices(1500, 1, seed=0), ROOMY)
    assert percentile(record.send_lags_ms(), 0.5) < 1.0


def test_a_generator_that_dies_is_an_error_and_another_can_be_started(worker):
    kill = threading.Timer(0.1, os.kill, (worker.pid, signal.SIGKILL))
    with pytest.raises(GeneratorError, match="SIGKILL"):
        worker.run_schedule(constant(10, duration_s=30), payload_choices(300, 1, seed=0), ROOMY, on_ready=kill.start)
    worker.start()
    record, _ = worker.run_schedule(constant(100, count=5), payload_choices(5, 1, seed=0), ROOMY)
    assert record.ok.all()


def test_records_every_request_against_its_intended_time(shared_queue):
    schedule = poisson(500, seed=1, count=200)
    record, outcome = fire(shared_queue("--service-ms", "1").address, schedule)
    assert np.array_equal(record.intended_s, schedule)
    assert record.ok.all()
    assert np.all(record.sent_s >= record.intended_s)
    assert np.all(record.done_s >= record.sent_s)
    # Not from the sending: its time is taken after it, by a process that may have been put aside in between.
    assert np.all(record.done_s >= record.intended_s + 0.001)
    assert outcome.stopped == ""
    assert 0 < outcome.cpu_s < outcome.wall_s
    assert outcome.wall_s == pytest.approx(schedule[-1], abs=0.5)


def test_stops_when_the_backlog_shows_that_the_rate_does_not_hold(start_queue):
    record, outcome = fire(
        start_queue("--service-ms", "20").address, constant(500, duration_s=20), Limits(max_outstanding=20)
    )
    assert outcome.stopped == "backlog"
    assert outcome.wall_s < 2
    assert (record.status == UNANSWERED).sum() == pytest.approx(20, abs=5)
    assert (record.status == NOT_SENT).sum() > 5000


def test_stops_when_the_slo_is_out_of_reach(start_queue):
    limits = Limits(max_outstanding=10_000, early_stop=(EarlyStop(10.0, 7),))
    record, outcome = fire(start_queue("--service-ms", "20").address, constant(100, duration_s=20), limits)
    assert outcome.stopped == "hopeless"
    assert record.ok.sum() == pytest.approx(7, abs=1)


def test_gives_up_at_the_deadline(start_queue):
    record, outcome = fire(start_queue("--service-ms", "1500").address, constant(20, count=2), timeout_s=0.2)
    assert set(record.status.tolist()) <= {DEADLINE_EXCEEDED, 1}
    assert outcome.wall_s < 1
    assert outcome.messages


def test_a_server_that_goes_away(start_queue):
    queue = start_queue("--service-ms", "1")
    kill = threading.Timer(0.4, queue.process.kill)
    with GeneratorProcess(GeneratorSettings(queue.address, [request()])) as worker:
        schedule = constant(100, duration_s=30)
        record, outcome = worker.run_schedule(
            schedule, payload_choices(len(schedule), 1, seed=0), ROOMY, on_ready=kill.start
        )
    assert outcome.stopped == "connection lost"
    assert outcome.wall_s < 2
    assert 20 < record.ok.sum() < 100
    assert (record.status == NOT_SENT).sum() > 2000


def test_nobody_listens():
    with pytest.raises(TargetLostError) as raised:
        fire("127.0.0.1:9", constant(10, count=2), timeout_s=1)
    assert raised.value.server == "127.0.0.1:9"


def test_server_errors_are_counted_with_their_message(start_queue):
    record, outcome = fire(start_queue("--service-ms", "5", "--bound", "1").address, constant(1000, count=200))
    rejected = record.status == UNAVAILABLE
    assert rejected.sum() > 100
    assert outcome.messages[str(UNAVAILABLE)] == "Exceeds maximum queue size"


def test_the_generator_dies_with_a_killed_parent(shared_queue, tmp_path):
    queue = shared_queue("--service-ms", "1")
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys\n"
        "from loadtests.generator.messages import Limits\n"
        "from loadtests.workload.schedule import constant, payload_choices\n"
        "from loadtests.generator.process import GeneratorProcess, GeneratorSettings\n"
        f"with GeneratorProcess(GeneratorSettings('{queue.address}', [b'x'])) as worker:\n"
        "    said = lambda: print(worker.pid, flush=True)\n"
        "    choices = payload_choices(3000, 1, seed=0)\n"
        "    worker.run_schedule(constant(50, duration_s=60), choices, Limits(10000), on_ready=said)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.2)
        parent.kill()
    until_s = time.monotonic() + 5
    while time.monotonic() < until_s and alive(child):
        time.sleep(0.05)
    assert not alive(child)


def test_payload_file_keeps_every_byte(tmp_path):
    payloads = [b"", b"\0" * 70_000, bytes(range(256))]
    write_payloads(tmp_path / "payloads.bin", payloads)
    assert read_payloads(tmp_path / "payloads.bin") == payloads


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_cooldown_keeps_the_load_up_and_is_not_recorded(start_queue):
    limits = Limits(max_outstanding=1000, cooldown=100)
    record, outcome = fire(start_queue("--service-ms", "10").address, constant(50, count=115), limits)
    assert len(record) == 15
    assert record.ok.all()
    assert outcome.stopped == ""
    assert outcome.wall_s < 1.5  # ends with the fifteenth answer, at about 0.3 s, not with the schedule, at 2.3 s
