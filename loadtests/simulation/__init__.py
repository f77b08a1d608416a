"""Simulates Triton's batcher: latencies and capacity of a configuration, from measured batch times alone.

pipeline = Pipeline((Step("minilm", Batcher(instances=2, max_batch=32), BatchTimes({1: {1: 0.004, 8: 0.014}})),))
run = simulate(pipeline, poisson(200, seed=1, count=10_000))
print(run.percentile(0.99), run.batches["minilm"])
print(capacity(pipeline, [Slo.parse("p99=50ms")]).rate_per_s)
"""

from loadtests.simulation.capacity import Capacity, capacity
from loadtests.simulation.pipeline import Batcher, Pipeline, Step
from loadtests.simulation.simulate import Run, simulate
from loadtests.simulation.times import BatchTimes

__all__ = ["BatchTimes", "Batcher", "Capacity", "Pipeline", "Run", "Step", "capacity", "simulate"]
