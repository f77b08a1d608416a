"""The highest rate at which a simulated pipeline meets its SLOs, with the error of a finite simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.errors import BadRequestError
from loadtests.simulation.pipeline import Pipeline, Step
from loadtests.simulation.simulate import Run, simulate
from loadtests.slo import Slo, check_limited, loosest_limit_ms

_LIMITS_A_RUN = 10
"""A run lasts so many times the largest limit at least: in less, a queue that grows for ever may keep the SLO."""
_STEP = 1.04
"""From one replication's answer to the next one's bracket."""


@dataclass(frozen=True)
class Capacity:
    """Rates in requests/s."""

    rate_per_s: float
    """0 where even the lowest rate tried breaks an SLO."""
    error_per_s: float
    """Standard error of `rate_per_s` over the replications. It says nothing of wrong batch times."""
    limit_per_s: float
    """Where the queue of some step grows without end, whatever the SLOs allow."""


def capacity(
    pipeline: Pipeline,
    slos: Sequence[Slo],
    sizes: Sequence[int] = (1,),
    *,
    shapes: Sequence[int] = (0,),
    requests: int = 3000,
    replications: int = 4,
    tolerance: float = 0.005,
    seed: int = 0,
) -> Capacity:
    """Bisects the rate of Poisson arrivals, once for each replication, to a relative `tolerance`.

    Each request's rows and class of shape are drawn together from `sizes` and `shapes` (one of them may have a single
    entry for all). A replication has the same draws at all rates and for all pipelines (common random numbers), so that
    equal configurations differ by less than their errors. Raises BadRequestError if no SLO limits a latency.
    """
    check_limited(slos)
    if len(sizes) != len(shapes) and 1 not in (len(sizes), len(shapes)):
        raise BadRequestError(
            f"{len(sizes)} sizes and {len(shapes)} shapes do not belong together; give one shape for each size",
            field="shapes",
        )
    limit_per_s = min(_most_per_s(step, sizes, shapes) for step in pipeline.steps)
    count = max(requests, math.ceil(_LIMITS_A_RUN * loosest_limit_ms(slos) / 1e3 * limit_per_s))
    found: list[float] = []
    for number in range(replications):
        keeps = _replication(pipeline, slos, sizes, shapes, count, seed, number)
        found.append(_edge(keeps, limit_per_s, tolerance, guess_per_s=float(np.mean(found)) if found else None))
    error_per_s = float(np.std(found, ddof=1) / math.sqrt(len(found))) if len(found) > 1 else math.inf
    return Capacity(float(np.mean(found)), error_per_s, limit_per_s)


def _replication(
    pipeline: Pipeline,
    slos: Sequence[Slo],
    sizes: Sequence[int],
    shapes: Sequence[int],
    count: int,
    seed: int,
    number: int,
) -> Callable[[float], bool]:
    """Whether the SLOs are kept at a rate, with the draws of replication `number`."""
    rng = np.random.default_rng([seed, number])
    unit_s = np.cumsum(rng.exponential(size=count))
    drawn = rng.integers(0, max(len(sizes), len(shapes)), size=count)
    rows = np.asarray(sizes)[drawn % len(sizes)]
    classes = np.asarray(shapes)[drawn % len(shapes)]
    late_s, allowed_share = next((slo.limit_ms / 1e3, slo.allowed_share) for slo in slos if slo.limit_ms is not None)

    def keeps(rate_per_s: float) -> bool:
        run = simulate(
            pipeline,
            unit_s / rate_per_s,
            rows,
            shapes=classes,
            seed=seed + number,
            late_s=late_s,
            most_late=math.floor(allowed_share * count),
        )
        return all(_kept(slo, run) for slo in slos)

    return keeps


def _kept(slo: Slo, run: Run) -> bool:
    unanswered = np.isnan(run.latencies_s)
    late = run.latencies_s > slo.limit_ms / 1e3 if slo.limit_ms is not None else np.isinf(run.latencies_s)
    return bool((late | unanswered).mean() <= slo.allowed_share)


def _edge(keeps: Callable[[float], bool], limit_per_s: float, tolerance: float, *, guess_per_s: float | None) -> float:
    """The highest rate that is kept, to the tolerance; 0 where none is."""
    low, high = 0.0, limit_per_s
    if guess_per_s:
        at = guess_per_s
        if keeps(at):
            low = at
            while (at := min(at * _STEP, limit_per_s)) < limit_per_s and keeps(at):
                low = at
            high = at
        else:
            high = at
            while (at := at / _STEP) > limit_per_s * tolerance and not keeps(at):
                high = at
            low = at if at > limit_per_s * tolerance else 0.0
    while high - low > tolerance * high and high > tolerance * limit_per_s:
        middle = (low + high) / 2
        if keeps(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2 if low else 0.0


def _most_per_s(step: Step, sizes: Sequence[int], shapes: Sequence[int]) -> float:
    """Requests/s that keep all instances busy with batches of the best size."""
    batcher = step.batcher
    largest = batcher.max_batch if batcher.dynamic else 1

    def row_s(shape: int) -> float:
        times = step.times_of(shape)
        return min(times(rows, batcher.instances) / rows for rows in range(1, largest + 1))

    count = max(len(sizes), len(shapes))
    work_s = [sizes[at % len(sizes)] * row_s(shapes[at % len(shapes)]) for at in range(count)]
    return batcher.instances / float(np.mean(work_s))
