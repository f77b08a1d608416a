"""A server without load: what one request at a time takes, and how busy this machine is."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.errors import SloUnreachableError
from loadtests.search.budget import PROBE_SHARE
from loadtests.slo import Slo, about_ms, format_ms
from loadtests.target.client import Target
from loadtests.target.hardware import CpuMeter
from loadtests.workload.workload import Workload

_REQUESTS = 20
"""To each model, one at a time; the first half warms it up. A slow one gets as many as PROBE_SHARE allows, but two."""


@dataclass(frozen=True)
class Unloaded:
    """What one request at a time takes."""

    latency_ms: float
    """The median of each model, averaged over the mix."""
    took_s: float
    """Of the budget."""


def measure_unloaded(traffic: Workload, slos: Sequence[Slo], *, timeout_s: float, budget_s: float) -> Unloaded:
    """Asks each model one request at a time. Raises SloUnreachableError when one already misses an SLO like that."""
    began_s = time.monotonic()
    allowed_s = PROBE_SHARE * budget_s / len(traffic.models)
    medians_ms = []
    for target, pool in traffic.first_payloads:
        latencies_ms = _ask(target, pool, timeout_s, allowed_s, budget_s)
        warm_ms = latencies_ms[len(latencies_ms) // 2 :]
        medians_ms.append(statistics.median(warm_ms))
        if len(latencies_ms) > 1:  # the first alone may have waited for the model to warm up
            own = target.model if len(traffic.models) > 1 else ""
            _check(target.model, [slo for slo in slos if slo.model == own], medians_ms[-1], len(warm_ms))
    return Unloaded(float(traffic.weights @ medians_ms), time.monotonic() - began_s)


def busy_share(sample_s: float) -> float | None:
    """How busy this machine is."""
    meter = CpuMeter()
    time.sleep(sample_s)
    return meter.read()


def _ask(target: Target, pool: Sequence[bytes], timeout_s: float, allowed_s: float, budget_s: float) -> list[float]:
    began_s = time.monotonic()
    latencies_ms: list[float] = []
    while len(latencies_ms) < _REQUESTS:
        if latencies_ms and time.monotonic() - began_s > (allowed_s if len(latencies_ms) > 1 else budget_s):
            break
        latencies_ms.append(target.infer(pool[len(latencies_ms) % len(pool)], timeout_s))
    return latencies_ms


def _check(model: str, slos: Sequence[Slo], median_ms: float, requests: int) -> None:
    for slo in slos:
        # The median is at most any higher percentile, so this is never a false alarm.
        if slo.limit_ms is not None and slo.percentile >= 0.5 and median_ms > slo.limit_ms:
            raise SloUnreachableError(
                f"{model} takes {about_ms(median_ms)} without any load (median of {requests} requests, one at a time): "
                f"{slo} is missed by {about_ms(median_ms - slo.limit_ms)} at every rate; "
                f"allow more than {format_ms(math.ceil(median_ms))} or make the model faster",
                slo=str(slo),
                unloaded_ms=median_ms,
            )
