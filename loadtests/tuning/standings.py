"""What the points of the measured configurations show, and what the ranking learns from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from loadtests.records.point import Point
from loadtests.tuning.arm import Arm
from loadtests.tuning.objective import Objective, Standing
from loadtests.tuning.ranking import Ranking
from loadtests.tuning.space import Configuration

_JUST_MISSED = 0.97
"""Of the lowest rate that a challenger missed: what it is worth at most."""

_STREAK = 3
"""Points in a row that contradict an estimate near their rates."""


@dataclass
class Standings:
    """The arms of a race, and how good each is."""

    objective: Objective
    ranking: Ranking
    arms: dict[Configuration, Arm] = field(default_factory=dict)
    _known: dict[tuple[Configuration, int, int | None], Standing | None] = field(default_factory=dict)

    def of(self, configuration: Configuration, *, recent: int | None = None) -> Standing | None:
        """How good a configuration is by its points, or by as few of the latest as show it, `recent` at least.

        The latest are those of the race: a confirmation's are at lower rates, which say little of the highest.
        """
        arm = self.arms.get(configuration)
        if arm is None:
            return None
        key = (configuration, len(arm.points), recent)
        if key not in self._known:
            points = [point for point in arm.points if recent is None or point.phase != "confirm"]
            count = min(recent or len(points), len(points))
            found = self.objective.standing(configuration, points[-count:])
            while found is None and count < len(points):
                count *= 2
                found = self.objective.standing(configuration, points[-count:])
            self._known[key] = found
        return self._known[key]

    def met_worth(self, configuration: Configuration) -> float:
        """The highest rate that it met, as the objective counts it; 0 without one."""
        points = self.arms[configuration].points if configuration in self.arms else []
        return self.objective.scaled(
            configuration, max((each.rate_per_s for each in points if each.meets_slo), default=0.0)
        )

    def met_all(self, configuration: Configuration) -> bool:
        """Whether a higher rate is worth a probe."""
        points = self._usable(configuration)
        return self.objective.at_rate_per_s is None and bool(points) and all(point.meets_slo for point in points)

    def streak(self, configuration: Configuration) -> list[Point]:
        """Its last three points where all three met the SLOs or none did; else none."""
        last = self._usable(configuration)[-_STREAK:]
        return last if len(last) == _STREAK and len({point.meets_slo for point in last}) == 1 else []

    def missed_per_s(self, configuration: Configuration) -> float:
        """The lowest rate that it missed by more than chance; infinite without one."""
        return min((point.rate_per_s for point in self.arms[configuration].points if _refused(point)), default=math.inf)

    def learn(self, configuration: Configuration) -> None:
        """What its points show. Without a standing it met all rates, the highest of which counts, or none: then its
        capacity lies below the lowest, and hardly above what it answered meanwhile; its latency at the rate of the
        objective is the longest that was seen. Where the generator spoilt all of them, nothing is learnt."""
        points = self._usable(configuration)
        if (standing := self.of(configuration)) is not None:
            self.ranking.learn(configuration, standing.value)
        elif self.objective.at_rate_per_s is not None:
            longest_ms = max((point.p99_ms for point in points if point.p99_ms), default=None)
            if longest_ms is None:
                self.ranking.fail(configuration, "no latency could be measured")
            else:
                self.ranking.learn(configuration, 1 / longest_ms)
        elif not points:
            self.ranking.learn(configuration, self.ranking.expected(configuration))
        else:
            below_per_s = min(min(point.achieved_per_s, _JUST_MISSED * point.rate_per_s) for point in points)
            below = self.objective.scaled(configuration, below_per_s)
            self.ranking.learn(configuration, self.met_worth(configuration) or below)

    def _usable(self, configuration: Configuration) -> list[Point]:
        return [point for point in self.arms[configuration].points if point.usable]


def _refused(point: Point) -> bool:
    """Whether a probe shows that its rate is too high, by more than chance."""
    return point.usable and any(count.verdict == "fail" for count in point.counts)
