"""A race on a recorded table: probes are answered as a server of the recorded capacity would on a drifting machine."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
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
from loadtests.tuning.ranking import Prediction, Ranking, batch_times_of
from loadtests.tuning.space import Configuration, Value

TABLES = Path(__file__).parents[1] / "loadtests" / "tables"
PROBES_A_CAPACITY = 8
"""What one capacity takes where no table says it: a bracket and a bisection to 3 %."""
DRIFT = 0.03
PASSES = 2
"""Of a measured grid."""
START_S, OVERHEAD_S = 5.0, 0.3
NONE_PER_S = 1.0
"""What a configuration sustains for which no rate was found."""


@dataclass(frozen=True)
class Table:
    """A grid: capacity and prediction of each configuration, in requests/s."""

    capacity_per_s: dict[Configuration, float]
    predictions: list[Prediction]
    slo: Slo
    committed: dict[str, dict[str, Value]]
    """The value of each knob of each model."""
    grid_probes: int
    """Of the whole grid, all passes together."""

    @classmethod
    def read(cls, name: str, of_pass: int = 0) -> Table:
        """As `python -m benchmarks.grid` writes it, with the capacities of one pass."""
        document = json.loads((TABLES / f"{name}.json").read_text())
        capacity_per_s, predictions = {}, []
        for row in document["rows"]:
            configuration = Configuration.from_json(row["changes"])
            capacity_per_s[configuration] = max(row["passes"][of_pass].get("rate_per_s", 0.0), NONE_PER_S)
            if row["predicted_per_s"] is not None:
                predictions.append(Prediction(configuration, row["predicted_per_s"]))
        probes = sum(one.get("probes", PROBES_A_CAPACITY) for row in document["rows"] for one in row["passes"])
        return cls(capacity_per_s, predictions, Slo.parse(document["slo"]), document["committed"], probes)

    def mispredicted(self, seed: int) -> Table:
        """The same with predictions that are wrong: all by a factor, each set of batch times by one of its own, whose
        spread is 10 to 20 %, and each configuration by half of that."""
        rng = np.random.default_rng(seed)
        common, error = rng.uniform(-0.3, 0.3), rng.uniform(0.1, 0.2)
        of_times: dict[object, float] = defaultdict(lambda: rng.normal(0, error))
        wrong = [
            Prediction(
                each.configuration,
                each.value * math.exp(common + of_times[batch_times_of(each.configuration)] + rng.normal(0, error / 2)),
            )
            for each in self.predictions
        ]
        return replace(self, predictions=wrong)

    @property
    def best(self) -> Configuration:
        return max(self.capacity_per_s, key=self.capacity_per_s.__getitem__)

    @property
    def best_per_s(self) -> float:
        return self.capacity_per_s[self.best]


@dataclass
class Replay:
    """Answers the turns of a race from a table."""

    table: Table
    failing: dict[Configuration, str] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)

    def race(
        self, *, budget_s: float = 600.0, seed: int = 0, confirm: bool = True, objective: Objective | None = None
    ) -> Race:
        """Run to its end, or until the winner is to be confirmed."""
        start_per_s = 0.7 * self.table.predictions[0].value
        plan = Plan((self.table.slo,), start_per_s, seed, budget_s)
        race = Race(objective or Objective((self.table.slo,)), Ranking(self.table.predictions), plan)
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
        point = point_at(turn.probe, self.table.slo, self.table.capacity_per_s[turn.configuration])
        return Answer(point.took_s + (0.0 if begun else START_S), point)


def point_at(probe: Probe, slo: Slo, capacity_per_s: float) -> Point:
    """Late requests as the log-odds rule of `loadtests.search.estimate` has them, with a factor of the probe's own.

    What probes of one seed have in common is not imitated.
    """
    rng = np.random.default_rng([probe.seed, probe.number])
    drifted = max(capacity_per_s, 0.1) * math.exp(rng.normal(0, DRIFT))
    intended_s = np.cumsum(rng.exponential(1 / probe.rate_per_s, probe.requests))
    limit_s = (slo.limit_ms or 0.0) / 1e3
    slope = max(1.4 * drifted * limit_s, 5.0)
    odds = math.log(slo.allowed_share / (1 - slo.allowed_share)) + slope * math.log(probe.rate_per_s / drifted)
    late = rng.random(probe.requests) < 1 / (1 + math.exp(-min(max(odds, -50), 50)))
    if probe.rate_per_s > drifted:  # a queue that grows needs a while until answers are late
        filled_s = limit_s / (probe.rate_per_s / drifted - 1)
        late &= intended_s >= min(filled_s, 0.2 * float(intended_s[-1]))
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
