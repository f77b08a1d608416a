"""A search against a queue that is computed instead of run: the same schedules, judging and early stops, no clock."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from queueing import sojourn_s

from loadtests.attempt import hopeless_count
from loadtests.job import Outcome
from loadtests.judging import make_point
from loadtests.point import Point, Probe
from loadtests.record import NOT_SENT, UNANSWERED, Record
from loadtests.schedule import poisson
from loadtests.search import Plan, search
from loadtests.slo import Slo

OVERHEAD_S = 0.3
Server = Callable[[np.ndarray], np.ndarray]
"""Arrivals to times in the system, both in seconds."""


def simulate(
    probe: Probe, slo: Slo, service_s: float, rng: np.random.Generator | None, server: Server | None = None
) -> Point:
    """One server, with deterministic service without `rng` and exponential with it; or another `server`."""
    arrivals_s = poisson(probe.rate_per_s, seed=probe.seed, count=probe.requests)
    count = len(arrivals_s)
    service = np.full(count, service_s) if rng is None else rng.exponential(service_s, count)
    latency_s = sojourn_s(arrivals_s, service) if server is None else server(arrivals_s)
    done_s, status = arrivals_s + latency_s, np.zeros(count, np.uint8)
    late = np.sort(done_s[latency_s > slo.limit_ms / 1e3])
    wall_s, stopped, most = float(done_s.max()), "", hopeless_count(probe, slo)
    if len(late) >= most:
        wall_s, stopped = float(late[most - 1]), "hopeless"
        status[done_s > wall_s] = UNANSWERED
        status[arrivals_s > wall_s] = NOT_SENT
        done_s = np.where(status == 0, done_s, np.nan)
    record = Record(arrivals_s, arrivals_s, done_s, status)
    return make_point(probe, record, Outcome(wall_s, 0.0, stopped, 0.0), [slo], took_s=wall_s + OVERHEAD_S)


def run_search(
    slo: Slo,
    service_s: float,
    *,
    budget_s: float,
    seed: int,
    exponential: bool = False,
    server: Server | None = None,
) -> list[Point]:
    """All points of one search, started at half of what one request at a time reaches."""
    rng = np.random.default_rng([seed, 9]) if exponential else None
    searching = search(Plan((slo,), 0.5 / service_s, seed, budget_s))
    points: list[Point] = []
    try:
        probe = next(searching)
        while True:
            points.append(simulate(probe, slo, service_s, rng, server))
            probe = searching.send(points[-1])
    except StopIteration:
        return points
