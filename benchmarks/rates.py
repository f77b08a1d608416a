"""What a load generator is for: requests per CPU-second, and the highest rate that still leaves on time.

Three ways of asking a real Triton that answers from its response cache: the generator, tritonclient's aio client, and
the gRPC user of Locust's documentation. They take turns within each repetition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks import paced
from benchmarks.generator import cached_rain_forecast
from benchmarks.row import Row, from_repetitions
from clients import Client, codec
from loadtests.generator.messages import Limits
from loadtests.generator.process import GeneratorProcess, GeneratorSettings
from loadtests.records.record import percentile
from loadtests.workload.schedule import poisson
from server import TritonServer

GENERATOR, OTHERS = "generator", ("tritonclient", "locust")
NAMES = {GENERATOR: "generator", "tritonclient": "tritonclient.aio loop", "locust": "Locust gRPC user"}
ON_TIME_MS = (1.0, 5.0)
LEAST_KEPT = 0.9
START_PER_S = {GENERATOR: 2000.0, "tritonclient": 100.0, "locust": 100.0}
STEP = math.sqrt(2)
"""Not more: Triton 2.51 has ended at twice the rate that it held, with tens of thousands of requests waiting."""
MOST_WAITING = 3_000
"""Answers outstanding at which a rate is given up: Triton 2.51 does not live through tens of thousands."""
TRIES = 2
"""Runs at each rate, of which the better one counts: one hiccup of the machine is not the loop's fault."""
FEWEST_REQUESTS = 200
Run = Callable[[str, float], dict[str, float]]


def measure(repository: Path, *, repetitions: int = 2, seconds: float = 1.2) -> list[Row]:
    """Requests per CPU-second of each, the generator's as a ratio to the others, and the highest rate on time."""
    per_cpu_s: dict[str, list[float]] = {kind: [] for kind in NAMES}
    highest: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in NAMES}
    for _ in range(repetitions):
        with _asking(repository, seconds) as (run, _):
            loops = {kind: run(kind, 0.0) for kind in OTHERS}
            loops[GENERATOR] = run(GENERATOR, loops["tritonclient"]["rate_per_s"])
        for kind, found in loops.items():
            per_cpu_s[kind].append(1e6 / found["cpu_us"])
        for kind in NAMES:  # each with a server of its own, which the highest rate of the one before may have killed
            with _asking(repository, seconds) as (run, server):
                _climb(run, server, kind, highest[kind])
    rows = [
        from_repetitions(f"{NAMES[kind]}, requests per CPU-second", values, unit="/CPU-s")
        for kind, values in per_cpu_s.items()
    ]
    for kind in OTHERS:
        ratios = [own / other for own, other in zip(per_cpu_s[GENERATOR], per_cpu_s[kind], strict=True)]
        rows.append(from_repetitions(f"generator / {NAMES[kind]}, requests per CPU-second", ratios, unit="x"))
    for number, lag_ms in enumerate(ON_TIME_MS):
        for kind, climbs in highest.items():
            name = f"{NAMES[kind]}, highest rate with a send lag p99 <= {lag_ms:g} ms"
            rows.append(from_repetitions(name, [climb[number] for climb in climbs], unit="/s"))
    return rows


@contextmanager
def _asking(repository: Path, seconds: float) -> Iterator[tuple[Run, TritonServer]]:
    """How to ask a new server: in one of the three ways, at a rate, or at as high a rate as there is for 0."""
    with cached_rain_forecast(repository) as server:
        with Client(server.grpc_url) as client:
            spec = client.model("rain_forecast").spec
            request = codec.encode(spec, {name: [1.0] for name in spec.inputs})
        with GeneratorProcess(GeneratorSettings(server.grpc_url, [request])) as worker:

            def run(kind: str, rate_per_s: float) -> dict[str, float]:
                if kind == GENERATOR:
                    return _fire(worker, rate_per_s, seconds)
                long_s = max(seconds, FEWEST_REQUESTS / rate_per_s) if rate_per_s else seconds
                return paced.drive(kind, server.grpc_url, request, rate_per_s=rate_per_s, seconds=long_s)

            yield run, server


def _climb(run: Run, server: TritonServer, kind: str, highest: list[tuple[float, ...]]) -> None:
    """Appends the highest rate for each lag; 0 where even the lowest is sent late."""
    rate_per_s = START_PER_S[kind]
    found = [0.0] * len(ON_TIME_MS)
    while True:
        try:
            measured = min((run(kind, rate_per_s) for _ in range(TRIES)), key=_lag_ms(rate_per_s))
        except RuntimeError:
            if server.is_alive():
                raise
            break
        if _lag_ms(rate_per_s)(measured) > max(ON_TIME_MS):
            break
        for number, lag_ms in enumerate(ON_TIME_MS):
            if measured["lag_p99_ms"] <= lag_ms:
                found[number] = rate_per_s
        rate_per_s *= STEP
    highest.append(tuple(found))


def _lag_ms(rate_per_s: float) -> Callable[[dict[str, float]], float]:
    """The send lag of a run; infinite where it did not keep the rate."""
    return lambda found: found["lag_p99_ms"] if found["rate_per_s"] >= LEAST_KEPT * rate_per_s else math.inf


def _fire(worker: GeneratorProcess, rate_per_s: float, seconds: float) -> dict[str, float]:
    offsets = poisson(rate_per_s, seed=0, duration_s=seconds)
    record, outcome = worker.run_schedule(offsets, np.zeros(len(offsets), np.int32), Limits(MOST_WAITING))
    lag_ms = percentile(record.send_lags_ms(), 0.99)
    kept_per_s = 0.0 if outcome.stopped else record.achieved_per_s() * rate_per_s * seconds / len(offsets)
    return {"rate_per_s": kept_per_s, "lag_p99_ms": lag_ms, "cpu_us": outcome.cpu_s / len(offsets) * 1e6}
