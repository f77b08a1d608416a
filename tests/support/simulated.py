"""A search against a queue that is computed instead of run: the same schedules, verdicts and early stops, no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from queueing import sojourn_s

from loadtests.judge.judge import evaluate
from loadtests.records.point import Point, Probe
from loadtests.records.record import NOT_SENT, UNANSWERED, Outcome, Record
from loadtests.search.budget import Plan
from loadtests.search.confirmation import early_stop_threshold
from loadtests.search.search import search
from loadtests.slo import Slo
from loadtests.workload.arrivals import POISSON, Arrivals
from loadtests.workload.schedule import early_enough

OVERHEAD_S = 0.3
Server = Callable[[np.ndarray], np.ndarray]
"""Arrivals to times in the system, both in seconds."""


@dataclass(frozen=True)
class Stalls:
    """A machine that stands still, generator and server alike: exponential pauses, in some of the probes."""

    per_s: float = 1.5
    mean_s: float = 0.012
    of_probes: float = 0.6

    def during(self, probe: Probe, until_s: float) -> tuple[np.ndarray, np.ndarray]:
        """When each begins, in time that does not count the stalls, and for how long it is."""
        rng = np.random.default_rng([probe.seed, 3])
        count = rng.poisson(self.per_s * until_s) if rng.random() < self.of_probes else 0
        return np.sort(rng.uniform(0.0, until_s, count)), rng.exponential(self.mean_s, count)


def simulate(
    probe: Probe,
    slo: Slo,
    service_s: float,
    rng: np.random.Generator | None,
    server: Server | None = None,
    stalls: Stalls | None = None,
    arrivals: Arrivals = POISSON,
) -> Point:
    """One server, with deterministic service without `rng` and exponential with it; or another `server`."""
    intended_s = arrivals.at_rate(probe.rate_per_s, seed=probe.seed, count=probe.requests)
    intended_s = intended_s[: early_enough(intended_s, probe.until_s, slo.limit_ms / 1e3)]
    begins_s, pauses_s = stalls.during(probe, float(intended_s[-1])) if stalls else (np.zeros(0), np.zeros(0))
    ends_s = begins_s + np.cumsum(pauses_s)  # by the clock on the wall
    before = np.searchsorted(ends_s, intended_s, side="right")
    stalled_s = np.concatenate([[0.0], np.cumsum(pauses_s)])
    arrivals_s = intended_s - stalled_s[before]
    if len(begins_s):  # what comes while the machine stands still arrives when it goes on
        arrivals_s = np.minimum(arrivals_s, np.append(begins_s, np.inf)[before])
    sent_s = np.maximum(intended_s, arrivals_s + stalled_s[np.searchsorted(begins_s, arrivals_s, side="right")])
    count = len(arrivals_s)
    service = np.full(count, service_s) if rng is None else rng.exponential(service_s, count)
    ready_s = arrivals_s + (sojourn_s(arrivals_s, service) if server is None else server(arrivals_s))
    done_s = ready_s + stalled_s[np.searchsorted(begins_s, ready_s, side="left")]
    latency_s, status = done_s - intended_s, np.zeros(count, np.uint8)
    late = np.sort(done_s[latency_s > slo.limit_ms / 1e3])
    wall_s, stopped, most = float(done_s.max()), "", early_stop_threshold(probe, slo)
    if len(late) >= most:
        wall_s, stopped = float(late[most - 1]), "hopeless"
        status[done_s > wall_s] = UNANSWERED
        status[intended_s > wall_s] = NOT_SENT
        done_s = np.where(status == 0, done_s, np.nan)
    if wall_s > probe.until_s:
        wall_s, stopped = probe.until_s, "budget"
        status[~(done_s <= wall_s)] = UNANSWERED
        done_s = np.where(status == 0, done_s, np.nan)
    record = Record(intended_s, sent_s, done_s, status)
    return evaluate(probe, record, Outcome(wall_s, 0.0, stopped, 0.0), [slo], took_s=wall_s + OVERHEAD_S)


def run_search(
    slo: Slo,
    service_s: float,
    *,
    budget_s: float,
    seed: int,
    exponential: bool = False,
    server: Server | None = None,
    stalls: Stalls | None = None,
    arrivals: Arrivals = POISSON,
) -> list[Point]:
    """All points of one search, started at half of what one request at a time reaches."""
    rng = np.random.default_rng([seed, 9]) if exponential else None
    plan = Plan((slo,), 0.5 / service_s, seed, budget_s, unloaded_s=service_s)
    return drive(plan, lambda probe: simulate(probe, slo, service_s, rng, server, stalls, arrivals))


def drive(plan: Plan, measure: Callable[[Probe], Point]) -> list[Point]:
    """All points of one search whose probes are measured so."""
    searching, points = search(plan), list[Point]()
    try:
        probe = next(searching)
        while True:
            points.append(measure(probe))
            probe = searching.send(points[-1])
    except StopIteration:
        return points
