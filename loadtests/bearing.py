"""Whether the rate has a bearing on lateness at all, which every estimate of a capacity takes for granted.

A queue that is late at a rate is later at every higher one. Where probes fail at rates well below one that held, what
makes requests late comes and goes with time instead: a server that freezes, other work on its machine. Then there is no
rate to estimate. In simulated searches of queues (deterministic and exponential, 88 to 886/s, on machines that stall
as well) no probe contradicts another so; in those of a server that stands still for 1 s in every 5 or 10, 3 to 13 do.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.point import Point
from loadtests.slo import format_rate

_WELL_BELOW = 1.25
_ENOUGH = 2


def late_at_any_rate(points: Sequence[Point]) -> str:
    """What contradicts a capacity, as a sentence; empty where nothing does."""
    failed = _contradicting(points)
    if not failed:
        return ""
    lowest_per_s, held_per_s = min(point.rate_per_s for point in failed), _highest_held_per_s(points)
    return (
        f"{len(failed)} probes failed at rates down to {format_rate(lowest_per_s)}, although {format_rate(held_per_s)} "
        "held in another: what makes requests late here comes and goes with time more than with the rate, as where a "
        "server freezes or its machine does something else; the latency over time in the report shows when"
    )


def longest_until_late_s(points: Sequence[Point]) -> float:
    """How long the probes that contradict a capacity went on, at most, until they had failed; 0 without such."""
    return max((point.requests / point.rate_per_s for point in _contradicting(points)), default=0.0)


def _contradicting(points: Sequence[Point]) -> list[Point]:
    held_per_s = _highest_held_per_s(points)
    failed = [
        point
        for point in points
        if point.verdict == "fail"
        and not point.passes
        and point.stopped != "connection lost"
        and point.rate_per_s * _WELL_BELOW < held_per_s
    ]
    return failed if len(failed) >= _ENOUGH else []


def _highest_held_per_s(points: Sequence[Point]) -> float:
    return max((point.rate_per_s for point in points if point.holds), default=0.0)
