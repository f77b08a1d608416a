"""Several generator processes against the reference queue."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from interrupting import interrupt
from queue_process import request

from loadtests import Slo
from loadtests.generator.messages import Limits
from loadtests.generator.pool import GeneratorPool
from loadtests.generator.process import GeneratorSettings, RunInterrupted
from loadtests.judge.judge import evaluate
from loadtests.records.point import Probe
from loadtests.records.record import percentile
from loadtests.workload.schedule import constant, payload_choices, poisson

pytestmark = [pytest.mark.process, pytest.mark.alone]

P99 = Slo.parse("p99=30ms")
ROOMY = Limits(max_outstanding=10_000)


@pytest.fixture(scope="module")
def fleet(shared_queue):
    """Four generators at a queue with 1 ms of service."""
    with GeneratorPool(GeneratorSettings(shared_queue("--service-ms", "1").address, [request()] * 3), 4) as started:
        yield started


def fire(fleet: GeneratorPool, schedule: np.ndarray, limits: Limits = ROOMY, seed: int = 5, **options):
    return fleet.run_schedule(schedule, payload_choices(len(schedule), 3, seed=seed), limits, seed=seed, **options)


def test_four_generators_fire_one_schedule_at_its_times(fleet):
    schedule = poisson(400, seed=5, count=320)
    record, outcome = fire(fleet, schedule)
    assert np.array_equal(record.intended_s, schedule)
    assert record.ok.all()
    assert np.bincount(record.worker, minlength=4).min() > 50
    assert len(outcome.workers) == 4
    assert outcome.wall_s == pytest.approx(schedule[-1], abs=0.5)
    # One clock for all: an answer takes 1 ms, so no part of the schedule was shifted by a start of its own.
    assert percentile(record.latencies_ms(), 0.5) < 10
    probe = Probe(0, "double", 400.0, 320, 5)
    point = evaluate(probe, record, outcome, [P99])
    assert [share.name for share in point.workers] == ["1", "2", "3", "4"]
    assert sum(share.requests for share in point.workers) == 320
    assert all(0 < share.cpu_share < 1 for share in point.workers)


def test_an_early_stop_of_one_stops_all(start_queue):
    queue = start_queue("--service-ms", "20")
    with GeneratorPool(GeneratorSettings(queue.address, [request()] * 3), 2) as fleet:
        record, outcome = fire(fleet, constant(500, duration_s=20), Limits(max_outstanding=20))
    assert outcome.stopped == "backlog"
    assert outcome.wall_s < 3
    assert (record.status == 102).sum() > 5000


def test_a_generator_that_dies_spoils_its_probe_only(fleet):
    kill = threading.Timer(0.2, os.kill, (fleet.workers[2].pid, signal.SIGKILL))
    began_s = time.monotonic()
    record, outcome = fire(fleet, constant(100, duration_s=30), on_ready=kill.start)
    assert time.monotonic() - began_s < 10
    assert outcome.lost.startswith("generator 3 of 4")
    assert "SIGKILL" in outcome.lost
    point = evaluate(Probe(0, "double", 100.0, 3000, 5), record, outcome, [P99])
    assert point.verdict == "invalid"
    assert outcome.lost in point.reason
    record, outcome = fire(fleet, poisson(200, seed=6, count=40))
    assert record.ok.all()
    assert not outcome.lost


def test_a_generator_that_hangs_is_killed_and_named_and_the_other_is_kept(shared_queue):
    settings = GeneratorSettings(
        shared_queue("--service-ms", "1").address, [request()] * 3, timeout_s=0.3, patience_s=4.0
    )
    with GeneratorPool(settings, 2) as fleet:
        other = fleet.workers[0].pid
        freeze = threading.Timer(0.1, os.kill, (fleet.workers[1].pid, signal.SIGSTOP))
        record, outcome = fire(fleet, constant(100, count=30), on_ready=freeze.start)
        assert outcome.lost.startswith("generator 2 of 2")
        assert record.ok[record.worker != 1].all()
        record, outcome = fire(fleet, poisson(200, seed=6, count=40))
        assert record.ok.all()
        assert not outcome.lost
        assert fleet.workers[0].pid == other


def test_ctrl_c_stops_all(fleet):
    began_s = time.monotonic()
    with interrupt(0.2) as timer, pytest.raises(RunInterrupted) as stopped:
        fire(fleet, constant(100, duration_s=30), on_ready=timer.start)
    assert time.monotonic() - began_s < 10
    assert stopped.value.outcome.stopped == "asked"
    assert stopped.value.record.ok.sum() > 0
    record, _ = fire(fleet, constant(100, count=10))
    assert record.ok.all()
