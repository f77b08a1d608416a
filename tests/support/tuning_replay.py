"""A race on a recorded table: probes are answered as a server of the recorded capacity would on a drifting machine."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from loadtests.judge.judge import evaluate
from loadtests.records.point import Point, Probe
from loadtests.records.record import NOT_SENT, UNANSWERED, Outcome, Record
from loadtests.search.budget import Plan
from loadtests.search.confirmation import early_stop_threshold
from loadtests.slo import Slo
from loadtests.tuning.arm import Answer, Turn
from loadtests.tuning.objective import Objective
from loadtests.tuning.race import Race
from loadtests.tuning.ranking import Prediction, Ranking
from loadtests.tuning.space import COMMITTED, Configuration

TABLES = Path(__file__).parents[1] / "loadtests" / "tuning" / "tables"
PROBES_A_CAPACITY = 8
"""What one capacity takes when every configuration is measured: a bracket and a bisection to 3 %."""
DRIFT = 0.03
START_S, OVERHEAD_S = 5.0, 0.3


@dataclass(frozen=True)
class Table:
    """A grid: capacity and prediction of each configuration, in requests/s."""

    capacity_per_s: dict[Configuration, float]
    predictions: list[Prediction]

    @classmethod
    def read(cls, name: str) -> Table:
        rows = json.loads((TABLES / f"{name}.json").read_text())
        named = [(Configuration.from_json(changes), capacity, predicted) for changes, capacity, predicted in rows]
        return cls(
            {configuration: capacity for configuration, capacity, _ in named},
            [Prediction(configuration, predicted) for configuration, _, predicted in named],
        )

    @property
    def best_per_s(self) -> float:
        return max(self.capacity_per_s.values())

    @property
    def grid_probes(self) -> int:
        return PROBES_A_CAPACITY * len(self.capacity_per_s)


@dataclass
class Replay:
    """Answers the turns of a race from a table."""

    table: Table
    slo: Slo
    failing: dict[Configuration, str] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)

    def race(self, *, budget_s: float = 600.0, seed: int = 0, confirm: bool = True) -> Race:
        """Run to its end, or until the winner is to be confirmed."""
        start_per_s = 0.7 * self.table.predictions[0].value
        plan = Plan((self.slo,), start_per_s, seed, budget_s)
        race = Race(Objective((self.slo,)), Ranking(self.table.predictions), plan)
        running = race.run()
        try:
            turn = next(running)
            while confirm or turn.probe.phase == "refine":
                self.turns.append(turn)
                turn = running.send(self.answer(turn))
        except StopIteration:
            pass
        return race

    def answer(self, turn: Turn) -> Answer:
        if reason := self.failing.get(turn.configuration):
            return Answer(START_S, None, reason)
        begun = any(earlier.configuration == turn.configuration for earlier in self.turns[:-1])
        point = point_at(turn.probe, self.slo, self.table.capacity_per_s[turn.configuration])
        return Answer(point.took_s + (0.0 if begun else START_S), point)


def point_at(probe: Probe, slo: Slo, capacity_per_s: float) -> Point:
    """Late requests as the log-odds rule of `loadtests.search.estimate` has them, with a factor of the probe's own."""
    rng = np.random.default_rng(probe.seed)
    drifted = max(capacity_per_s, 0.1) * math.exp(rng.normal(0, DRIFT))
    intended_s = np.cumsum(rng.exponential(1 / probe.rate_per_s, probe.requests))
    limit_s = (slo.limit_ms or 0.0) / 1e3
    slope = max(1.4 * drifted * limit_s, 5.0)
    odds = math.log(slo.allowed_share / (1 - slo.allowed_share)) + slope * math.log(probe.rate_per_s / drifted)
    late = rng.random(probe.requests) < 1 / (1 + math.exp(-min(max(odds, -50), 50)))
    done_s = intended_s + np.where(late, 1.5, 0.5) * limit_s
    status, stopped, wall_s = np.zeros(probe.requests, np.uint8), "", float(done_s.max())
    most = early_stop_threshold(probe, slo)
    if late.sum() >= most:
        wall_s, stopped = float(np.sort(done_s[late])[most - 1]), "hopeless"
        status[done_s > wall_s] = UNANSWERED
        status[intended_s > wall_s] = NOT_SENT
        done_s = np.where(status == 0, done_s, np.nan)
    record = Record(intended_s, intended_s, done_s, status)
    return evaluate(probe, record, Outcome(wall_s, 0.0, stopped, 0.0), [slo], took_s=wall_s + OVERHEAD_S)


def random_search(table: Table, probes: int, rng: np.random.Generator) -> float:
    """The best capacity among as many random configurations as these probes can measure, drift included."""
    names = list(table.capacity_per_s)
    chosen = [names[at] for at in rng.permutation(len(names))[: max(probes // PROBES_A_CAPACITY, 1)]]
    return table.capacity_per_s[max(chosen, key=lambda each: _seen(table, each, rng))]


def quick_search(table: Table, probes: int, rng: np.random.Generator) -> float:
    """Model Analyzer's quick search on the table: a hill climb over the batch size (powers of two) and the instances,
    from the smallest; the neighbours within one step are measured, the best becomes the new home, until home stays. All
    other knobs keep their committed values, since that search does not vary them.
    """
    axes: dict[tuple[str, str], list[object]] = {}
    for model, knob in sorted({(m, k) for each in table.capacity_per_s for m, k, _ in each.changes}):
        if knob in ("instances", "preferred"):
            seen = {value for each in table.capacity_per_s for m, k, value in each.changes if (m, k) == (model, knob)}
            axes[model, knob] = [*sorted(seen, key=float), None]  # None: as committed
    known: dict[tuple[int, ...], float] = {}

    def measured(at: tuple[int, ...]) -> float:
        if at not in known:
            if (len(known) + 1) * PROBES_A_CAPACITY > probes and known:
                return -math.inf
            known[at] = _seen(table, named(at), rng)
        return known[at]

    def named(at: tuple[int, ...]) -> Configuration:
        values = {key: axes[key][index] for key, index in zip(axes, at, strict=True)}
        changes = tuple((*key, value) for key, value in values.items() if value is not None)
        found = Configuration(tuple(sorted(changes, key=lambda change: change[:2])))
        return found if found in table.capacity_per_s else COMMITTED

    home = (0,) * len(axes)
    measured(home)
    while True:
        steps = [
            tuple(index + (step if axis == moved else 0) for axis, index in enumerate(home))
            for moved in range(len(home))
            for step in (-1, 1)
        ]
        inside = [at for at in steps if all(0 <= i < len(values) for i, values in zip(at, axes.values(), strict=True))]
        best = max([home, *inside], key=measured)
        if best == home:
            return table.capacity_per_s[named(home)]
        home = best


def _seen(table: Table, configuration: Configuration, rng: np.random.Generator) -> float:
    return table.capacity_per_s[configuration] * math.exp(rng.normal(0, DRIFT))
