"""Measure the reference queue and put theory beside it: `python tests/loadtests/truth.py [NAME ...]`.

Names are `latency` (p50 and p99 at 30, 60 and 80 % load, 5 minutes), `capacity-md1`, `capacity-mm1`, `capacity-100`
(2 to 3 minutes each); all by default. Rows go to results/truth.json as they are measured, and the whole file is printed
as the tables of docs/explanation/validation.md. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from queue_process import QueueProcess
from queue_server import service_times_s
from queueing import (
    md1_capacity_per_s,
    md1_percentile_s,
    mm1_capacity_per_s,
    mm1_percentile_s,
    sojourn_s,
)

from loadtests.capacity import CapacityRequest
from loadtests.finding import find
from loadtests.generator.messages import Limits
from loadtests.generator.process import GeneratorProcess, GeneratorSettings
from loadtests.records.record import Record, percentile
from loadtests.results.result import CapacityResult
from loadtests.slo import Slo
from loadtests.target.hardware import describe_hardware
from loadtests.workload.schedule import constant, payload_choices, poisson

SERVICE_MS = 16.0
SEED = 5
ALONE = 16
LOADS = (0.3, 0.6, 0.8)
SHARES = (0.5, 0.99)
RUN_S = 40.0
TYPICAL_SEEDS = (7, 17, 115, 2654, 6, 28)
"""Found by `typical_schedule`, tried first because the search for one of them takes a minute."""


@dataclass(frozen=True)
class KnownQueue:
    """A queue whose capacity under an SLO is known."""

    service_ms: float
    exponential: bool
    slo: Slo
    budget_s: float

    def capacity_per_s(self, wire_s: float = 0.0) -> float:
        """Where the wire takes its share of the limit."""
        formula = mm1_capacity_per_s if self.exponential else md1_capacity_per_s
        assert self.slo.limit_ms is not None
        return formula(self.service_ms / 1e3, self.slo.limit_ms / 1e3 - wire_s, self.slo.percentile)

    def search(self) -> CapacityResult:
        queue = QueueProcess(*options(self.service_ms, self.exponential))
        try:
            return find(CapacityRequest(queue.address, "queue", [self.slo], budget_s=self.budget_s))
        finally:
            queue.stop()


KNOWN = {
    "capacity-md1": KnownQueue(2.0, False, Slo.parse("p99=40ms"), 120.0),
    "capacity-mm1": KnownQueue(1.0, True, Slo.parse("p99=20ms"), 150.0),
    "capacity-100": KnownQueue(8.0, False, Slo.parse("p99=60ms"), 180.0),
}


def options(service_ms: float, exponential: bool) -> list[str]:
    return ["--service-ms", str(service_ms), "--seed", str(SEED), *(["--exponential"] if exponential else [])]


def wire_ms(service_ms: float, exponential: bool) -> float:
    """What the network and both processes add to an answer when nothing waits."""
    queue = QueueProcess(*options(service_ms, exponential))
    alone = constant(16, count=3 * ALONE)
    try:
        with GeneratorProcess(GeneratorSettings(queue.address, [b""])) as worker:
            record, _ = worker.run_schedule(alone, payload_choices(len(alone), 1, seed=0), Limits(10_000))
    finally:
        queue.stop()
    exact_s = sojourn_s(alone, np.resize(service_times_s(service_ms, exponential, SEED), len(alone)))
    return percentile(record.latencies_ms() - exact_s * 1e3, 0.5)


def measure(start_queue: Callable[..., QueueProcess], exponential: bool, schedule: np.ndarray) -> tuple[Record, float]:
    """One pass, and the milliseconds that the network and both processes add to the answer when nothing waits."""
    queue = start_queue(*options(SERVICE_MS, exponential))
    alone = constant(16, count=ALONE)
    records = []
    with GeneratorProcess(GeneratorSettings(queue.address, [b""])) as worker:
        for offsets in (alone, schedule):
            record, _ = worker.run_schedule(offsets, payload_choices(len(offsets), 1, seed=0), Limits(10_000))
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


def formula_ms(load: float, exponential: bool) -> list[float]:
    formula = mm1_percentile_s if exponential else md1_percentile_s
    return [formula(load / SERVICE_MS * 1e3, SERVICE_MS / 1e3, share) * 1e3 for share in SHARES]


def typical_schedule(load: float, exponential: bool, analytic_ms: list[float]) -> np.ndarray:
    """Arrivals whose exact p50 and p99 are within 1.5 % of the formula's, which takes hours to come out by itself."""
    for seed in (*TYPICAL_SEEDS, *range(5000)):
        schedule = poisson(load / SERVICE_MS * 1e3, seed=seed, duration_s=RUN_S)
        exact = expected_ms(exponential, schedule)
        pairs = zip(SHARES, analytic_ms, strict=True)
        if all(abs(percentile(exact, share) / analytic - 1) < 0.015 for share, analytic in pairs):
            return schedule
    raise AssertionError("no seed gives a typical minute")


def latency_rows() -> list[dict[str, Any]]:
    rows = []
    for exponential in (False, True):
        for load in LOADS:
            theory_ms = formula_ms(load, exponential)
            record, wire_ms = measure(QueueProcess, exponential, typical_schedule(load, exponential, theory_ms))
            measured_ms = [percentile(record.latencies_ms(), share) for share in SHARES]
            rows.append({"queue": "M/M/1" if exponential else "M/D/1", "load": load, "requests": len(record),
                         "wire_ms": wire_ms, "theory_ms": theory_ms, "measured_ms": measured_ms})  # fmt: skip
    return rows


def capacity_row(known: KnownQueue) -> dict[str, Any]:
    wire = wire_ms(known.service_ms, known.exponential)
    found = known.search()
    return {
        "queue": f"{'M/M/1' if known.exponential else 'M/D/1'}, {known.service_ms:g} ms",
        "slo": str(known.slo),
        "budget_s": known.budget_s,
        "theory_per_s": known.capacity_per_s(),
        "wire_ms": wire,
        "theory_with_wire_per_s": known.capacity_per_s(wire / 1e3),
        "estimate_per_s": found.capacity_estimate_per_s,
        "interval_per_s": found.capacity_estimate_interval_per_s,
        "proven_per_s": found.capacity_per_s,
        "proven_by": found.certificate.describe() if found.certificate else None,
        "seconds": sum(point.took_s for point in found.points),
        "reasons": [f"{p.phase} {p.rate_per_s:.1f}/s {p.verdict}: {p.reason}" for p in found.points],
    }


def tables(document: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["| queue | load | wire | p50 theory | p50 measured | p99 theory | p99 measured |", "|---|" + "---|" * 6]
    for row in document.get("latency", []):
        cells = [row["queue"], f"{row['load'] * 100:.0f} %", f"{row['wire_ms']:.1f} ms"]
        for theory_ms, measured_ms in zip(row["theory_ms"], row["measured_ms"], strict=True):
            off = (measured_ms / (theory_ms + row["wire_ms"]) - 1) * 100
            cells += [f"{theory_ms:.1f} ms", f"{measured_ms:.1f} ms ({off:+.1f} %)"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| queue | SLO | theory | theory with wire | estimate | 95 % interval | proven | seconds |"]
    lines += ["|---|" + "---|" * 7]
    for name in KNOWN:
        if row := document.get(name):
            theory, guess = row["theory_per_s"], row["estimate_per_s"]
            low, high = row["interval_per_s"] or (float("nan"),) * 2
            proven = f"{row['proven_rate_per_s']:.1f}/s" if row["proven_per_s"] else "none"
            wired = row.get("theory_with_wire_per_s")
            cells = [row["queue"], row["slo"], f"{theory:.1f}/s", f"{wired:.1f}/s" if wired else "-",
                     f"{guess:.1f}/s ({(guess / theory - 1) * 100:+.1f} %)", f"{low:.1f} to {high:.1f}", proven,
                     f"{row['seconds']:.0f}"]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("names", nargs="*", choices=["latency", *KNOWN, []])
    command.add_argument("--output", type=Path, default=Path("results/truth.json"))
    arguments = command.parse_args()
    path: Path = arguments.output
    document = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments.names or ["latency", *KNOWN]:
        document[name] = latency_rows() if name == "latency" else capacity_row(KNOWN[name])
        document["date"] = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        document["hardware"] = describe_hardware()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n")
    sys.stdout.write(tables(document) + "\n")


if __name__ == "__main__":
    main()
