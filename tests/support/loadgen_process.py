"""One run of MLPerf LoadGen's Server scenario in a process of its own, and what its logs say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mortal import mortal

from loadtests.generator.messages import write_payloads
from loadtests.records.record import percentile
from loadtests.slo import Slo

SCENARIO = Path(__file__).parents[1] / "loadtests" / "loadgen_server_scenario.py"
ROOT = Path(__file__).parents[2]
_LINE = ":::MLLOG "
_DELAY = re.compile(r'"issue_delay":(\d+)')


@dataclass(frozen=True)
class LoadGenResult:
    """Figures of LoadGen's own logs, but for the last two."""

    valid: bool
    p50_ms: float
    p99_ms: float
    over: int
    requests: int
    generated_ns: int
    """When the request after the last would have been due."""
    issue_delay_p99_ms: float
    """How late LoadGen itself was, from its trace."""
    failed: int
    cpu_share: float
    """Of one core, while it ran."""


def run_loadgen(
    address: str, payloads: Sequence[bytes], slo: Slo, rate_per_s: float, duration_s: float, seed: int
) -> LoadGenResult:
    """Blocks until the last answer."""
    with tempfile.TemporaryDirectory(prefix="loadgen-") as scratch:
        folder = Path(scratch)
        write_payloads(folder / "payloads.bin", payloads)
        options = {
            "--rate-per-s": rate_per_s, "--limit-ms": slo.limit_ms, "--percentile": slo.percentile,
            "--duration-s": duration_s, "--seed": seed,
        }  # fmt: skip
        words = [str(word) for option in options.items() for word in option]
        done = subprocess.run(
            mortal([sys.executable, str(SCENARIO), address, str(folder / "payloads.bin"), *words]),
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        said = _read(folder / "mlperf_log_detail.txt")
        delays_ns = _DELAY.findall((folder / "mlperf_log_trace.json").read_text())
    return LoadGenResult(
        valid=said["result_validity"] == "VALID",
        p50_ms=said["result_50.00_percentile_latency_ns"] / 1e6,
        p99_ms=said["result_99.00_percentile_latency_ns"] / 1e6,
        over=said["result_overlatency_query_count"],
        requests=said["result_query_count"],
        generated_ns=said["generated_query_duration"],
        issue_delay_p99_ms=percentile(np.asarray(delays_ns, dtype=float) / 1e6, 0.99),
        **json.loads(done.stdout.splitlines()[-1]),
    )


def _read(log: Path) -> dict[str, Any]:
    """Each key with its last value."""
    lines = (line.removeprefix(_LINE) for line in log.read_text().splitlines() if line.startswith(_LINE))
    return {entry["key"]: entry["value"] for entry in map(json.loads, lines)}


def loadgen_arrivals_s(rate_per_s: float, duration_s: float, seed: int) -> np.ndarray:
    """LoadGen's schedule: std::mt19937 and libstdc++'s std::exponential_distribution, in whole nanoseconds from 0."""
    draws = 2 * round(2 * rate_per_s * duration_s + 100)
    words = np.random.RandomState(seed).randint(0, 1 << 32, draws, dtype=np.uint32)
    low, high = words.astype(float).reshape(-1, 2).T
    gaps_ns = (-np.log(1 - (low + high * 2.0**32) / 2.0**64) / rate_per_s * 1e9).astype(np.int64)
    due_ns = np.concatenate([[0], np.cumsum(gaps_ns)])
    return due_ns[: int(np.argmax(due_ns >= duration_s * 1e9)) + 1] / 1e9
