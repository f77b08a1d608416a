"""The turns and answers of a race, and the arm of each configuration that was measured."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from loadtests.records.point import Point, Probe
from loadtests.tuning.space import Configuration


@dataclass(frozen=True)
class Turn:
    """What to measure next, on a server with this configuration."""

    configuration: Configuration
    probe: Probe


@dataclass(frozen=True)
class Answer:
    """A point, or why there is none: the server did not start, or died."""

    took_s: float
    """Of the budget, starting a server included."""
    point: Point | None = None
    failure: str = ""


Racing = Generator[Turn, Answer, None]


@dataclass
class Arm:
    """One configuration that was measured."""

    configuration: Configuration
    points: list[Point] = field(default_factory=list)
    outcome: str = ""
    """How its race ended, in words."""
    final: list[Point] = field(default_factory=list)
    """Of `points`: those of the last turns, which fresh seeds made."""


class FailedError(Exception):
    """A configuration does not serve."""

    def __init__(self, configuration: Configuration, reason: str) -> None:
        super().__init__(reason)
        self.configuration = configuration
