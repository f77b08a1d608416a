"""Put MLPerf LoadGen beside our generator: `python tests/loadtests/beside_loadgen.py [queue | MODEL] ...`.

Needs `pip install mlcommons-loadgen`. Both fire LoadGen's own arrivals at the same server, one after the other, at 60,
90 and 105 % of its capacity, which theory knows for the exact queue (M/D/1) and a short search estimates for a model of
model_repository/ (which must be exported) in an embedded Triton. As the arrivals are the same, what differs is the
measurement. The last column says how late each generator was itself (p99). Rows go to results/loadgen.json, and the
whole file is printed as Markdown. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from loadgen_process import LoadGenResult, loadgen_arrivals_s, run_loadgen
from queue_process import QueueProcess, request
from queueing import md1_capacity_per_s, md1_percentile_s, sojourn_s

from clients import Client
from export.command import default_repository
from fathom.console.options import default_config_name
from fathom.recipes import requests_of
from loadtests.capacity import CapacityRequest, start_generators
from loadtests.finding import find
from loadtests.generator.messages import Limits
from loadtests.records.point import Point, Probe
from loadtests.records.record import percentile
from loadtests.search.probe import Prober
from loadtests.slo import Slo
from loadtests.target.hardware import describe_hardware
from loadtests.workload.schedule import poisson
from loadtests.workload.workload import Workload
from server import TritonServer

SERVICE_MS = 2.0
QUEUE_SLO, MODEL_SLO = Slo.parse("p99=40ms"), Slo.parse("p99=100ms")
SHARES = (0.6, 0.9, 1.05)
COOLDOWN_S = 1.0
SEARCH_S = 45.0


@dataclass(frozen=True)
class Server:
    """What both fire at."""

    name: str
    address: str
    model: str
    pool: Sequence[bytes]
    slo: Slo
    capacity_per_s: float


@dataclass(frozen=True)
class Pair:
    """The same arrivals, fired by each."""

    rate_per_s: float
    seed: int
    arrivals_s: np.ndarray
    loadgen: LoadGenResult
    ours: Point


def fire_pair(server: Server, rate_per_s: float, duration_s: float, seed: int, *, ours_first: bool = False) -> Pair:
    """LoadGen keeps nothing up after its last arrival, so neither does our pass: its cooldown comes behind it."""
    arrivals_s = loadgen_arrivals_s(rate_per_s, duration_s, seed)
    ours = fire_ours(server, rate_per_s, arrivals_s, seed) if ours_first else None
    theirs = run_loadgen(server.address, server.pool, server.slo, rate_per_s, duration_s, seed)
    return Pair(rate_per_s, seed, arrivals_s, theirs, ours or fire_ours(server, rate_per_s, arrivals_s, seed))


def fire_ours(server: Server, rate_per_s: float, arrivals_s: np.ndarray, seed: int) -> Point:
    """As a capacity search does it, but to the end: a probe that is stopped early has no percentiles to compare."""
    cooldown = round(rate_per_s * COOLDOWN_S)
    due_s = np.concatenate([arrivals_s, arrivals_s[-1] + poisson(rate_per_s, seed=seed, count=cooldown)])
    wanted = CapacityRequest(server.address, server.model, [server.slo], payloads=server.pool)
    with Workload(server.address, wanted.shares) as traffic:
        traffic.check()
        with start_generators(wanted, traffic) as generators:
            prober = Prober(generators, traffic, [server.slo])
            probe = Probe(0, "load", rate_per_s, len(arrivals_s), seed)
            limits = Limits(len(due_s), cooldown=cooldown)
            return prober.run_schedule(probe, due_s, traffic.choices(len(due_s), seed=seed), limits)


@contextlib.contextmanager
def reference_queue() -> Iterator[Server]:
    queue = QueueProcess("--service-ms", str(SERVICE_MS))
    assert QUEUE_SLO.limit_ms is not None
    capacity_per_s = md1_capacity_per_s(SERVICE_MS / 1e3, QUEUE_SLO.limit_ms / 1e3, QUEUE_SLO.percentile)
    try:
        yield Server(f"M/D/1, {SERVICE_MS:g} ms", queue.address, "queue", [request()], QUEUE_SLO, capacity_per_s)
    finally:
        queue.stop()


@contextlib.contextmanager
def triton(model: str, capacity_per_s: float | None) -> Iterator[Server]:
    """The model with the requests of its recipe, and its estimated capacity where none is given."""
    repository = default_repository()
    with TritonServer(repository, config_name=default_config_name(repository)) as running:
        with Client(running.grpc_url) as client:
            pool = requests_of(client, model, repository)
        assert pool, f"{model} has no recipe, or was not exported: fathom export {model}"
        if capacity_per_s is None:
            found = find(CapacityRequest(running.grpc_url, model, [MODEL_SLO], budget_s=SEARCH_S, payloads=pool))
            capacity_per_s = found.capacity_estimate_per_s
        assert capacity_per_s, f"a search of {SEARCH_S:g} s does not know the capacity of {model}: use --capacity"
        yield Server(model, running.grpc_url, model, pool, MODEL_SLO, capacity_per_s)


def exact_ms(arrivals_s: np.ndarray) -> np.ndarray:
    """What the reference queue does with these arrivals."""
    return sojourn_s(arrivals_s, np.full(len(arrivals_s), SERVICE_MS / 1e3)) * 1e3


def row(server: Server, share: float, pair: Pair) -> dict[str, Any]:
    """Of the table. `theory_ms` is the formula's p50 and p99, `exact_ms` those of these arrivals."""
    known: dict[str, Any] = {}
    if server.model == "queue":
        exact = exact_ms(pair.arrivals_s)
        known["theory_ms"] = [md1_percentile_s(pair.rate_per_s, SERVICE_MS / 1e3, at) * 1e3 for at in (0.5, 0.99)]
        known["exact_ms"] = [percentile(exact, at) for at in (0.5, 0.99)]
    ours = pair.ours
    return {
        "server": server.name, "slo": str(server.slo), "capacity_per_s": server.capacity_per_s, "share": share,
        "rate_per_s": pair.rate_per_s, "seed": pair.seed, "requests": len(pair.arrivals_s), **known,
        "loadgen": asdict(pair.loadgen),
        "ours": {"p50_ms": ours.p50_ms, "p99_ms": ours.p99_ms, "over": ours.slos[0].over, "verdict": ours.verdict,
                 "reason": ours.reason, "errors": ours.errors, "send_lag_p99_ms": ours.send_lag_p99_ms,
                 "cpu_share": ours.generator_cpu_share},
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    titles = ["server", "rate", "seed", "p50 exact", "p50 LoadGen", "p50 Fathom", "p99 theory", "p99 exact",
              "p99 LoadGen", "p99 Fathom", "over the limit", "LoadGen", "Fathom", "sent late"]  # fmt: skip
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for found in rows:
        theirs, ours = found["loadgen"], found["ours"]
        exact = found.get("exact_ms", [None, None])
        theory_ms = found.get("theory_ms", [None, None])[1]
        figures = [exact[0], theirs["p50_ms"], ours["p50_ms"], theory_ms, exact[1], theirs["p99_ms"], ours["p99_ms"]]
        cells = [f"{found['server']}, {found['slo']}", f"{found['rate_per_s']:.0f}/s ({found['share'] * 100:.0f} %)",
                 str(found["seed"]), *("-" if ms is None else f"{ms:.1f} ms" for ms in figures),
                 f"{theirs['over']} / {ours['over']} of {found['requests']:,}",
                 "VALID" if theirs["valid"] else "INVALID", ours["verdict"],
                 f"{theirs['issue_delay_p99_ms']:.1f} / {ours['send_lag_p99_ms']:.1f} ms"]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("names", nargs="*", default=["queue"])
    command.add_argument("--duration-s", type=float, default=30.0)
    command.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    command.add_argument("--capacity", type=float, help="of the model, in requests/s; estimated by default")
    command.add_argument("--output", type=Path, default=Path("results/loadgen.json"))
    arguments = command.parse_args()
    path: Path = arguments.output
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    for name in arguments.names:
        with reference_queue() if name == "queue" else triton(name, arguments.capacity) as server:
            for number, seed in enumerate(arguments.seeds):
                for share in SHARES:
                    rate_per_s = share * server.capacity_per_s
                    pair = fire_pair(server, rate_per_s, arguments.duration_s, seed, ours_first=bool(number % 2))
                    rows.append(row(server, share, pair))
                    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
                    document = {"date": date, "hardware": describe_hardware(), "rows": rows}
                    path.write_text(json.dumps(document, indent=2) + "\n")
                    sys.stderr.write(table(rows[-1:]).splitlines()[-1] + "\n")
    sys.stdout.write(table(rows) + "\n")


if __name__ == "__main__":
    main()
