"""The simulation against queues whose answers are known: exactly where there is a recursion, else within the noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from queueing import in_batches_s, sojourn_s, two_servers_s

from loadtests.simulation import Batcher, BatchTimes, Pipeline, Step, simulate
from loadtests.workload.schedule import poisson


def one(batcher: Batcher, times: BatchTimes) -> Pipeline:
    return Pipeline((Step("model", batcher, times),))


ARRIVALS_S = poisson(90, seed=1, count=5000)
SERVICE_S = 0.01
EXACT = [
    ("M/D/1 with batching up to one row", Batcher(), sojourn_s(ARRIVALS_S, np.full(5000, SERVICE_S))),
    ("M/D/1 without batching", Batcher(dynamic=False), sojourn_s(ARRIVALS_S, np.full(5000, SERVICE_S))),
    ("M/D/2", Batcher(instances=2), two_servers_s(ARRIVALS_S, SERVICE_S)),
    ("batches of what waits, up to three", Batcher(max_batch=3), in_batches_s(ARRIVALS_S, SERVICE_S, 0.0, 3)),
]


@pytest.mark.parametrize(("what", "batcher", "expected_s"), EXACT, ids=[row[0] for row in EXACT])
def test_each_request_takes_what_its_recursion_says(what, batcher, expected_s):
    run = simulate(one(batcher, BatchTimes.constant(SERVICE_S)), ARRIVALS_S)
    assert run.latencies_s == pytest.approx(expected_s, abs=1e-9)


def test_exponential_times_on_several_servers_wait_as_erlang_says():
    """M/M/4 at 70 %: the share that waits is Erlang's C, the mean wait C / (c mu - lambda)."""
    servers, rate_per_s, mean_s = 4, 280.0, 0.01
    offered = rate_per_s * mean_s
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    waits = last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)
    pipeline = one(Batcher(instances=servers), BatchTimes.constant(mean_s, variation=1))
    run = simulate(pipeline, poisson(rate_per_s, seed=3, count=30_000), seed=3)
    assert run.waits_s["model"] == pytest.approx(waits / (servers / mean_s - rate_per_s), rel=0.08)
    assert run.latencies_s.mean() == pytest.approx(run.waits_s["model"] + mean_s, rel=0.02)


@pytest.mark.parametrize(
    ("load", "mean_ms", "p99_ms"),
    [(0.5, 10.08, 17.83), (0.8, 15.02, 30.25)],
)
def test_batches_of_up_to_eight_follow_the_embedded_markov_chain(load, mean_ms, p99_ms):
    """M/D^[1,8]/1 with 4 ms + 1 ms a row; the figures are the chain's stationary ones."""
    run = simulate(
        one(Batcher(max_batch=8), BatchTimes.constant(0.004, 0.001)), poisson(load * 8 / 0.012, seed=4, count=30_000)
    )
    assert run.latencies_s.mean() * 1e3 == pytest.approx(mean_ms, rel=0.02)
    assert run.percentile(0.99) * 1e3 == pytest.approx(p99_ms, rel=0.04)


@pytest.mark.parametrize("load", [0.4, 0.6])
def test_batches_without_a_bound_stay_just_below_inoues_bound(load):
    """1 ms a row and 4 ms a batch, the load counted in rows alone."""
    row_s, fixed_s = 0.001, 0.004
    rate_per_s = load / row_s
    low_bound_s = (
        (row_s + fixed_s) / (2 * (1 - load)) * (1 + 2 * rate_per_s * fixed_s + (1 - rate_per_s * fixed_s) / (1 + load))
    )
    high_bound_s = 1.5 * fixed_s / (1 - load) + row_s / 2 * (load + 2) / (1 - load**2)
    pipeline = one(Batcher(max_batch=10_000), BatchTimes.constant(fixed_s, row_s))
    run = simulate(pipeline, poisson(rate_per_s, seed=5, count=40_000))
    assert run.latencies_s.mean() == pytest.approx(min(low_bound_s, high_bound_s), rel=0.03)
