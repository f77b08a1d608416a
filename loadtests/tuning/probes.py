"""How a race asks: probes of a few seconds and whole searches, each with a number and arrivals of its own or shared."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass, replace

from loadtests.records.point import Phase, Point, Probe
from loadtests.search.budget import AUTO_GAP, Plan
from loadtests.search.search import search
from loadtests.tuning.arm import Answer, Arm, FailedError, Turn
from loadtests.tuning.space import Configuration
from loadtests.tuning.standings import Standings
from loadtests.workload.schedule import probe_seed

_PROBE_SHARE, _LONGEST_S = 0.008, 8.0
"""Of a probe: of the budget, and in seconds."""
_KNOWN = 8
"""Points that a search begins with, the latest: machines drift."""


@dataclass
class Probes:
    """The turns so far, and the time that they took. Each method raises FailedError for a configuration that does not
    serve."""

    plan: Plan
    standings: Standings
    turns: int = 0
    spent_s: float = 0.0

    def search(
        self, configuration: Configuration, start_per_s: float, budget_s: float
    ) -> Generator[Turn, Answer, None]:
        """`loadtests.search`, for so many seconds more, until a rate near the estimate is proven."""
        known = self.standings.arms.setdefault(configuration, Arm(configuration)).points[-_KNOWN:]
        plan = replace(
            self.plan, start_per_s=start_per_s, budget_s=budget_s + sum(point.took_s for point in known), gap=AUTO_GAP
        )
        searching = search(plan, tuple(known))
        with contextlib.suppress(StopIteration):
            probe = next(searching)
            while True:
                point = yield from self._ask(configuration, probe)
                probe = searching.send(point)

    def probe(
        self, configuration: Configuration, rate_per_s: float, *, draw: int | None = None
    ) -> Generator[Turn, Answer, Point]:
        """Of a few seconds; what the generator spoilt is repeated once. Probes of the same `draw` get the same arrivals
        and payloads; None is a draw of its own."""
        phase: Phase = "refine"
        requests = max(round(rate_per_s * self.probe_s), 8)
        probe = Probe(0, phase, rate_per_s, requests, 0, max(self.left_s, self.plan.short_s))
        point = yield from self._ask(configuration, probe, draw)
        return point if point.usable else (yield from self._ask(configuration, probe, draw))

    def _ask(
        self, configuration: Configuration, probe: Probe, draw: int | None = None
    ) -> Generator[Turn, Answer, Point]:
        """One turn, with a number of its own. Raises FailedError where the configuration does not serve."""
        number = self.turns
        self.turns += 1
        seed = probe_seed(self.plan.seed, number if draw is None else draw)
        seeded = Probe(number, probe.phase, probe.rate_per_s, probe.requests, seed, probe.until_s)
        answer = yield Turn(configuration, seeded)
        self.spent_s += answer.took_s
        arm = self.standings.arms.setdefault(configuration, Arm(configuration))
        if answer.point is None:
            self.standings.ranking.fail(configuration, answer.failure)
            arm.outcome = answer.failure
            raise FailedError(configuration, answer.failure)
        arm.points.append(answer.point)
        return answer.point

    @property
    def probe_s(self) -> float:
        """How long one probe lasts."""
        return max(self.plan.short_s, min(_PROBE_SHARE * self.plan.budget_s, _LONGEST_S))

    @property
    def left_s(self) -> float:
        """The time left of the budget."""
        return self.plan.budget_s - self.spent_s
