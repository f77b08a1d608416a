"""A server that generates answers token by token, several at once, computed instead of run; and searches of it."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from simulated import OVERHEAD_S, drive

from loadtests.judge.judge import evaluate
from loadtests.records.point import Point, Probe
from loadtests.records.record import MOST_TIMELINES, NOT_SENT, UNANSWERED, Outcome, Record
from loadtests.search.budget import Plan
from loadtests.search.confirmation import early_stop_threshold
from loadtests.slo import Slo
from loadtests.workload.schedule import early_enough, poisson

Floats = np.ndarray
When = Callable[[int, Floats], Floats]
Save = Callable[[int, Record], str]


@dataclass(frozen=True)
class BatchedInFlight:
    """At most `slots` answers get a token in each step; others wait, first come, first served.

    A step takes `alone_s`, and `each_s` more for every further answer in it. Lengths are exponential with a mean of
    `tokens`. Where `each_s` is 0, this is an M/M/c queue: waiting and first tokens are known by Erlang's formula.
    """

    slots: int
    alone_s: float
    each_s: float = 0.0
    tokens: float = 80.0

    @property
    def answer_s(self) -> float:
        """What the mean answer takes alone."""
        return self.tokens * self.alone_s

    def serve(self, arrivals_s: Floats, seed: int) -> tuple[Floats, Floats, Floats, Floats]:
        """When the first token and the whole of each answer came, its longest step in s, and its tokens."""
        first_s, done_s, gap_s, tokens, _ = self._run(arrivals_s, seed)
        return first_s, done_s, gap_s, tokens

    def timelines(self, arrivals_s: Floats, seed: int, rows: int) -> dict[int, Floats]:
        """When each token of the first answers came."""
        *_, tokens, when = self._run(arrivals_s, seed)
        return {row: when(row, np.arange(tokens[row]) + 1) for row in range(min(rows, len(arrivals_s)))}

    def _run(self, arrivals_s: Floats, seed: int) -> tuple[Floats, Floats, Floats, Floats, When]:
        lengths = np.random.default_rng([seed, 5]).exponential(self.tokens, len(arrivals_s))
        begun, ended = np.empty(len(arrivals_s)), np.empty(len(arrivals_s))
        waiting: deque[int] = deque()
        running: list[tuple[float, int]] = []
        times, steps, lasts = [0.0], [0.0], [self.alone_s]  # steps made by then, and how long one takes from then on
        now_s = made = 0.0
        came = 0
        while came < len(arrivals_s) or running:
            step_s = self.alone_s + self.each_s * max(len(running) - 1, 0)
            next_s = now_s + (running[0][0] - made) * step_s if running else math.inf
            arrives = came < len(arrivals_s) and arrivals_s[came] <= next_s
            until_s = float(arrivals_s[came]) if arrives else next_s
            made += (until_s - now_s) / step_s if running else 0.0
            now_s = until_s
            if arrives:
                waiting.append(came)
                came += 1
            else:
                made, index = heapq.heappop(running)
                ended[index] = made
            while waiting and len(running) < self.slots:
                index = waiting.popleft()
                begun[index] = made
                heapq.heappush(running, (made + lengths[index], index))
            times.append(now_s)
            steps.append(made)
            lasts.append(self.alone_s + self.each_s * max(len(running) - 1, 0))
        # While nothing runs no step is made: each moment of the server is told apart by a little more of them.
        clock = np.asarray(steps) + 1e-9 * np.arange(len(steps))
        first_s = np.interp(np.minimum(begun + 1, ended), clock, times)
        done_s = np.maximum(np.interp(ended, clock, times), first_s)
        spans = np.searchsorted(clock, [begun, ended]).T.tolist()
        gap_s = np.array([max(lasts[first : last + 1]) for first, last in spans])

        def when(row: int, token: Floats) -> Floats:
            return np.interp(np.minimum(begun[row] + token, ended[row]), clock, times)

        return first_s, done_s, gap_s, np.maximum(np.ceil(lengths), 1), when


def measure(
    server: BatchedInFlight, probe: Probe, slos: Sequence[Slo], answer_s: float, save: Save | None = None
) -> Point:
    """A probe with a cooldown and an early stop, as the generator has them."""
    cooldown = math.ceil(probe.rate_per_s * answer_s)
    intended_s = poisson(probe.rate_per_s, seed=probe.seed, count=probe.requests + cooldown)
    count = early_enough(intended_s[: probe.requests], probe.until_s, answer_s)
    columns = server.serve(intended_s[: count + cooldown], probe.seed)
    first_s, done_s, gap_s, parts = (column[:count] for column in columns)
    intended_s, status = intended_s[:count], np.zeros(count, np.uint8)
    made = Record(intended_s, intended_s, done_s, status, first_s=first_s, gap_s=gap_s, parts=parts.astype(np.uint32))
    wall_s, stopped = float(done_s.max()), ""
    for slo in slos:
        late = made.measured_ms(slo.measure) > slo.limit_ms
        known_s = np.sort((first_s if slo.measure == "ttft" else done_s)[late])
        most = early_stop_threshold(probe, slo)
        if len(known_s) >= most and known_s[most - 1] < wall_s:
            wall_s, stopped = float(known_s[most - 1]), "hopeless"
    if wall_s > probe.until_s:
        wall_s, stopped = probe.until_s, "budget"
    status[done_s > wall_s] = UNANSWERED
    status[intended_s > wall_s] = NOT_SENT
    made.done_s[status != 0] = np.nan
    made.first_s[first_s > wall_s] = np.nan
    made.parts[np.isnan(made.first_s)] = 0
    raw = ""
    if save:
        lines = server.timelines(intended_s, probe.seed, MOST_TIMELINES)
        raw = save(probe.number, replace(made, timelines={row: at[at <= wall_s] for row, at in lines.items()}))
    return evaluate(probe, made, Outcome(wall_s, 0.0, stopped, 0.0), slos, took_s=wall_s + OVERHEAD_S, raw=raw)


def plan_of(server: BatchedInFlight, slos: Sequence[Slo], *, budget_s: float, seed: int = 0) -> Plan:
    """As for a real server that was measured without load."""
    unloaded_s = server.answer_s
    return Plan(tuple(slos), 2 / unloaded_s, seed, budget_s, unloaded_s=unloaded_s, answer_s=3 * unloaded_s)


def search_streams(
    server: BatchedInFlight, slos: Sequence[Slo], *, budget_s: float, seed: int, save: Save | None = None
) -> list[Point]:
    """All points of one search; `save` keeps each probe's record and returns the name of its file."""
    plan = plan_of(server, slos, budget_s=budget_s, seed=seed)
    return drive(plan, lambda probe: measure(server, probe, slos, plan.answer_s, save))


def capacity_per_s(server: BatchedInFlight, slo: Slo, *, requests: int = 60_000) -> float:
    """By simulation, to within 1 %: where the share of the requests that the SLO allows is over its limit."""
    unit_s = np.cumsum(np.random.default_rng(11).exponential(1.0, requests))
    low, high = 0.01 / server.alone_s / server.tokens, server.slots / server.alone_s / server.tokens
    assert slo.limit_ms is not None
    columns: dict[str, Callable[[Floats, Floats, Floats, Floats, Floats], Floats]] = {
        "ttft": lambda came, first, done, gap, parts: first - came,
        "itl": lambda came, first, done, gap, parts: (done - first) / np.maximum(parts - 1, 1),
        "gap": lambda came, first, done, gap, parts: gap,
        "": lambda came, first, done, gap, parts: done - came,
    }
    while high / low > 1.005:
        middle = math.sqrt(low * high)
        arrivals_s = unit_s / middle
        values_s = columns[slo.measure](arrivals_s, *server.serve(arrivals_s, 11))
        holds = np.mean(values_s > slo.limit_ms / 1e3) <= slo.allowed_share
        low, high = (middle, high) if holds else (low, middle)
    return math.sqrt(low * high)
