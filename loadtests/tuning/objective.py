"""What makes one configuration better than another: its capacity, its capacity a core, or its latency at a rate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.errors import BadRequestError
from loadtests.records.point import Point
from loadtests.search.estimate import estimate
from loadtests.slo import Slo
from loadtests.tuning.space import Configuration

_DRIFT = 0.08
"""Standard deviation in ln(p99) between two probes of one server, besides what they show themselves."""


@dataclass(frozen=True)
class Standing:
    """How good a configuration is, with its 95 % interval; more is better."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Objective:
    """`rate`, `cost` or `latency-at=RATE`, under the SLOs."""

    slos: tuple[Slo, ...]
    at_rate_per_s: float | None = None
    """The rate at which the latency counts; None where the rate itself does."""
    cores: Callable[[Configuration], float] | None = None
    """The cores that a configuration keeps; None where they cost nothing."""

    @classmethod
    def parse(cls, text: str, slos: Sequence[Slo], cores: Callable[[Configuration], float] | None = None) -> Objective:
        """Raises BadRequestError that quotes what is not understood."""
        name, _, value = text.partition("=")
        if name == "latency-at":
            try:
                rate_per_s = float(value.removesuffix("/s"))
            except ValueError:
                rate_per_s = math.nan
            if math.isfinite(rate_per_s) and rate_per_s > 0:
                return cls(tuple(slos), rate_per_s)
        elif text in ("rate", "cost"):
            return cls(tuple(slos), None, cores if text == "cost" else None)
        raise BadRequestError(
            f"objective {text!r} is not understood: write rate, cost or latency-at=RATE",
            field="objective",
        )

    @property
    def unit(self) -> str:
        """The unit of `score`."""
        if self.at_rate_per_s is not None:
            return f"ms p99 at {self.at_rate_per_s:g}/s"
        return "requests/s a core" if self.cores else "requests/s"

    def score(self, standing_value: float) -> float:
        """The value as a person reads it."""
        return 1 / standing_value if self.at_rate_per_s is not None else standing_value

    def scaled(self, configuration: Configuration, capacity_per_s: float) -> float:
        """What a rate is worth."""
        return capacity_per_s / self.cores(configuration) if self.cores else capacity_per_s

    def standing(self, configuration: Configuration, points: Sequence[Point]) -> Standing | None:
        """From all points of a configuration; None as long as they do not show it."""
        if self.at_rate_per_s is not None:
            return _by_latency([point for point in points if point.usable and point.p99_ms])
        worth = self.scaled(configuration, 1.0)
        fitted = estimate(points, self.slos)
        if fitted is None:
            return _bracketed(points, worth)
        return Standing(fitted.rate_per_s * worth, fitted.low_per_s * worth, fitted.high_per_s * worth)


def _bracketed(points: Sequence[Point], worth: float) -> Standing | None:
    """Between the lowest rate that was not met and the highest met below it. A server that falls behind may have no
    late request yet, and then no estimate can be fitted."""
    refused = min((point.rate_per_s for point in points if point.usable and not point.passes), default=math.inf)
    met = max((point.rate_per_s for point in points if point.meets_slo and point.rate_per_s < refused), default=0.0)
    if not met or math.isinf(refused):
        return None
    return Standing(math.sqrt(met * refused) * worth, met * worth, refused * worth)


def _by_latency(points: Sequence[Point]) -> Standing | None:
    """1 / p99 in ms: two probes at least, whose spread and the usual drift make the interval. None where the SLOs are
    missed in most of them."""
    if len(points) < 2 or 2 * sum(point.meets_slo for point in points) < len(points):
        return None
    logs = [math.log(point.p99_ms) for point in points if point.p99_ms]
    error = 2 * math.sqrt((statistics.variance(logs) + _DRIFT**2) / len(logs))
    middle = -statistics.fmean(logs)
    return Standing(math.exp(middle), math.exp(middle - error), math.exp(middle + error))
