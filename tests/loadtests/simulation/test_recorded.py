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

ROOT = Path(__file__).parents[3]
RUNS: dict[tuple[str, float], list[dict[str, Any]]] = {}
for line in (Path(__file__).parent / "recorded.jsonl").read_text().splitlines():
    RUNS.setdefault((json.loads(line)["name"], json.loads(line)["load"]), []).append(json.loads(line))
P50, P99, MOVED = 0.05, 0.15, 0.1
"""How far the prediction may be off, and which share of the batches may have another size."""
RACING = [("bounded", 0.85), ("bounded_delay", 0.85), ("shapes_bounded", 0.7), ("shapes_bounded", 0.85)]
RACING_P50, RACING_P99 = 0.3, 0.35
"""Behind a queue policy at high load, which of two threads of Triton is first decides how long the backlog is."""
SEEDS = range(3)
"""Of the simulations, which draw who is first."""


@dataclass(frozen=True)
class Compared:
    """Simulated over measured: of several simulations of each run the median, and of the runs."""

    p50: float
    p99: float
    moved: float
    """The share of the batches that would need another size, of all runs together, at the step where it is largest."""


@cache
def compared(name: str, load: float) -> Compared:
    p50, p99 = [], []
    batches: dict[str, tuple[Counter[int], Counter[int]]] = {}
    for measured in RUNS[name, load]:
        runs = [simulated(measured, seed) for seed in SEEDS]
        assert measured["failed"] == sum(run.refused for run in runs) == 0
        p50.append(median(run.percentile(0.5) for run in runs) * 1e3 / measured["p50_ms"])
        p99.append(median(run.percentile(0.99) for run in runs) * 1e3 / measured["p99_ms"])
        for step in measured["steps"]:
            ours, theirs = batches.setdefault(step["name"], (Counter(), Counter()))
            theirs.update({int(rows): count for rows, (count, _) in step["batches"].items()})
            for run in runs:
                ours.update(run.batches[step["name"]])
    return Compared(median(p50), median(p99), max(distance(*pair) for pair in batches.values()))


def simulated(measured: dict[str, Any], seed: int) -> Run:
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
    return simulate(Pipeline(tuple(steps), measured["overhead_s"]), arrivals_s, rows, shapes=shapes, seed=seed)


def distance(ours: Counter[int], theirs: Counter[int]) -> float:
    sizes = ours.keys() | theirs.keys()
    return 0.5 * sum(abs(ours[size] / ours.total() - theirs[size] / theirs.total()) for size in sizes)


@pytest.mark.parametrize(("name", "load"), RUNS)
def test_latencies_are_those_of_the_embedded_triton(name, load):
    found, races = compared(name, load), (name, load) in RACING
    assert found.p50 == pytest.approx(1, abs=RACING_P50 if races else P50)
    assert found.p99 == pytest.approx(1, abs=RACING_P99 if races else P99)


@pytest.mark.parametrize(("name", "load"), RUNS)
def test_batches_are_those_of_the_embedded_triton(name, load):
    assert compared(name, load).moved < MOVED


def table() -> str:
    """For docs/explanation/tuning.md: prediction over measurement, a row a configuration."""
    loads = sorted({load for _, load in RUNS})
    titles = " | ".join(f"p50, p99 at {load:.0%}" for load in loads)
    lines = [f"| configuration | {titles} | batches of another size, at most |", "|---|" + "---|" * (len(loads) + 1)]
    for name in dict.fromkeys(name for name, _ in RUNS):
        found = [compared(name, load) for load in loads]
        errors = " | ".join(f"{each.p50 - 1:+.1%}, {each.p99 - 1:+.1%}" for each in found)
        lines.append(f"| {name.replace('_', ' ')} | {errors} | {max(each.moved for each in found):.1%} |")
    return "\n".join(lines).replace("%", " %")


def test_the_documented_table_is_that_of_the_recorded_runs():
    assert table() in (ROOT / "docs" / "explanation" / "tuning.md").read_text()
