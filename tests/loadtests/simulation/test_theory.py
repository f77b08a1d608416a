"""The simulation against queues whose answers are known: exactly where there is a recursion, else within the noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loadtests.simulation import Batcher, BatchTimes, Pipeline, Step, simulate
from loadtests.workload.schedule import poisson


def one(batcher: Batcher, times: BatchTimes) -> Pipeline:
    return Pipeline((Step("model", batcher, times),))


@pytest.mark.parametrize("prefetching", [True, False], ids=["prefetching", "no batching"])
def test_a_single_server_is_lindleys_recursion(prefetching):
    """M/D/1, request by request: each starts when it has come and the one before has gone."""
    arrivals_s = poisson(90, seed=1, count=5000)
    free_s, expected_s = 0.0, []
    for arrival_s in arrivals_s:
        free_s = max(arrival_s, free_s) + 0.01
        expected_s.append(free_s - arrival_s)
    run = simulate(one(Batcher(dynamic=prefetching), BatchTimes.constant(0.01)), arrivals_s)
    assert run.latencies_s == pytest.approx(np.array(expected_s), abs=1e-9)
    assert run.batches == {"model": {1: 5000}}


def test_several_servers_take_turns_as_the_earliest_is_free():
    """M/D/c by Kiefer and Wolfowitz."""
    arrivals_s = poisson(270, seed=2, count=5000)
    free_s, expected_s = np.zeros(3), []
    for arrival_s in arrivals_s:
        earliest = int(free_s.argmin())
        free_s[earliest] = max(arrival_s, free_s[earliest]) + 0.01
        expected_s.append(free_s[earliest] - arrival_s)
    run = simulate(one(Batcher(instances=3), BatchTimes.constant(0.01)), arrivals_s)
    assert run.latencies_s == pytest.approx(np.array(expected_s), abs=1e-9)


def test_exponential_times_on_several_servers_wait_as_erlang_says():
    """M/M/4 at 70 %: the share that waits is Erlang's C, the mean wait C / (c mu - lambda)."""
    servers, rate_per_s, mean_s = 4, 280.0, 0.01
    offered = rate_per_s * mean_s
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    waits = last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)
    pipeline = one(Batcher(instances=servers), BatchTimes.constant(mean_s, variation=1))
    run = simulate(pipeline, poisson(rate_per_s, seed=3, count=60_000), seed=3)
    assert run.waits_s["model"] == pytest.approx(waits / (servers / mean_s - rate_per_s), rel=0.06)
    assert run.latencies_s.mean() == pytest.approx(run.waits_s["model"] + mean_s, rel=0.02)


@pytest.mark.parametrize(
    ("load", "mean_ms", "p99_ms"),
    [(0.5, 10.08, 17.83), (0.8, 15.02, 30.25)],
)
def test_batches_of_up_to_eight_follow_the_embedded_markov_chain(load, mean_ms, p99_ms):
    """M/D^[1,8]/1 with 4 ms + 1 ms a row; the figures are the chain's stationary ones."""
    run = simulate(
        one(Batcher(max_batch=8), BatchTimes.constant(0.004, 0.001)), poisson(load * 8 / 0.012, seed=4, count=60_000)
    )
    assert run.latencies_s.mean() * 1e3 == pytest.approx(mean_ms, rel=0.02)
    assert run.percentile(0.99) * 1e3 == pytest.approx(p99_ms, rel=0.04)
