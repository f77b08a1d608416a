"""What a search is for, what it may take, and what it needs at least."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.errors import BadRequestError
from loadtests.judge.evidence import clean_requests
from loadtests.records.point import Point
from loadtests.search.certificate import LEAST_LIMITS
from loadtests.slo import Slo, loosest_limit_ms
from loadtests.target.client import FROZEN_S

AUTO_BUDGET_S, AUTO_GAP = 600.0, 0.15
"""The most that a search may take that ends by itself, and the gap at which it does."""
EXPLORE_SHARE = 0.2
"""Of the budget: what finding the neighbourhood may take. The rest is for certificates."""
PROBE_SHARE = 0.08
"""Of the budget: the least that is worth another probe."""


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
    gap: float | None = None
    """End as soon as the proven rate lies within this share of the estimate, or the interval is this narrow; without,
    spend the budget."""
    unloaded_took_s: float = 0.0
    """What measuring `unloaded_s` took of the budget."""
    timing: Timing = Timing()

    @property
    def least_s(self) -> float:
        """The shortest budget in which a rate can be expected to be certified: at the first rate, without a miss."""
        clean_s = self.clean_requests / min(self.start_per_s, self.max_per_s)
        filled_s = LEAST_LIMITS * loosest_limit_ms(self.slos) / 1e3  # also what two short probes take that bracket it
        return filled_s + max(clean_s, filled_s) / (1 - EXPLORE_SHARE)

    @property
    def clean_requests(self) -> int:
        """So many certify a rate if none is over a limit and none depends on another."""
        return max(clean_requests(slo.allowed_share) for slo in self.slos)

    def left_s(self, points: Sequence[Point]) -> float:
        """Of the budget."""
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
