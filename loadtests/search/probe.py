"""One probe from its schedule to its point: run it, read the server's statistics, keep the record, evaluate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import TargetBusyError, TargetError, TargetLostError
from loadtests.generator.messages import EarlyStop, Limits
from loadtests.generator.pool import Generators
from loadtests.generator.process import RunInterrupted
from loadtests.judge.judge import evaluate
from loadtests.records.point import Point, Probe
from loadtests.records.record import UNAVAILABLE, Record
from loadtests.search.budget import Timing
from loadtests.search.confirmation import early_stop_threshold
from loadtests.slo import Slo, as_requested, loosest_limit_ms
from loadtests.target.hardware import CpuMeter
from loadtests.target.metrics import MetricsMeter
from loadtests.target.statistics import difference
from loadtests.workload.arrivals import POISSON, Arrivals
from loadtests.workload.schedule import early_enough
from loadtests.workload.workload import Workload

_BACKLOG_S = 1.5
"""A stall of this length is no backlog: virtual machines stand still for a second."""
_FEWEST_OUTSTANDING = 64
"""A server of many instances may have so many in flight at any rate."""
_MOST_OUTSTANDING_BYTES = 512 << 20
"""Of the generator's memory, for requests without an answer."""
_BACKED_UP = ("backlog", "hopeless")
"""How a probe was stopped after which the server may still be at work."""


@dataclass(frozen=True)
class Prober:
    """What all probes of a run have in common."""

    generators: Generators
    traffic: Workload
    slos: Sequence[Slo]
    save: Callable[[int, Record], str] | None = None
    """Keeps the record of a probe, by its number; returns where."""
    metrics: MetricsMeter = field(default_factory=lambda: MetricsMeter(None))
    timing: Timing = field(default_factory=Timing)
    arrivals: Arrivals = POISSON
    answer_s: float = 0.0
    """About what an answer in parts takes under load; 0 where each comes at once."""

    def send(self, probe: Probe, unloaded_ms: float, *, timeout_s: float, left_s: float) -> Point:
        """A probe of a search with `left_s` of its budget; where it was stopped, waits until the server is idle."""
        point = self.at_rate(probe)
        if point.stopped in _BACKED_UP:
            left_s -= point.took_s
            return _drained(
                point, self.traffic, unloaded_ms, timeout_s=timeout_s, drain_s=self.timing.drain_s, left_s=left_s
            )
        return point

    def at_rate(self, probe: Probe) -> Point:
        """Arrivals at the probe's rate, kept up until its last measured request is answered.

        The sequences that end before as many run as ever will are left out.
        """
        hopeless = [self._early_stop(probe, slo) for slo in as_requested(self.slos) if slo.limit_ms is not None]
        limit_s = max(loosest_limit_ms(self.slos) / 1e3, self.answer_s)
        longest_s = self.traffic.longest_s
        cooldown = math.ceil(probe.rate_per_s * (self.timing.cooldown_s + limit_s + longest_s))
        count = probe.requests + cooldown + math.ceil(probe.rate_per_s * longest_s)
        intended_s = self.arrivals.at_rate(probe.rate_per_s, seed=probe.seed, count=count)
        intended_s, choices = self.traffic.ends(intended_s, self.traffic.choices(count, seed=probe.seed))
        begin = int(np.searchsorted(intended_s, longest_s)) if longest_s else 0
        end = begin + early_enough(intended_s[begin : begin + probe.requests], probe.until_s, limit_s)
        schedule = intended_s[: end + cooldown], choices[: end + cooldown]
        most = self.max_outstanding(probe.rate_per_s * self.traffic.requests_each)
        limits = Limits(most, tuple(hopeless), len(schedule[0]) - end, probe.until_s)
        return self.run_schedule(probe, *schedule, limits, begin=begin)

    def _early_stop(self, probe: Probe, slo: Slo) -> EarlyStop:
        assert slo.limit_ms is not None
        payloads, at_once = None, probe.rate_per_s * self.traffic.mean_s
        if slo.model:
            weight = self.traffic.weights[self.traffic.models.index(slo.model)]
            probe = replace(probe, requests=math.ceil(probe.requests * weight))
            payloads = self.traffic.payloads_of(slo.model)
        return EarlyStop(slo.limit_ms, early_stop_threshold(probe, slo, at_once), slo.measure, payloads)

    def run_schedule(
        self,
        probe: Probe,
        intended_s: NDArray[np.float64],
        choices: NDArray[np.int32],
        limits: Limits,
        *,
        begin: int = 0,
    ) -> Point:
        """Any schedule. Its first `begin` arrivals only bring the server up to its load."""
        began_s = time.monotonic()
        before: list[Any] = []
        meter = CpuMeter()

        def ready() -> None:
            nonlocal before
            before = self.traffic.statistics()
            self.metrics.start()
            meter.read()

        try:
            record, outcome = self.generators.run_schedule(intended_s, choices, limits, seed=probe.seed, on_ready=ready)
        except RunInterrupted as stop:
            record, outcome = stop.record, stop.outcome
        finally:
            load = self.metrics.stop()
        host_cpu_share = meter.read()
        after: list[Any] = []
        if outcome.stopped != "connection lost":
            try:
                time.sleep(self.timing.counted_s)
                after = self.traffic.statistics()
            except KeyboardInterrupt:
                outcome = replace(outcome, stopped="asked")
            except TargetLostError as error:  # it froze, or went away while nothing was due: what was recorded stays
                messages = {str(UNAVAILABLE): str(error)} | outcome.messages
                outcome = replace(outcome, stopped="connection lost", messages=messages)
        if begin:
            record, choices = record.where(np.arange(begin, len(record))), choices[begin:]
        record = self.traffic.marked(record, choices)
        raw = self.save(probe.number, record) if self.save is not None else ""
        point = evaluate(
            probe,
            record,
            outcome,
            self.slos,
            server=difference(before, after, self.traffic.step_shares(record)),
            load=load,
            host_cpu_share=host_cpu_share,
            took_s=time.monotonic() - began_s,
            raw=raw,
            models=self.traffic.models,
        )
        if outcome.stopped == "hopeless" and not record.streamed:
            # Of the first requests it is known whether they were late.
            record = record.known_at(outcome.wall_s, loosest_limit_ms(self.slos) / 1e3)
        elif outcome.stopped:
            return point
        return replace(point, sizes=self.traffic.latencies_by_size(record, choices))

    def max_outstanding(self, rate_per_s: float) -> int:
        """Enough room for a stall of a second and a half beyond what the SLO tolerates, within the memory there is."""
        span_s = _BACKLOG_S + max(4 * loosest_limit_ms(self.slos) / 1e3, 2 * self.answer_s)
        outstanding = max(_FEWEST_OUTSTANDING, math.ceil(rate_per_s * span_s))
        largest = max(map(len, self.traffic.pool))
        by_memory = max(_FEWEST_OUTSTANDING, _MOST_OUTSTANDING_BYTES // max(largest, 1))
        return min(outstanding, by_memory)


# Drain: after a probe that stopped early, wait until the server is idle, so that the next probe meets no backlog.


def _drained(
    point: Point, traffic: Workload, unloaded_ms: float, *, timeout_s: float, drain_s: float, left_s: float
) -> Point:
    """The point, with the time that this took, at most the `left_s` of the budget.

    A server that then answers nothing, or nothing but errors, did not miss the SLO for its load: it hangs or has
    broken, and the probe in which it did becomes one in which it went away. Ctrl-C makes it one that was asked to stop.
    """
    began_s = time.monotonic()
    # What was sent may still have to be worked off where the server goes on with requests that were cancelled.
    patience_s = max(drain_s, point.requests * unloaded_ms / 1e3)
    try:
        _wait_until_idle(traffic, unloaded_ms, timeout_s, patience_s, left_s)
    except KeyboardInterrupt:
        point = replace(point, stopped="asked")
    except TargetLostError as error:
        point = replace(point, stopped="connection lost", reason=f"the server went away: {error}")
    return replace(point, took_s=point.took_s + time.monotonic() - began_s)


def _wait_until_idle(traffic: Workload, unloaded_ms: float, timeout_s: float, patience_s: float, left_s: float) -> None:
    """TargetLostError: it did not give one good answer to the end of our patience."""
    began_s = time.monotonic()
    trouble: TargetLostError | None = None
    turn = 0
    while (waited_s := time.monotonic() - began_s) < patience_s:
        if waited_s >= left_s:
            return  # there is no next probe
        try:
            each_s = min(timeout_s, left_s - waited_s, patience_s - waited_s)  # of streams the first is much longer
            asked = [target.first_part(pool[turn % len(pool)], each_s) for target, pool in traffic.first_payloads]
            trouble, turn = None, turn + 1  # some requests take longer than others without any load
            if float(traffic.weights @ asked) < 2 * unloaded_ms + 2:
                return
        except TargetLostError as error:
            trouble = error
        except TargetError as error:
            if not traffic.targets[0].reachable():
                return  # the next probe shows it
            trouble = (
                None
                if isinstance(error, TargetBusyError)
                else TargetLostError(str(error), server=error.server, model=error.model)
            )
            time.sleep(0.2)
    if trouble is not None:
        raise trouble
