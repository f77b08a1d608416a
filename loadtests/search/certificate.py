"""Which rates are certified: the confirmation runs at a rate, judged together.

A confirmation is one run, or two with different seeds when the first ends undecided. Two runs can err twice, so each is
judged at 99.5 %: together they certify a rate that is not met at most one time in a hundred.

The statistics know nothing of what happens every few seconds: between two freezes of a server a short run is clean,
however many requests it has. So the runs of a certificate last ten seconds together, or an eighth of the search until
then where that is shorter, and eight times the largest limit: a queue that grows slowly takes its time to pass it. What
happens more rarely than that they cannot show. Where other probes show that lateness comes and goes with time, they
last twice as long as the longest of these took to show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.judge.verdict import CONFIRMATION_CONFIDENCE, CONFIRMATION_RUNS, judge_counts, requests_to_pass
from loadtests.records.point import Point, SloCount
from loadtests.search.monotonicity import longest_violation_s
from loadtests.slo import Slo

LEAST_S, LEAST_SHARE = 10.0, 1 / 8
"""The runs of a certificate last so long, or that share of the search: freezes come every few seconds."""
LEAST_LIMITS = 8.0
"""And so many times the largest limit: a queue that grows slowly takes its time to pass it."""


@dataclass(frozen=True)
class Certificate:
    """A rate that passed, and the probes it rests on."""

    rate_per_s: float
    points: tuple[Point, ...]

    @property
    def requests(self) -> int:
        return sum(point.requests for point in self.points)

    @property
    def seconds(self) -> float:
        """How long the confirmation ran."""
        return _lasted_s(self.points)

    def describe(self) -> str:
        """What was seen: how many over each limit."""
        parts = []
        for slo, counts in _by_slo(self.points):
            over, requests = sum(count.over for count in counts), sum(count.requests for count in counts)
            parts.append(f"{over:,} of {requests:,} {slo.late} ({over / requests * 100:.2f} %)")
        return ", ".join(parts)


def certificates(points: Sequence[Point]) -> list[Certificate]:
    """Of all rates that are certified, highest first."""
    rates = {point.rate_per_s for point in points if point.phase == "confirm"}
    found = (_certificate(points, rate_per_s) for rate_per_s in sorted(rates, reverse=True))
    return [certificate for certificate in found if certificate is not None]


def is_certified(points: Sequence[Point], rate_per_s: float) -> bool:
    return _certificate(points, rate_per_s) is not None


def missing_requests(points: Sequence[Point], rate_per_s: float) -> int:
    """About how many more would certify the rate if the share over the limit stays; 0 when none can or need be."""
    runs = _confirmation_runs(points, rate_per_s)
    if not runs or len(runs) >= CONFIRMATION_RUNS or not _in_order(runs) or _passes(runs):
        return 0
    missing = 0
    for slo, counts in _by_slo(runs):
        requests, over = (sum(values) for values in zip(*((c.requests, c.over) for c in counts), strict=True))
        factor = requests / sum(count.requests / count.dependence for count in counts)
        needed = requests_to_pass(requests, over, slo.allowed_share, factor, CONFIRMATION_CONFIDENCE)
        if needed is None:
            return 0
        missing = max(missing, needed - requests)
    return missing


def _certificate(points: Sequence[Point], rate_per_s: float) -> Certificate | None:
    runs = _confirmation_runs(points, rate_per_s)
    for count in range(1, len(runs) + 1):
        together = runs[:count]
        searched_s = sum(point.took_s for point in points[: points.index(together[-1]) + 1])
        if _in_order(together) and _passes(together) and _lasted_s(together) >= least_s(points, searched_s):
            return Certificate(rate_per_s, together)
    return None


def _lasted_s(runs: Sequence[Point]) -> float:
    """By their schedules."""
    return sum(point.requests / point.rate_per_s for point in runs)


def least_s(points: Sequence[Point], searched_s: float) -> float:
    """How long the runs of a certificate have to last in a search that has taken `searched_s` until then."""
    limits_ms = (Slo.parse(count.slo).limit_ms or 0.0 for point in points for count in point.slos)
    filled_s = LEAST_LIMITS * max(limits_ms, default=0.0) / 1e3
    return max(min(LEAST_S, LEAST_SHARE * searched_s), filled_s, 2 * longest_violation_s(points))


def _confirmation_runs(points: Sequence[Point], rate_per_s: float) -> tuple[Point, ...]:
    """The valid confirmation runs at a rate."""
    at_rate = (point for point in points if point.phase == "confirm" and point.rate_per_s == rate_per_s)
    return tuple(point for point in at_rate if point.verdict != "invalid")[:CONFIRMATION_RUNS]


def _in_order(runs: Sequence[Point]) -> bool:
    """Nothing but the number of requests stands against any of them."""
    return all(point.passes and not point.stopped for point in runs)


def _passes(runs: Sequence[Point]) -> bool:
    if len(runs) == 1:
        return runs[0].verdict == "pass"
    for slo, counts in _by_slo(runs):
        requests = sum(count.requests / count.dependence for count in counts)
        over = sum(count.over / count.dependence for count in counts)
        if judge_counts(requests, over, slo.allowed_share, confidence=CONFIRMATION_CONFIDENCE) != "pass":
            return False
    return True


def _by_slo(runs: Sequence[Point]) -> list[tuple[Slo, list[SloCount]]]:
    return [
        (Slo.parse(first.slo), [count for point in runs for count in point.slos if count.slo == first.slo])
        for first in runs[0].slos
    ]
