"""Record the grids of four simulated servers: the capacity of each configuration, and the one predicted for it.

PYTHONPATH=. python tests/loadtests/tables/record_simulated.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks.grid import write_table
from loadtests.simulation.capacity import capacity
from loadtests.simulation.pipeline import Batcher, Pipeline
from loadtests.simulation.pipeline import Step as SimulatedStep
from loadtests.simulation.times import BatchTimes
from loadtests.slo import Slo
from loadtests.tuning.space import Machine, Space, Step, read_space

SLO = Slo.parse("p99=50ms")
SIZES = (1, 2, 4, 8, 16, 32)
NOISE = 0.03
MACHINE = Machine(cores=4, memory_mib=16000)
COMMITTED = {
    "instances": 2, "max_batch": 32, "preferred": 0, "delay_ms": 0, "queue_policy": "bounded", "intra_threads": 1,
    "inter_threads": 1, "rows_per_run": "off",
}  # fmt: skip
TRUE_REQUESTS = {"constant": 3000, "exponential": 12000, "batch-friendly": 3000, "cache-limited": 3000}
"""The more batches vary, the more requests a p99 takes."""
VARIATION = {"constant": 0.0, "exponential": 1.0, "batch-friendly": 0.1, "cache-limited": 0.1}


SPACE = """
[model]
instances = [1, 2, 3, 4]
intra_threads = [1, 2, 4]
preferred = [0, 2, 4, 8, 16]
rows_per_run = ["off", 1, 4]
"""


def space() -> Space:
    return read_space(SPACE, [Step("model", "onnxruntime", COMMITTED)], MACHINE, "SPACE")


def batch_s(server: str, rows: int, busy: int, threads: int, rows_per_run: int | str) -> float:
    """Seconds of one batch: Amdahl's law over the threads, and a machine whose memory all instances share."""
    fixed_s, row_s = {
        "constant": (0.0005, 0.004),
        "exponential": (0.004, 0.001),
        "batch-friendly": (0.008, 0.0004),
        "cache-limited": (0.001, 0.003),
    }[server]
    most = rows if rows_per_run == "off" else 4 if rows_per_run == "auto" else int(rows_per_run)
    runs = [min(most, rows - start) for start in range(0, rows, most)]
    spill = {"cache-limited": 0.9}.get(server, 0.0)  # more than four rows leave the cache
    work_s = sum(fixed_s + row_s * run * (1 + spill * (run > 4)) for run in runs)
    sped = 0.15 + 0.85 / threads
    crowd = max(1.0, busy * threads / MACHINE.cores) * (1 + 0.06 * (busy * threads - 1))
    return work_s * sped * crowd


def times(server: str, knobs: dict[str, int | str], rng: np.random.Generator | None) -> BatchTimes:
    noisy = (lambda s: s * float(np.exp(rng.normal(0, NOISE)))) if rng else (lambda s: s)
    threads, rows_per_run = int(knobs["intra_threads"]), knobs["rows_per_run"]
    table = {
        busy: {
            rows: noisy(batch_s(server, rows, busy, threads, rows_per_run)) for rows in (SIZES if rng else range(1, 33))
        }
        for busy in range(1, 5)
    }
    return BatchTimes(table, VARIATION[server] if rng is None else min(VARIATION[server], 0.7))


def pipeline(knobs: dict[str, int | str], table: BatchTimes) -> Pipeline:
    preferred = int(knobs["preferred"])
    return Pipeline((
        SimulatedStep("model", Batcher(
            int(knobs["instances"]), int(knobs["max_batch"]), True, (preferred,) if preferred else (),
            float(knobs["delay_ms"]) / 1e3, policy=knobs["queue_policy"] == "bounded"), table),
    ), 0.001)  # fmt: skip


def rows(server: str) -> list[dict[str, object]]:
    rng = np.random.default_rng(5)
    known: dict[tuple[object, object], BatchTimes] = {}
    made: list[dict[str, object]] = []
    found = space()
    for configuration in found.all():
        knobs = configuration.of(found.steps[0])
        key = (knobs["intra_threads"], knobs["rows_per_run"])
        measured = known.setdefault(key, times(server, knobs, rng))
        count = TRUE_REQUESTS[server]
        true = capacity(pipeline(knobs, times(server, knobs, None)), (SLO,), requests=count, replications=2, seed=9)
        guess = capacity(pipeline(knobs, measured), (SLO,), requests=1500, replications=2, tolerance=0.01)
        made.append({
            "changes": configuration.to_json(),
            "predicted_per_s": round(guess.rate_per_s, 1),
            "passes": [{"rate_per_s": round(true.rate_per_s, 1)}],
        })  # fmt: skip
    return made


if __name__ == "__main__":
    for server in sys.argv[1:] or VARIATION:
        head = {"model": "model", "slo": str(SLO), "committed": {"model": COMMITTED}}
        write_table(Path(__file__).with_name(f"{server}.json"), {**head, "rows": rows(server)})
