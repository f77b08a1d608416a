"""The load generator's own cost: requests per CPU-second and send lag, beside the usual loops.

The target is a real Triton whose response cache answers in C++, so that the generator and not the model is the limit.
Every way of asking sends the same five-number request. The loops are closed (the next request waits for an answer) and
run at their full rate; the generator is open (Poisson arrivals) and is asked for the rate that the slower loop reached,
which costs it more CPU per request than a higher rate would.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import closed_loop
from benchmarks.row import Row, from_repetitions
from clients import Client, codec
from loadtests.generator.messages import Limits
from loadtests.generator.process import GeneratorProcess, GeneratorSettings
from loadtests.records.record import percentile
from loadtests.workload.schedule import poisson
from server import TritonServer
from server.environment import find_installation

IN_FLIGHT = 16
SATURATED_CPU_SHARE = 0.9
HIGHEST_LAG_MS = 10.0
LEAST_ACHIEVED = 0.95


def measure(repository: Path, *, repetitions: int = 5, seconds: float = 2.0) -> list[Row]:
    """CPU per request against tritonclient's aio loop and a pre-built grpc.aio loop; lag at half the maximum rate."""
    against_tritonclient, against_prebuilt, lags_ms = [], [], []
    with cached_rain_forecast(repository) as server:
        with Client(server.grpc_url) as client:
            spec = client.model("rain_forecast").spec
            request = codec.encode(spec, {name: [1.0] for name in spec.inputs})
        with GeneratorProcess(GeneratorSettings(server.grpc_url, [request])) as worker:
            for repetition in range(repetitions):
                usual, prebuilt = (
                    closed_loop.drive(
                        server.grpc_url, request, in_flight=IN_FLIGHT, seconds=seconds, transport=transport
                    )
                    for transport in ("tritonclient", "grpc")
                )
                own_us = _fire(worker, usual["rate_per_s"], seconds, repetition).cpu_us
                against_tritonclient.append(usual["cpu_us"] / own_us)
                against_prebuilt.append(prebuilt["cpu_us"] / own_us)
            maximum_per_s = _maximum(worker, start_per_s=usual["rate_per_s"], seconds=seconds)
            for repetition in range(repetitions):
                lags_ms.append(_fire(worker, maximum_per_s / 2, seconds, 1000 + repetition).lag_ms)
    cpu = f"{own_us:.0f} us a request against {usual['cpu_us']:.0f} and {prebuilt['cpu_us']:.0f} in the last repetition"
    return [
        from_repetitions(
            "generator / tritonclient.aio loop, requests per CPU-second",
            against_tritonclient,
            unit="x",
            wanted=">= 1.0",
            detail=cpu,
        ),
        from_repetitions(
            "generator / pre-built grpc.aio loop, requests per CPU-second",
            against_prebuilt,
            unit="x",
            wanted=">= 1.1",
            detail=cpu,
        ),
        from_repetitions(
            "generator's p99 send lag at half its maximum rate",
            lags_ms,
            unit="ms",
            wanted="<= 2",
            detail=f"maximum {maximum_per_s:.0f}/s, the server on the same cores",
        ),
    ]


@dataclass(frozen=True)
class _Run:
    """What one open-loop run cost and whether it kept its rate."""

    cpu_us: float
    lag_ms: float
    kept: bool


def _fire(worker: GeneratorProcess, rate_per_s: float, seconds: float, seed: int) -> _Run:
    offsets = poisson(rate_per_s, seed=seed, duration_s=seconds)
    record, outcome = worker.run_schedule(offsets, np.zeros(len(offsets), np.int32), Limits(100_000, ()))
    lag_ms = percentile(record.send_lags_ms(), 0.99)
    kept = (
        not outcome.stopped
        and record.achieved_per_s() > LEAST_ACHIEVED * rate_per_s
        and lag_ms < HIGHEST_LAG_MS
        and outcome.cpu_s / outcome.wall_s < SATURATED_CPU_SHARE
    )
    return _Run(outcome.cpu_s / len(offsets) * 1e6, lag_ms, kept)


def _maximum(worker: GeneratorProcess, *, start_per_s: float, seconds: float) -> float:
    """The highest rate, in steps of a quarter, that is kept, by generator and server together."""
    rate_per_s = start_per_s
    while _fire(worker, rate_per_s * 1.25, seconds, 500).kept:
        rate_per_s *= 1.25
    return rate_per_s


@contextmanager
def cached_rain_forecast(repository: Path) -> Iterator[TritonServer]:
    """rain_forecast behind Triton's local response cache."""
    caches = find_installation().tritonserver.parents[1] / "caches"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(repository / "rain_forecast", Path(folder, "rain_forecast"))
        config = Path(folder, "rain_forecast", "config.pbtxt")
        config.write_text(config.read_text() + "\nresponse_cache { enable: true }\n")
        extra = (f"--cache-directory={caches}", "--cache-config=local,size=4194304")
        with TritonServer(folder, stop_timeout_s=0, extra=extra) as server:
            yield server
