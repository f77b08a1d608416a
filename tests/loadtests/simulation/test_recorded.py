"""The simulation against the embedded Triton, as `record.py` measured it: medians of the recorded runs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from loadtests.simulation import Batcher, BatchTimes, Pipeline, Run, Step, simulate
from loadtests.workload.schedule import poisson

RUNS: dict[tuple[str, float], list[dict[str, Any]]] = {}
for line in (Path(__file__).parent / "recorded.jsonl").read_text().splitlines():
    RUNS.setdefault((json.loads(line)["name"], json.loads(line)["load"]), []).append(json.loads(line))
P50, P99, BATCHES = 0.05, 0.15, 0.1
"""How far the prediction may be off, and which share of the batches may have another size."""
UNPREDICTABLE = ("bounded", 0.85)
"""One instance behind a queue policy: which of two threads is first decides how long the backlog grows."""


@dataclass(frozen=True)
class Compared:
    """Simulated over measured, median over the runs."""

    p50: float
    p99: float
    moved: float
    """The share of the batches that would need another size, of all runs together, at the step where it is largest."""


@cache
def compared(name: str, load: float) -> Compared:
    p50, p99 = [], []
    batches: dict[str, tuple[Counter[int], Counter[int]]] = {}
    for measured in RUNS[name, load]:
        run = simulated(measured)
        assert run.refused == measured["failed"] == 0
        p50.append(run.percentile(0.5) * 1e3 / measured["p50_ms"])
        p99.append(run.percentile(0.99) * 1e3 / measured["p99_ms"])
        for step in measured["steps"]:
            ours, theirs = batches.setdefault(step["name"], (Counter(), Counter()))
            ours.update(run.batches[step["name"]])
            theirs.update({int(rows): count for rows, (count, _) in step["batches"].items()})
    return Compared(median(p50), median(p99), max(distance(*pair) for pair in batches.values()))


def simulated(measured: dict[str, Any]) -> Run:
    steps = [
        Step(
            step["name"],
            Batcher(**step["batcher"]),
            BatchTimes({1: {int(rows): seconds for rows, (_, seconds) in step["batches"].items()}}),
            tuple(step["after"]),
        )
        for step in measured["steps"]
    ]
    kinds = measured["kinds"]
    drawn = np.random.default_rng([measured["seed"], 9]).integers(0, len(kinds), measured["requests"])
    rows, shapes = np.asarray(kinds)[drawn].T
    arrivals_s = poisson(measured["rate_per_s"], seed=measured["seed"], count=measured["requests"])
    return simulate(Pipeline(tuple(steps), measured["overhead_s"]), arrivals_s, rows, shapes=shapes)


def distance(ours: Counter[int], theirs: Counter[int]) -> float:
    sizes = ours.keys() | theirs.keys()
    return 0.5 * sum(abs(ours[size] / ours.total() - theirs[size] / theirs.total()) for size in sizes)


@pytest.mark.parametrize(("name", "load"), [case for case in RUNS if case != UNPREDICTABLE])
def test_latencies_and_batches_are_those_of_the_embedded_triton(name, load):
    found = compared(name, load)
    assert found.p50 == pytest.approx(1, abs=P50)
    assert found.p99 == pytest.approx(1, abs=P99)
    assert found.moved < BATCHES
