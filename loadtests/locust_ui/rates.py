"""The rates of one test in Locust's page, and the capacity estimated from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtests.records.point import Point
from loadtests.results.result import summarise
from loadtests.slo import Slo

_FEWEST_REQUESTS = 50
"""Fewer come together while the rate still rises."""


class Rates:
    """The latest point of each rate."""

    def __init__(self) -> None:
        self._points: dict[float, Point] = {}

    def add(self, point: Point) -> None:
        """Replaces what was known of its rate."""
        if point.requests >= _FEWEST_REQUESTS:
            self._points[point.rate_per_s] = point

    def capacity(self, slos: Sequence[Slo]) -> dict[str, Any] | None:
        """The estimate with its 95 % interval, as JSON; None until there are rates enough on both sides of it.

        Nothing is proven here: who looks every second sees chance, too.
        """
        points = list(self._points.values())
        found = summarise(points, slos, model="", server="", base_seed=0)
        if found.capacity_estimate_per_s is None:
            return None
        return {
            "estimate_per_s": found.capacity_estimate_per_s,
            "interval_per_s": found.capacity_estimate_interval_per_s,
            "rates": len(points),
        }
