"""The plan of a search: its SLOs, its budget, and the shortest budget that it needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.errors import BadRequestError
from loadtests.judge.evidence import clean_requests
from loadtests.judge.sample import SHARED
from loadtests.records.point import Point
from loadtests.search.observations import LEAST_LIMITS, filling_s
from loadtests.slo import Slo, loosest_limit_ms
from loadtests.target.client import FROZEN_S

AUTO_BUDGET_S, AUTO_GAP = 600.0, 0.15
"""The most that a search may take that ends by itself, and the gap at which it does."""
EXPLORE_SHARE = 0.2
"""Of the budget: what finding the neighbourhood may take. The rest is for certificates."""
PROBE_SHARE = 0.08
"""Of the budget: the least that is worth another probe."""
_QUEUE_LIMITS = 4.0
"""A probe lasts so many times the largest limit: in less, a queue that grows has not grown beyond the limit."""


def most_clean_requests(slos: Sequence[Slo]) -> int:
    """So many independent requests within the limits prove a rate, for the strictest of the SLOs."""
    return max(clean_requests(slo.allowed_share) for slo in slos)


def clean_s(slos: Sequence[Slo], rate_per_s: float, lasting_s: float) -> float:
    """How long those take at a rate; `lasting_s` is `Plan.lasting_s`."""
    return most_clean_requests(slos) * max(1 / rate_per_s, SHARED * lasting_s)


def least_budget_s(slos: Sequence[Slo], rate_per_s: float, filled_s: float, lasting_s: float) -> float:
    """The shortest budget in which that rate can be expected to be proven. `filled_s` is `Plan.filled_s`."""
    needed_s = clean_s(slos, rate_per_s, lasting_s) + max(filling_s(slo, rate_per_s) for slo in slos)
    return filled_s + max(needed_s, filled_s) / (1 - EXPLORE_SHARE)


@dataclass(frozen=True)
class Timing:
    """How long probes last at least and what a search waits for, apart from its budget."""

    shortest_probe_s: float = 1.0
    """Enough for a backlog to show."""
    cpu_sample_s: float = 0.4
    """How long the CPUs' use is measured before the first request."""
    cooldown_s: float = 1.0
    """After the last measured request, and the largest limit besides: so long the load is kept up."""
    counted_s: float = 0.05
    """Triton counts a request a moment after it has answered it."""
    drain_s: float = 15.0
    """After a probe that was stopped early, until the server is idle again. One that gives no good answer until then
    hangs or has broken."""
    frozen_s: float = FROZEN_S
    """So long a server may take for its statistics."""


@dataclass(frozen=True)
class Plan:
    """What to search for. `budget_s` is what probes may take together."""

    slos: tuple[Slo, ...]
    start_per_s: float
    seed: int
    budget_s: float = 180.0
    tolerance: float = 0.03
    max_per_s: float = math.inf
    unloaded_s: float = 0.0
    """What a request takes alone: so much the last probe may run over."""
    answer_s: float = 0.0
    """What an answer in parts takes under load; 0 where each comes at once."""
    sequence_s: float = 0.0
    """The mean sequence, from its first request to its last; 0 where each request is one by itself."""
    gap: float | None = None
    """End as soon as the proven rate lies within this share of the estimate, or the interval is this narrow; without,
    spend the budget."""
    unloaded_took_s: float = 0.0
    """What measuring `unloaded_s` took of the budget."""
    timing: Timing = Timing()

    @property
    def short_s(self) -> float:
        """How long a probe lasts at least: a backlog shows, and as many streams or sequences run at once as ever
        will."""
        queue_s = _QUEUE_LIMITS * loosest_limit_ms(self.slos) / 1e3
        return max(self.timing.shortest_probe_s, queue_s, self.answer_s, self.sequence_s)

    @property
    def filled_s(self) -> float:
        """How long the runs of a certificate last at least; so long take two short probes that bracket it as well."""
        return LEAST_LIMITS * max(loosest_limit_ms(self.slos) / 1e3, self.lasting_s)

    @property
    def lasting_s(self) -> float:
        """How long an answer in parts takes alone, or a sequence lasts; 0 where each request has one answer at once."""
        return self.unloaded_s if self.answer_s else self.sequence_s

    @property
    def least_s(self) -> float:
        """The shortest budget in which a rate can be expected to be proven: at the first rate, without a miss."""
        return least_budget_s(self.slos, min(self.start_per_s, self.max_per_s), self.filled_s, self.lasting_s)

    def left_s(self, points: Sequence[Point]) -> float:
        """The time left of the budget."""
        return self.budget_s - self.unloaded_took_s - sum(point.took_s for point in points)

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise BadRequestError(
                f"tolerance {self.tolerance:g} must lie between 0 and 1, as in 0.03 for 3 %", field="tolerance"
            )
        if self.gap is not None and not 0 < self.gap < 1:
            raise BadRequestError(f"gap {self.gap:g} must lie between 0 and 1, as in 0.15 for 15 %", field="gap")
        if not self.budget_s > 0:
            raise BadRequestError(f"budget {self.budget_s:g} s must be above zero", field="budget_s")
        if not (self.start_per_s > 0 and self.max_per_s > 0):
            raise BadRequestError(
                "start and maximum rate must be above zero",
                field="start_per_s" if not self.start_per_s > 0 else "max_per_s",
            )
