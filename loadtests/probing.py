"""One probe from its schedule to its point: fire, ask the server what it did meanwhile, keep the record, judge."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.attempt import hopeless_count
from loadtests.errors import TargetLostError
from loadtests.fleet import Generators
from loadtests.hardware import CpuMeter
from loadtests.job import Limits
from loadtests.judging import make_point
from loadtests.metrics import MetricsMeter
from loadtests.point import Point, Probe
from loadtests.record import UNAVAILABLE
from loadtests.schedule import early_enough, poisson
from loadtests.server_stats import difference
from loadtests.slo import Slo, loosest_limit_ms
from loadtests.store import Store
from loadtests.traffic import Traffic
from loadtests.worker import FiringStopped

_BACKLOG_S = 1.5
_FEWEST_OUTSTANDING, _MOST_OUTSTANDING = 64, 20_000
_MOST_OUTSTANDING_BYTES = 512 << 20
_COOLDOWN_S = 1.0
_COUNTED_S = 0.05
"""Triton counts a request a moment after it has answered it."""


@dataclass(frozen=True)
class Prober:
    """What all probes of a run have in common."""

    generators: Generators
    traffic: Traffic
    slos: Sequence[Slo]
    store: Store | None = None
    metrics: MetricsMeter = field(default_factory=lambda: MetricsMeter(None))

    def at_rate(self, probe: Probe) -> Point:
        """Poisson arrivals at the probe's rate, kept up until its last measured request is answered."""
        hopeless = dict.fromkeys(
            (slo.limit_ms, hopeless_count(probe, slo)) for slo in self.slos if slo.limit_ms is not None
        )
        limit_s = loosest_limit_ms(self.slos) / 1e3
        cooldown = math.ceil(probe.rate_per_s * (_COOLDOWN_S + limit_s))
        intended_s = poisson(probe.rate_per_s, seed=probe.seed, count=probe.requests + cooldown)
        count = early_enough(intended_s[: probe.requests], probe.until_s, limit_s) + cooldown
        limits = Limits(self.max_outstanding(probe.rate_per_s), tuple(hopeless), cooldown, probe.until_s)
        return self.fire(probe, intended_s[:count], self.traffic.choices(count, seed=probe.seed), limits)

    def fire(self, probe: Probe, intended_s: NDArray[np.float64], choices: NDArray[np.int32], limits: Limits) -> Point:
        """Any schedule."""
        began_s = time.monotonic()
        before: list[Any] = []
        meter = CpuMeter()

        def ready() -> None:
            nonlocal before
            before = self.traffic.statistics()
            self.metrics.start()
            meter.read()

        try:
            record, outcome = self.generators.fire(intended_s, choices, limits, seed=probe.seed, on_ready=ready)
        except FiringStopped as stop:
            record, outcome = stop.record, stop.outcome
        finally:
            load = self.metrics.stop()
        host_cpu_share = meter.read()
        after: list[Any] = []
        if outcome.stopped != "connection lost":
            time.sleep(_COUNTED_S)
            try:
                after = self.traffic.statistics()
            except KeyboardInterrupt:
                outcome = replace(outcome, stopped="asked")
            except TargetLostError as error:  # it froze, or went away while nothing was due: what was recorded stays
                said = {str(UNAVAILABLE): str(error)} | outcome.messages
                outcome = replace(outcome, stopped="connection lost", messages=said)
        record = self.traffic.marked(record, choices)
        raw = self.store.save_record(probe.number, record) if self.store is not None else ""
        return make_point(
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

    def max_outstanding(self, rate_per_s: float) -> int:
        """Enough room for a stall of a second and a half beyond what the SLO tolerates, within the memory there is."""
        span_s = _BACKLOG_S + 4 * loosest_limit_ms(self.slos) / 1e3
        outstanding = max(_FEWEST_OUTSTANDING, math.ceil(rate_per_s * span_s))
        largest = max(map(len, self.traffic.pool))
        by_memory = max(_FEWEST_OUTSTANDING, _MOST_OUTSTANDING_BYTES // max(largest, 1))
        return min(outstanding, by_memory, _MOST_OUTSTANDING)
