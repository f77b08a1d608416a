"""Which rates are proven: those for which all confirmation runs at them or above give enough evidence together.

Lateness increases with the rate, so a run speaks for every rate up to its own. The evidence for a rate adds up over
the runs in the order in which they were made, and what is proven once stays so: `judge.evidence` says why a search
errs at most one time in a hundred, however many rates and runs it tries.

Statistics know nothing of what happens every few seconds: between two freezes of a server a short run is clean,
however many requests it has. So the runs of a certificate last ten seconds together, or an eighth of the search until
then where that is shorter, and eight times the largest limit: a queue that grows slowly takes its time to pass it. What
happens more rarely than that they cannot show. Where other probes show that lateness comes and goes with time, they
last twice as long as the longest of these took to show it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.judge.evidence import ENOUGH_NATS, gain, gain_for, nats
from loadtests.judge.judge import DEFAULT_ERROR_SHARE
from loadtests.records.point import Point, SloCount
from loadtests.search.monotonicity import longest_violation_s
from loadtests.search.observations import LEAST_LIMITS, dependence_near, filling_s
from loadtests.slo import Slo

LEAST_S, LEAST_SHARE = 10.0, 1 / 8
"""The runs of a certificate last so long, or that share of the search: freezes come every few seconds."""


@dataclass(frozen=True)
class Certificate:
    """A rate that passed."""

    rate_per_s: float
    points: tuple[Point, ...]
    """The runs at this rate."""
    runs: tuple[Point, ...]
    """All that speak for it: at this rate and at higher ones."""

    @property
    def requests(self) -> int:
        return sum(run.requests for run in self.runs)

    @property
    def seconds(self) -> float:
        """How long the confirmation ran."""
        return _lasted_s(self.runs)

    def describe(self) -> str:
        """How many requests were over each limit."""
        parts = []
        for slo, counts in _by_slo(self.runs):
            over, requests = sum(count.over for count in counts), sum(count.requests for count in counts)
            parts.append(f"{over:,} of {requests:,} {slo.late} ({over / requests * 100:.2f} %)")
        return ", ".join(parts)


@dataclass(frozen=True)
class Run:
    """A confirmation run that the generator did not spoil."""

    point: Point
    gains: tuple[float, ...]
    """Of the stake on its rate, one entry per SLO."""
    in_order: bool
    """Nothing but the number of requests stands against it."""
    searched_s: float
    """How long the search had taken by its end."""


def confirmation_runs(points: Sequence[Point]) -> list[Run]:
    """In the order in which they were made, each with its gains."""
    found = []
    for index, point in enumerate(points):
        if point.phase != "confirm" or point.verdict == "invalid":
            continue
        known, in_order = points[: index + 1], point.passes and not point.stopped
        gains = tuple(_gain(known, count) if in_order else -math.inf for count in point.slos)
        found.append(Run(point, gains, in_order, sum(earlier.took_s for earlier in known)))
    return found


def missing_gain(runs: Sequence[Run], rate_per_s: float) -> float:
    """What the stake on a rate still has to gain for enough evidence, for the SLO that needs most of it."""
    higher = [run for run in runs if run.point.rate_per_s > rate_per_s]
    gained = _gained([run for run in runs if run.point.rate_per_s == rate_per_s]).get(rate_per_s)
    evidence = _evidence(higher) or [0.0] * len(gained or [0.0])
    return max(
        gain_for(ENOUGH_NATS - known) - own
        for known, own in zip(evidence, gained or [0.0] * len(evidence), strict=True)
    )


def _gained(runs: Sequence[Run]) -> dict[float, list[float]]:
    """By the stake on each rate, one entry per SLO."""
    rates = dict.fromkeys(run.point.rate_per_s for run in runs)
    return {
        rate: [sum(own) for own in zip(*(run.gains for run in runs if run.point.rate_per_s == rate), strict=True)]
        for rate in rates
    }


def _evidence(runs: Sequence[Run]) -> list[float]:
    """What they give together, in nats, one entry per SLO; none without a run."""
    return [sum(map(nats, gains)) for gains in zip(*_gained(runs).values(), strict=True)]


def lasted_s(runs: Sequence[Run], rate_per_s: float) -> float:
    """How long the runs at the rate and above that were met lasted together."""
    return _lasted_s([run.point for run in runs if run.in_order and run.point.rate_per_s >= rate_per_s])


def certificates(points: Sequence[Point]) -> list[Certificate]:
    """One for each proven rate, highest first. A rate is proven only if all lower tested rates are."""
    runs, found = confirmation_runs(points), []
    for rate_per_s in sorted({run.point.rate_per_s for run in runs}):
        certificate = _certificate(points, [run for run in runs if run.point.rate_per_s >= rate_per_s], rate_per_s)
        if certificate is None:
            break
        found.append(certificate)
    return found[::-1]


def proven_rate_per_s(points: Sequence[Point]) -> float:
    """The highest proven rate, 0 without one."""
    return next((found.rate_per_s for found in certificates(points)), 0.0)


def least_s(points: Sequence[Point], searched_s: float) -> float:
    """How long the runs of a certificate have to last in a search that has taken `searched_s` until then."""
    limits_ms = (Slo.parse(count.slo).request_limit_ms for point in points for count in point.slos)
    answers_ms = (point.p50_ms for point in points if point.streaming and point.p50_ms and not point.stopped)
    filled_s = LEAST_LIMITS * max(*limits_ms, min(answers_ms, default=0.0), 0.0) / 1e3
    return max(min(LEAST_S, LEAST_SHARE * searched_s), filled_s, 2 * longest_violation_s(points))


def _certificate(points: Sequence[Point], runs: Sequence[Run], rate_per_s: float) -> Certificate | None:
    for count, run in enumerate(runs, start=1):
        if min(_evidence(runs[:count])) < ENOUGH_NATS:
            continue
        together = tuple(run.point for run in runs[:count] if run.in_order)
        if _lasted_s(together) >= least_s(points, run.searched_s) and _errors_within(together):
            own = tuple(point for point in together if point.rate_per_s == rate_per_s)
            return Certificate(rate_per_s, own, together)
    return None


def _gain(known: Sequence[Point], count: SloCount) -> float:
    """Of a run that is the last known point. A short one that was lucky shows few signs that slow requests come in
    runs: it counts as no more independent than all probes around it."""
    slo, run = Slo.parse(count.slo), known[-1]
    dependence = max(count.dependence, dependence_near(known, slo, run.rate_per_s) or 1.0)
    filling = run.rate_per_s * filling_s(slo, run.rate_per_s) / max(run.requests, 1)  # the share of the run
    requests = max(count.requests * (1 - filling), count.over)
    return gain(requests / dependence, count.over / dependence, slo.allowed_share)


def _errors_within(runs: Sequence[Point]) -> bool:
    """Their share of failed requests; an SLO for errors has its own evidence."""
    if any(Slo.parse(count.slo).limit_ms is None for run in runs for count in run.slos):
        return True
    return sum(run.errors for run in runs) <= DEFAULT_ERROR_SHARE * sum(run.requests for run in runs)


def _lasted_s(runs: Sequence[Point]) -> float:
    """By their schedules."""
    return sum(point.requests / point.rate_per_s for point in runs)


def _by_slo(runs: Sequence[Point]) -> list[tuple[Slo, list[SloCount]]]:
    return [
        (Slo.parse(first.slo), [count for point in runs for count in point.slos if count.slo == first.slo])
        for first in runs[0].slos
    ]
