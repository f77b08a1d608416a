"""How much of a probe's result is the luck of its arrivals, as far as that can be known.

Two minutes of Poisson arrivals at one rate differ: here many come close together and a queue builds up, there none do.
Near 100/s this is most of what makes an estimate uncertain, and it is known, because the schedule is. So the same
arrivals are played to a virtual queue: one server, first come first served, with that constant service time at which
as many of them are late as were measured. What rate of ordinary arrivals makes so many late in that queue is known from
theory (M/D/1), and it is the rate that the probe really tells about.

This is the whole truth for a server that works like the virtual queue, and none of it for one whose slow requests have
nothing to do with arrivals. What tells is how much of the variance of the measured latencies the virtual ones explain:
so much of the correction counts (a control variate), and only what is left unexplained needs many requests to average
out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEPS = 18
_FEWEST = 100


@dataclass(frozen=True)
class VirtualQueue:
    """The M/D/1 queue that had as many late requests with a probe's arrivals as were measured."""

    service_s: float
    explains: float
    """The share of the measured latencies' variance that its own explain: the square of their correlation."""

    def ordinary_rate_per_s(self, rate_per_s: float, share: float, limit_s: float) -> float:
        """The rate at which ordinary arrivals make this share late, where the probe had `rate_per_s`."""
        ordinary_per_s = md1_rate_per_s(self.service_s, limit_s, share)
        return math.exp(self.explains * math.log(ordinary_per_s) + (1 - self.explains) * math.log(rate_per_s))


def fit(
    intended_s: Floats, sent_s: Floats, latencies_ms: Floats, limit_ms: float, kept: NDArray[np.bool_] | None = None
) -> VirtualQueue | None:
    """Of all requests of a probe in the order of their schedule; a latency is infinite where one failed.

    Those that are not `kept` count as arrivals only. None where the latencies follow no such queue, or are too few.
    """
    kept = np.ones(len(sent_s), np.bool_) if kept is None else kept
    if int(kept.sum()) < _FEWEST:
        return None
    limit_s, lag_s = limit_ms / 1e3, (sent_s - intended_s)[kept]
    late = int(np.sum(latencies_ms[kept] > limit_ms))
    low, high = 0.0, limit_s
    for _ in range(_STEPS):
        middle = (low + high) / 2
        too_slow = np.sum(_waits_s(sent_s, middle)[kept] + lag_s > limit_s - middle) > late
        low, high = (low, middle) if too_slow else (middle, high)
    correlation = _correlation(np.minimum(latencies_ms[kept], 2 * limit_ms), _waits_s(sent_s, low)[kept] + lag_s)
    return VirtualQueue(low, correlation**2) if correlation > 0 else None


def md1_rate_per_s(service_s: float, limit_s: float, share: float) -> float:
    """The rate at which an M/D/1 queue has this share of its requests later than the limit."""
    low, high = 0.0, 1 / service_s
    for _ in range(40):
        middle = (low + high) / 2
        too_fast = md1_waits_longer(limit_s / service_s - 1, middle * service_s) > share
        low, high = (low, middle) if too_fast else (middle, high)
    return (low + high) / 2


def md1_waits_longer(services: float, load: float) -> float:
    """M/D/1: the share of requests that wait longer than so many service times.

    Exact (Erlang 1909) for fewer than two. From there on exponential, within 4 % of the share at loads from 0.3
    (Crommelin 1934): (1 - load) / (load * exp(x) - 1) * exp(-x * services), where load * (exp(x) - 1) = x.
    """
    if services < 2:
        second = load * (1 - services) * math.exp(load * (services - 1)) if services > 1 else 0.0
        return 1 - (1 - load) * (math.exp(load * services) + second)
    low, high = 0.0, 1.0
    while load * math.expm1(high) < high:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if load * math.expm1(middle) < middle else (low, middle)
    return min(1.0, (1 - load) / (load * math.exp(high) - 1) * math.exp(-high * services))


def _waits_s(arrivals_s: Floats, service_s: float) -> Floats:
    """How long each request waits for a single server (Lindley's recursion)."""
    before_s = service_s * np.arange(len(arrivals_s))
    waits_s: Floats = np.maximum.accumulate(arrivals_s - before_s) + before_s - arrivals_s
    return waits_s


def _correlation(first: Floats, second: Floats) -> float:
    one, other = first - first.mean(), second - second.mean()
    scale = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / scale if scale > 0 else 0.0
