"""One schedule, fired once and judged: a rate, a shape, or a recorded trace. No search.

point = load(CapacityRequest("localhost:8001", "rain_forecast", slos), parse_shape("ramp:50-400", 30))
"""

from __future__ import annotations

import numpy as np

from loadtests.capacity import CapacityRequest, start_generators, timeout_s
from loadtests.job import Limits
from loadtests.point import Point, Probe
from loadtests.probing import Prober
from loadtests.shape import Shape
from loadtests.slo import Slo
from loadtests.trace import Trace
from loadtests.traffic import Traffic, scoped

_WINDOW_S = 1.0


def load(request: CapacityRequest, plan: Shape | Trace) -> Point:
    """Raises what `capacity.find` raises before it measures. A server that dies ends it: the point says so."""
    with Traffic(request.server, request.shares, seed=request.seed) as traffic:
        slos: tuple[Slo, ...] = scoped(request.slos, traffic.models)
        traffic.check()
        if isinstance(plan, Trace):
            offsets_s, choices = plan.offsets_s, traffic.choices_of(plan, seed=request.seed)
            peak_per_s = peak(offsets_s)
        else:
            offsets_s, peak_per_s = plan.offsets_s(request.seed), plan.peak_per_s
            choices = traffic.choices(len(offsets_s), seed=request.seed)
        for target, pool in traffic.first_payloads:
            target.infer(pool[0], timeout_s(request))
        mean_per_s = len(offsets_s) / max(float(offsets_s[-1]), 1e-3)
        probe = Probe(0, "load", mean_per_s, len(offsets_s), request.seed)
        with start_generators(request, traffic.pool) as generators:
            prober = Prober(generators, traffic, slos)
            return prober.fire(probe, offsets_s, choices, Limits(prober.max_outstanding(peak_per_s)))


def peak(offsets_s: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """The most requests in any second."""
    return float((np.searchsorted(offsets_s, offsets_s + _WINDOW_S) - np.arange(len(offsets_s))).max())
