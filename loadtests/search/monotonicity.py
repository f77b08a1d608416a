"""Check that SLO violations increase with the request rate. If they do not, no capacity estimate is given.

A queue that is late at a rate is later at every higher one. Where probes fail well below a rate that was met, what
makes requests late comes and goes with time: a server that freezes, other work on its machine. In simulated
searches of queues (deterministic and exponential, 88 to 886/s, on machines that stall as well) no probe violates this.
In those of a server that stands still for 1 s in every 5 or 10, 3 to 13 probes do.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.records.point import Point
from loadtests.slo import format_rate

_WELL_BELOW = 1.25
"""How far a failed rate lies below one that was met: nearer, chance explains it."""


def monotonicity_violation(points: Sequence[Point]) -> str:
    """What contradicts a capacity, as a sentence; empty where nothing does."""
    failed = _violations(points)
    if not failed:
        return ""
    lowest_per_s, met_per_s = min(point.rate_per_s for point in failed), _highest_met_per_s(points)
    return (
        f"{len(failed)} probes failed at rates down to {format_rate(lowest_per_s)}, although another met the SLO at "
        f"{format_rate(met_per_s)}. Latency depends more on time than on the rate here, as when a server freezes or "
        "its machine does other work; see the latency over time in the report"
    )


def longest_violation_s(points: Sequence[Point]) -> float:
    """How long the longest of the probes that contradict a capacity ran until it had failed; 0 without such."""
    return max((point.requests / point.rate_per_s for point in _violations(points)), default=0.0)


def _violations(points: Sequence[Point]) -> list[Point]:
    """The probes that failed well below a rate that was met; none where it is a single one, which chance explains."""
    met_per_s = _highest_met_per_s(points)
    failed = [
        point
        for point in points
        if point.verdict == "fail"
        and not point.passes
        and point.stopped != "connection lost"
        and point.rate_per_s * _WELL_BELOW < met_per_s
    ]
    return failed if len(failed) > 1 else []


def _highest_met_per_s(points: Sequence[Point]) -> float:
    return max((point.rate_per_s for point in points if point.meets_slo), default=0.0)
