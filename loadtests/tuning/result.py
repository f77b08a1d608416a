"""The result of a tuning run: every configuration with its prediction, and its measurement or why it has none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtests.search.certificate import certificates
from loadtests.slo import about_ms, format_rate
from loadtests.tuning.race import Race
from loadtests.tuning.space import COMMITTED, Configuration


@dataclass(frozen=True)
class Row:
    """One configuration. Values are in the objective's unit; None means not known."""

    configuration: str
    changes: Mapping[str, Mapping[str, Any]]
    predicted: float | None
    measured: float | None
    low: float | None
    high: float | None
    proven_per_s: float | None
    probes: int
    outcome: str
    """How its race ended, or why it had none."""


@dataclass(frozen=True)
class TuningResult:
    """`rows` has the winner, then the other measured configurations by value, then the others by prediction."""

    model: str
    slo: str
    objective: str
    unit: str
    winner: str
    changes: Mapping[str, Mapping[str, Any]]
    """Of the winner against the committed configuration; empty where that is the best."""
    gain: tuple[float, float, float] | None
    """The winner's value over the committed one's, and its 95 % interval."""
    gain_shown: bool
    """Whether the winner's gain is more than chance: its interval lies above 1, or the committed one meets no SLO."""
    meets_slo: bool
    """Whether any configuration met the SLOs."""
    nearest: str
    """Where none did: the one that came nearest, in words."""
    rows: tuple[Row, ...]
    left_out: tuple[tuple[str, str], ...]
    """What of the space was not tried, and why."""
    bottleneck: str
    error: float
    """The predictions' standard error, as a share."""
    seed: int
    budget_s: float
    spent_s: float
    ended: str
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarise(
    race: Race,
    *,
    model: str,
    objective: str,
    bottleneck: str,
    left_out: Sequence[tuple[str, str]] = (),
    failures: Mapping[Configuration, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    ended: str = "",
) -> TuningResult:
    """`failures` are configurations that failed before the race."""
    rows = [_row(race, each.configuration, failures or {}) for each in race.ranking.predictions]
    winner = str(race.leader)
    rows.sort(
        key=lambda row: (
            row.configuration != winner, row.probes == 0, -_order(race, row.measured), -(row.predicted or 0.0)
        )
    )  # fmt: skip
    met = any(race.standing(configuration) is not None for configuration in race.arms)
    return TuningResult(
        model=model,
        slo=", ".join(map(str, race.plan.slos)),
        objective=objective,
        unit=race.objective.unit,
        winner=winner,
        changes=race.leader.to_json(),
        gain=(gain := race.gain()),
        gain_shown=race.leader != COMMITTED and (gain[1] > 1 if gain else race.standing(COMMITTED) is None),
        meets_slo=met,
        nearest="" if met else _nearest(race),
        rows=tuple(rows),
        left_out=tuple(left_out),
        bottleneck=bottleneck,
        error=race.ranking.error,
        seed=race.plan.seed,
        budget_s=race.plan.budget_s,
        spent_s=race.probes.spent_s,
        ended=ended or race.ended,
        settings=settings or {},
    )


def _row(race: Race, configuration: Configuration, failures: Mapping[Configuration, str]) -> Row:
    score = race.objective.score
    arm, standing = race.arms.get(configuration), race.standing(configuration)
    expected = race.ranking.expected(configuration)
    proven = next(iter(certificates(arm.points)), None) if arm else None
    low, high = (standing.low, standing.high) if standing else (None, None)
    ends: list[float | None] = [*sorted(score(end) for end in (low, high) if end is not None)] or [None, None]
    return Row(
        str(configuration),
        configuration.to_json(),
        score(expected) if expected > 0 else None,
        score(standing.value) if standing else None,
        ends[0],
        ends[1],
        proven.rate_per_s if proven else None,
        len(arm.points) if arm else 0,
        _outcome(race, configuration, failures),
    )


def _outcome(race: Race, configuration: Configuration, failures: Mapping[Configuration, str]) -> str:
    arm = race.arms.get(configuration)
    if configuration == race.leader and race.standing(configuration) is not None:
        return "the best"
    if arm is not None:
        if race.standing(configuration) is None and not arm.outcome:
            return "misses the SLO at every rate tried"
        return arm.outcome or ("the start" if configuration == COMMITTED else "its race did not end")
    if configuration in failures:
        return failures[configuration]
    if reason := race.ranking.why_not(configuration):
        return reason
    expected = race.ranking.expected(configuration)
    if not expected > 0:
        return "not predicted: there was no time"
    if (like := race.ranking.equals(configuration)) is not None:
        return f"predicted like {like}"
    leading = race.standing(race.leader)
    if leading is not None and race.ranking.possible(configuration) < leading.value:
        return f"predicted {1 - expected / leading.value:.0%} below the best, beyond the model's error"
    return race.ended or "predicted like another contender"


def _nearest(race: Race) -> str:
    """The configuration and rate with the lowest latency at the SLO's percentile, of all that missed it."""
    seen = [
        (point.p99_ms, point.rate_per_s, arm.configuration)
        for arm in race.arms.values()
        for point in arm.points
        if point.p99_ms is not None
    ]
    if not seen:
        return ""
    p99_ms, rate_per_s, configuration = min(seen, key=lambda each: each[0])
    return f"{configuration}, whose p99 is {about_ms(p99_ms)} at {format_rate(rate_per_s)}"


def _order(race: Race, measured: float | None) -> float:
    if measured is None:
        return -math.inf
    return -measured if race.objective.at_rate_per_s is not None else measured
