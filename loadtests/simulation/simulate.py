"""One run: arrivals pass a pipeline in simulated time. No clock and no server; equal arguments give equal runs."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtests.simulation.pipeline import Pipeline, Step
from loadtests.simulation.scheduler import Batch, Scheduler

_DRAWS = 1024


@dataclass(frozen=True)
class Run:
    """The times of a run, by number of the request in the order of arrival."""

    latencies_s: NDArray[np.float64]
    """From the arrival to the answer; infinite where the request was refused, NaN where the run ended before."""
    batches: dict[str, dict[int, int]]
    """By step: how many batches of how many rows."""
    waits_s: dict[str, float]
    """By step: mean seconds from a request's arrival at the step to the start of its batch."""
    refused: int
    """Requests that a full queue or a time-out refused."""

    def percentile(self, share: float) -> float:
        """Seconds that this share of the answers took at most; infinite where too many were refused."""
        known = np.sort(self.latencies_s[~np.isnan(self.latencies_s)])
        return float(known[max(int(np.ceil(share * len(known))) - 1, 0)])


def simulate(
    pipeline: Pipeline,
    arrivals_s: Sequence[float] | NDArray[np.float64],
    sizes: Sequence[int] | NDArray[np.int64] | int = 1,
    *,
    shapes: Sequence[int] | NDArray[np.int64] | int = 0,
    seed: int = 0,
    late_s: float = float("inf"),
    most_late: int | None = None,
) -> Run:
    """`arrivals_s` rise; `sizes` are rows, `shapes` classes of equal shape, of each request or of all.

    `seed` draws the variation of batch times. With `most_late` the run ends as soon as more requests than that took
    longer than `late_s` or were refused.
    """
    arrivals = np.asarray(arrivals_s, dtype=np.float64)
    return _Simulation(
        pipeline,
        arrivals.tolist(),
        np.broadcast_to(sizes, arrivals.shape).tolist(),
        np.broadcast_to(shapes, arrivals.shape).tolist(),
        seed,
    ).run(late_s - pipeline.overhead_s, len(arrivals) if most_late is None else most_late)


class _Simulation:
    def __init__(
        self, pipeline: Pipeline, arrivals_s: list[float], rows: list[int], shapes: list[int], seed: int
    ) -> None:
        self.pipeline = pipeline
        self.arrivals_s, self.rows = arrivals_s, rows
        self.events: list[tuple[float, int, _Station, Batch | int]] = []
        self.order = 0
        self.left = [len(pipeline.steps)] * len(arrivals_s)
        self.latencies_s = [float("nan")] * len(arrivals_s)
        self.refused = self.late = 0
        self.late_s = float("inf")
        self.stations = [
            _Station(self, step, shapes, seed * len(pipeline.steps) + number)
            for number, step in enumerate(pipeline.steps)
        ]
        for station in self.stations:
            station.followers = [other for other in self.stations if station.step.name in other.step.after]

    def run(self, late_s: float, most_late: int) -> Run:
        self.late_s = late_s
        entrances = [station for station in self.stations if not station.step.after]
        events, arrivals_s = self.events, self.arrivals_s
        following, end = 0, len(arrivals_s)
        while self.late <= most_late:
            if following < end and (not events or arrivals_s[following] <= events[0][0]):
                now_s = arrivals_s[following]
                for station in entrances:
                    station.arrive([following], now_s)
                following += 1
            elif events:
                now_s, _, station, what = heapq.heappop(events)
                if isinstance(what, Batch):
                    station.finish(what, now_s)
                else:
                    station.scheduler.alarm(what, now_s)
            else:
                break
        overhead_s = self.pipeline.overhead_s
        return Run(
            np.asarray(self.latencies_s) + overhead_s,
            {station.step.name: dict(sorted(station.batches.items())) for station in self.stations},
            {station.step.name: station.wait_s / max(station.requests, 1) for station in self.stations},
            self.refused,
        )

    def push(self, at_s: float, station: _Station, what: Batch | int) -> None:
        self.order += 1
        heapq.heappush(self.events, (at_s, self.order, station, what))

    def refuse(self, request: int, _now_s: float) -> None:
        """The request is lost for all steps that follow."""
        if self.left[request] > 0:
            self.left[request] = -1
            self.latencies_s[request] = float("inf")
            self.refused += 1
            self.late += 1

    def answered(self, request: int, now_s: float) -> None:
        """By one step."""
        self.left[request] -= 1
        if self.left[request] == 0:
            latency_s = self.latencies_s[request] = now_s - self.arrivals_s[request]
            self.late += latency_s > self.late_s


class _Station:
    """A step at work: its scheduler, its batch times and what comes after."""

    def __init__(self, run: _Simulation, step: Step, shapes: list[int], seed: int) -> None:
        self.run, self.step = run, step
        self.scheduler = Scheduler(step.batcher, run.rows, shapes, self.start, self.set_alarm, run.refuse, seed)
        self.followers: list[_Station] = []
        self.batches: Counter[int] = Counter()
        self.since_s: dict[int, float] = {}
        self.wait_s, self.requests = 0.0, 0
        self._missing: dict[int, int] = {}
        self._known_s: dict[tuple[int, int, int], tuple[float, float]] = {}
        self._rng, self._drawn = np.random.default_rng(seed), list[float]()

    def arrive(self, requests: list[int], now_s: float) -> None:
        wakes = False
        for request in requests:
            self.since_s[request] = now_s
            wakes |= self.scheduler.enqueue(request, now_s)
        if wakes:
            self.scheduler.wake(now_s)

    def start(self, scheduler: Scheduler, batch: Batch, now_s: float) -> None:
        busy = self.step.batcher.instances - scheduler.idle
        self.batches[batch.rows] += 1
        since_s = self.since_s
        self.requests += len(batch.requests)
        for request in batch.requests:
            self.wait_s += now_s - since_s.pop(request)
        self.run.push(now_s + self._seconds(batch.rows, busy, batch.shape), self, batch)

    def finish(self, batch: Batch, now_s: float) -> None:
        run = self.run
        for request in batch.requests:
            run.answered(request, now_s)
        for follower in self.followers:
            follower.arrive(follower.complete(batch.requests), now_s)
        self.scheduler.finish(now_s)

    def complete(self, requests: list[int]) -> list[int]:
        """The requests that have now passed all steps before this one."""
        before = len(self.step.after)
        ready = []
        for request in requests:
            missing = self._missing.get(request, before) - 1
            if missing:
                self._missing[request] = missing
            else:
                self._missing.pop(request, None)
                if self.run.left[request] > 0:
                    ready.append(request)
        return ready

    def set_alarm(self, _scheduler: Scheduler, at_s: float, number: int) -> None:
        self.run.push(at_s, self, number)

    def _seconds(self, rows: int, busy: int, shape: int) -> float:
        key = (rows, busy, shape)
        if key not in self._known_s:
            times = self.step.times_of(shape)
            self._known_s[key] = times(rows, busy), times.variation
        mean_s, variation = self._known_s[key]
        if not variation:
            return mean_s
        if not self._drawn:
            self._drawn = self._rng.standard_gamma(variation**-2, _DRAWS).tolist()
        return mean_s * variation**2 * self._drawn.pop()
