"""The measures of streamed answers that a report shows, and which of the server's figures belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import get_args

from loadtests.records.point import Point
from loadtests.results.result import CapacityResult
from loadtests.slo import Measure

_NAMES: dict[Measure, str] = {"": "latency", "ttft": "TTFT", "itl": "ITL", "gap": "longest gap"}
_OF_SEQUENCES: dict[Measure, str] = {"": "latency of the last request", "gap": "latency of the slowest request"}
_COVERED = 0.5
"""Of the mean latency: Triton's own times are those of whole answers where they make up so much of it."""


def names(result: CapacityResult) -> Mapping[Measure, str]:
    """What readers see."""
    return _OF_SEQUENCES if result.unit == "sequences" else _NAMES


def streamed(result: CapacityResult) -> bool:
    """Whether any answer came in parts."""
    return any(point.streaming for point in result.points)


def measures(result: CapacityResult) -> list[Measure]:
    """The measures in pictures: those with a limit, of streams also TTFT and ITL, of sequences the slowest request."""
    shown = {slo.measure for slo in result.slos if slo.limit_ms is not None}
    shown |= {"ttft", "itl"} if streamed(result) else set()
    shown |= {"gap"} if result.unit == "sequences" else set()
    return [each for each in get_args(Measure) if each in shown]


def limited_measures(result: CapacityResult) -> list[Measure]:
    """The measures with a limit, the one that decides the capacity first."""
    limited = [slo.measure for slo in result.slos if slo.limit_ms is not None]
    decides = result.decided_by
    return list(dict.fromkeys([*([decides.measure] if decides and decides.limit_ms is not None else []), *limited]))


def without_empty_times(result: CapacityResult) -> CapacityResult:
    """The result without queue, compute and batch of probes where Triton's statistics say nothing about the answers.

    A model that answers from threads of its own returns from `execute` at once, and Triton's times end there.
    """
    return replace(result, points=tuple(point if _covered(point) else _untimed(point) for point in result.points))


def _covered(point: Point) -> bool:
    if point.streaming is None or point.mean_ms is None:
        return point.streaming is None
    return (point.queue_ms or 0.0) + (point.compute_ms or 0.0) >= _COVERED * point.mean_ms


def _untimed(point: Point) -> Point:
    return replace(point, queue_ms=None, compute_ms=None, mean_batch=None, steps=())
