"""The generator against queueing theory: what it measures must be what the queue did.

The quick tests compare with the exact times of the very same arrivals and service times (nothing is left to chance but
the machine); the slow ones with the textbook formulas, on schedules whose own percentiles are typical for them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from queueing import md1_percentile_s, mm1_percentile_s, sojourn_s

sys.path.insert(0, str(Path(__file__).parent))
from queue_server import service_times_s

from loadtests.capacity import CapacityRequest, find
from loadtests.job import Limits
from loadtests.record import Record, percentile
from loadtests.schedule import constant, payload_choices, poisson
from loadtests.slo import Slo
from loadtests.worker import Worker, WorkerTarget

SERVICE_MS = 16.0
SEED = 5
ALONE = 16
ATTEMPTS = 4
"""A busy machine delays the queue server too; a systematic error would show in every attempt."""


def measure(start_queue, exponential: bool, schedule: np.ndarray) -> tuple[Record, float]:
    """One pass, and the milliseconds that the network and both processes add to the answer when nothing waits."""
    options = ["--service-ms", str(SERVICE_MS), "--seed", str(SEED), *(["--exponential"] if exponential else [])]
    queue = start_queue(*options)
    alone = constant(16, count=ALONE)
    records = []
    with Worker(WorkerTarget(queue.address, [b""])) as worker:
        for offsets in (alone, schedule):
            record, _ = worker.fire(offsets, payload_choices(len(offsets), 1, seed=0), Limits(10_000))
            assert record.ok.all()
            records.append(record)
    queue.stop()
    exact_ms = sojourn_s(alone, service_s(exponential)[:ALONE]) * 1e3
    return records[1], percentile(records[0].latencies_ms() - exact_ms, 0.5)


def service_s(exponential: bool) -> np.ndarray:
    return np.resize(service_times_s(SERVICE_MS, exponential, SEED), 100_000)


def expected_ms(exponential: bool, schedule: np.ndarray) -> np.ndarray:
    """Of the second schedule that the queue serves."""
    return sojourn_s(schedule, service_s(exponential)[ALONE:][: len(schedule)]) * 1e3


@pytest.mark.parametrize("exponential", [False, True], ids=["M/D/1", "M/M/1"])
@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_measures_what_the_queue_did(start_queue, load, exponential):
    schedule = poisson(load / SERVICE_MS * 1e3, seed=11, duration_s=3)
    theory_ms = expected_ms(exponential, schedule)
    for _ in range(ATTEMPTS):
        record, overhead_ms = measure(start_queue, exponential, schedule)
        errors = [
            percentile(record.latencies_ms(), share) / (percentile(theory_ms, share) + overhead_ms) - 1
            for share in (0.5, 0.99)
        ]
        if max(map(abs, errors)) < 0.05:
            return
    pytest.fail(f"p50 and p99 are off by {errors} in the last of {ATTEMPTS} attempts")


def typical_schedule(load: float, exponential: bool, analytic_ms: list[float]) -> np.ndarray:
    """A minute's arrivals whose exact p50 and p99 are within 1.5 % of the formula's."""
    for seed in range(3000):
        schedule = poisson(load / SERVICE_MS * 1e3, seed=seed, duration_s=60)
        exact = expected_ms(exponential, schedule)
        if all(
            abs(percentile(exact, share) / analytic - 1) < 0.015
            for share, analytic in zip((0.5, 0.99), analytic_ms, strict=True)
        ):
            return schedule
    raise AssertionError("no seed gives a typical minute")


@pytest.mark.slow
@pytest.mark.parametrize("exponential", [False, True], ids=["M/D/1", "M/M/1"])
@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_agrees_with_the_formulas(start_queue, load, exponential):
    formula = mm1_percentile_s if exponential else md1_percentile_s
    rate_per_s, service_s = load / SERVICE_MS * 1e3, SERVICE_MS / 1e3
    analytic_ms = [formula(rate_per_s, service_s, share) * 1e3 for share in (0.5, 0.99)]
    record, overhead_ms = measure(start_queue, exponential, typical_schedule(load, exponential, analytic_ms))
    for share, theory_ms in zip((0.5, 0.99), analytic_ms, strict=True):
        assert percentile(record.latencies_ms(), share) == pytest.approx(theory_ms + overhead_ms, rel=0.05)


def test_a_freeze_shows_in_the_p99_and_hides_from_a_closed_loop(start_queue):
    """A server that stands still for 0.4 s every 2 s is slow for every fifth user, and for few of its own questions."""
    options = ("--service-ms", "2", "--freeze-every-s", "2", "--freeze-s", "0.4")
    schedule = poisson(100, seed=1, duration_s=6)
    with Worker(WorkerTarget(start_queue(*options).address, [b""])) as worker:
        record, _ = worker.fire(schedule, payload_choices(len(schedule), 1, seed=0), Limits(10_000))
    open_loop_ms = record.latencies_ms()
    assert percentile(open_loop_ms, 0.99) > 300
    assert np.mean(open_loop_ms > 50) == pytest.approx(0.2, abs=0.07)
    closed_ms = closed_loop_ms(start_queue(*options).address, 4.0)
    assert np.mean(closed_ms > 50) < 0.01
    assert percentile(closed_ms, 0.99) < 100


def closed_loop_ms(address: str, duration_s: float) -> np.ndarray:
    """What a client sees that waits for each answer before it asks again."""
    import time

    import grpc

    from loadtests.transport import METHOD

    latencies = []
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(METHOD)
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s:
            begin_s = time.monotonic()
            call(b"")
            latencies.append((time.monotonic() - begin_s) * 1e3)
    return np.asarray(latencies)


@pytest.mark.slow
def test_capacity_of_a_known_queue(start_queue):
    """M/D/1 with 4 ms of service: theory gives the rate whose p99 is 40 ms, less what the wire adds."""
    from queueing import md1_capacity_per_s

    queue = start_queue("--service-ms", "4")
    slo = Slo.parse("p99=40ms")
    result = find(CapacityRequest(queue.address, "queue", [slo], budget_s=120))
    overhead_s = result.settings["unloaded_ms"] / 1e3 - 0.004
    ideal, worst = (md1_capacity_per_s(0.004, 0.04 - wire_s, 0.99) for wire_s in (0.0, max(overhead_s, 0.0)))
    assert result.capacity_per_s is not None
    assert result.capacity_per_s <= ideal
    assert result.capacity_per_s > 0.6 * worst
    low, high = result.capacity_estimate_interval_per_s
    assert low <= ideal
    assert worst <= high
