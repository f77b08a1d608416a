"""The generator against queueing theory: what it measures must be what the queue did.

The quick tests compare with the exact times of the very same arrivals and service times (nothing is left to chance but
the machine); the slow ones with the textbook formulas, on schedules whose own percentiles are typical for them.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from truth import KNOWN, LOADS, SERVICE_MS, SHARES, expected_ms, formula_ms, measure, typical_schedule

from loadtests.generator.messages import Limits
from loadtests.generator.process import GeneratorProcess, GeneratorSettings
from loadtests.records.record import percentile
from loadtests.workload.schedule import payload_choices, poisson

pytestmark = [pytest.mark.process, pytest.mark.alone]

TOO_SLOW = 0.25
"""A busy machine delays the queue server too, so a test allows more above the exact percentiles than below (5 %):
nothing makes a queue faster. The comparison with the formulas allows 5 % both ways."""


@pytest.mark.parametrize(
    ("load", "exponential", "duration_s"),
    [
        pytest.param(0.8, True, 2, id="M/M/1 at 80 %, briefly"),
        *(
            pytest.param(load, exponential, 3, id=f"{name} at {load * 100:.0f} %", marks=pytest.mark.slow)
            for load in LOADS
            for exponential, name in ((False, "M/D/1"), (True, "M/M/1"))
        ),
    ],
)
def test_measures_what_the_queue_did(start_queue, load, exponential, duration_s):
    schedule = poisson(load / SERVICE_MS * 1e3, seed=11, duration_s=duration_s)
    theory_ms = expected_ms(exponential, schedule)
    record, overhead_ms = measure(start_queue, exponential, schedule)
    errors = [
        percentile(record.latencies_ms(), share) / (percentile(theory_ms, share) + overhead_ms) - 1
        for share in (0.5, 0.99)
    ]
    assert min(errors) > -0.05
    assert max(errors) < TOO_SLOW


@pytest.mark.slow
@pytest.mark.parametrize("exponential", [False, True], ids=["M/D/1", "M/M/1"])
@pytest.mark.parametrize("load", LOADS)
def test_agrees_with_the_formulas(start_queue, load, exponential):
    analytic_ms = formula_ms(load, exponential)
    record, overhead_ms = measure(start_queue, exponential, typical_schedule(load, exponential, analytic_ms))
    for share, theory_ms in zip(SHARES, analytic_ms, strict=True):
        assert percentile(record.latencies_ms(), share) == pytest.approx(theory_ms + overhead_ms, rel=0.05)


def test_a_freeze_shows_in_the_p99_and_hides_from_a_closed_loop(start_queue):
    """A server that stands still for 0.2 s every second is slow for every fifth user, and for few of its own questions.

    Both look at the same time, each at a server of its own.
    """
    options = ("--service-ms", "2", "--freeze-every-s", "1", "--freeze-s", "0.2")
    schedule = poisson(100, seed=1, duration_s=3)
    with (
        ThreadPoolExecutor(1) as beside,
        GeneratorProcess(GeneratorSettings(start_queue(*options).address, [b""])) as worker,
    ):
        closed = beside.submit(closed_loop_ms, start_queue(*options).address, 3.0)
        record, _ = worker.run_schedule(schedule, payload_choices(len(schedule), 1, seed=0), Limits(10_000))
        closed_ms = closed.result()
    open_loop_ms = record.latencies_ms()
    slow_open, slow_closed = np.mean(open_loop_ms > 50), np.mean(closed_ms > 50)
    # Three freezes or four fall into the three seconds.
    assert percentile(open_loop_ms, 0.99) > 150
    assert slow_open > 0.08
    assert slow_closed < slow_open / 4


def closed_loop_ms(address: str, duration_s: float) -> np.ndarray:
    """What a client sees that waits for each answer before it asks again."""
    import time

    import grpc

    from loadtests.generator.transport import METHOD

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
@pytest.mark.parametrize("name", KNOWN)
def test_capacity_of_a_known_queue(name):
    """Theory gives the rate whose p99 is the limit, less what the wire adds."""
    known = KNOWN[name]
    result = known.search()
    analytic_per_s = known.capacity_per_s()
    assert result.capacity_per_s is not None
    assert 0.5 * analytic_per_s < result.capacity_per_s <= analytic_per_s
    low, high = result.capacity_estimate_interval_per_s
    worst_per_s = known.capacity_per_s(wire_s=0.001)
    assert low <= analytic_per_s
    assert worst_per_s <= high
    # One search of a minute or three knows the capacity to 2 % (5 % near 100/s), one standard deviation.
    assert result.capacity_estimate_per_s == pytest.approx(analytic_per_s, rel=0.05 if analytic_per_s > 200 else 0.12)
