"""Known batch times and the cost of a request besides, and the predictions made from them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fathom.tuning.models import TunedModel
from loadtests.records.point import Point
from loadtests.simulation.capacity import capacity
from loadtests.simulation.pipeline import Pipeline
from loadtests.simulation.simulate import simulate
from loadtests.simulation.times import BatchTimes, of_shape
from loadtests.tuning.objective import Objective
from loadtests.tuning.ranking import BATCHER_KNOBS
from loadtests.tuning.space import COMMITTED, INSTANCES, INTRA, Configuration, Space, Value

_USUAL_BATCH = 4.0
"""Rows of a batch before any load was seen."""
_ARRIVALS = 4000
"""Simulated for a latency at a rate."""
_HOPELESS = 0.01
"""Of the rate that keeps all instances busy: what a configuration counts for that no rate is predicted to suit. Times
measured on a busy machine may be wrong, and the order of such configurations is still the best guess."""

Changes = tuple[tuple[str, Value], ...]
Tables = Mapping[int, BatchTimes]
"""By class of shape."""


@dataclass
class Times:
    """The tables, by model and by the knobs that decide how long its batches take; and the shapes of the requests."""

    tuned: TunedModel
    space: Space
    overhead_s: float = 0.0
    tables: dict[tuple[str, Changes], Tables] = field(default_factory=dict)
    shapes: dict[Changes, dict[str, list[int]]] = field(default_factory=dict)
    """By the parameters of python steps: the class of each traced request at each model."""
    failures: dict[tuple[str, Changes], str] = field(default_factory=dict)
    mean_batch: dict[str, float] = field(default_factory=dict)
    """Of each model under load, as committed."""
    handling_s: float = 0.0
    """CPU seconds of a request outside all batches: the server's network threads and the generator."""

    def learn_handling(self, point: Point, server_cpu_s: float) -> None:
        """From a probe of the committed configuration, and the CPU seconds that its server used meanwhile."""
        requests = max((step.requests for step in point.steps), default=0)
        if not requests:
            return
        self.mean_batch = {step.model: step.mean_batch for step in point.steps}
        request_s = server_cpu_s / requests + point.cpu_per_request_us / 1e6
        batches_s = sum(self._work_s(step.model, COMMITTED) for step in self.tuned.steps)
        self.handling_s = max(request_s - batches_s, 0.0)

    def pipeline(self, configuration: Configuration) -> Pipeline | None:
        """The pipeline to simulate; None where a table is missing.

        The batches of the bottleneck are stretched by what the cores do besides: handling requests, and the batches of
        the other steps.
        """
        models = [step.model for step in self.tuned.steps]
        if any(self._table(model, configuration) is None for model in models):
            return None
        tables = {model: self._table(model, configuration) or {} for model in models}
        slowest = max(models, key=lambda model: self._interval_s(model, configuration))
        others_s = self.handling_s + sum(self._work_s(model, configuration) for model in models if model != slowest)
        kept = {
            "instances": self._instances(slowest, configuration),
            "threads": self._threads(slowest, configuration),
            "cores": self.space.machine.cores,
        }
        tables[slowest] = {shape: table.beside(others_s, **kept) for shape, table in tables[slowest].items()}
        messages = self.tuned.configured(configuration)
        return Pipeline.from_configs(self.tuned.model, messages.__getitem__, tables, overhead_s=self.overhead_s)

    def bottleneck_first(self) -> list[str]:
        """The steps by what they can serve as committed, the slowest first."""
        models = [step.model for step in self.tuned.steps]
        return sorted(models, key=lambda model: -self._interval_s(model, COMMITTED))

    def _table(self, model: str, configuration: Configuration) -> Tables | None:
        return self.tables.get((model, timed(configuration, model)))

    def _threads(self, model: str, configuration: Configuration) -> int:
        """The cores that a batch keeps busy."""
        step = self.space.step(model)
        return 0 if step.on_gpu else int(configuration.of(step).get(INTRA, 1))

    def _instances(self, model: str, configuration: Configuration) -> int:
        return int(configuration.of(self.space.step(model))[INSTANCES])

    def _work_s(self, model: str, configuration: Configuration) -> float:
        """CPU seconds of a request in the batches of a model."""
        instances = self._instances(model, configuration)
        busy_cores = min(instances * self._threads(model, configuration), self.space.machine.cores)
        return busy_cores * self._interval_s(model, configuration)

    def _interval_s(self, model: str, configuration: Configuration) -> float:
        """Seconds from request to request that a model with all instances busy needs, with batches as under load."""
        instances, rows = self._instances(model, configuration), self.mean_batch.get(model, _USUAL_BATCH)
        shapes = (self.shapes.get(upstream(configuration)) or self.shapes[()])[model]
        tables = self._table(model, configuration)
        if not tables:
            return 0.0
        seconds = [of_shape(tables, shape)(rows, instances) for shape in shapes]
        return statistics.fmean(seconds) / rows / instances

    def classes(self, configuration: Configuration) -> list[int]:
        """The class of shape of each traced request, at the step whose shapes differ most."""
        found = self.shapes.get(upstream(configuration)) or self.shapes[()]
        return max(found.values(), key=lambda classes: len(set(classes)))

    def predict(self, configuration: Configuration, objective: Objective) -> float:
        """What the objective calls good, by simulation; NaN where a table is missing."""
        pipeline = self.pipeline(configuration)
        if pipeline is None:
            return float("nan")
        if objective.at_rate_per_s is not None:
            return 1 / self._latency_ms(pipeline, configuration, objective.at_rate_per_s)
        found = capacity(
            pipeline, objective.slos, shapes=self.classes(configuration), requests=1500, replications=1, tolerance=0.01
        )
        rate_per_s = found.rate_per_s or _HOPELESS * found.limit_per_s
        return objective.scaled(configuration, rate_per_s)

    def _latency_ms(self, pipeline: Pipeline, configuration: Configuration, rate_per_s: float) -> float:
        """The p99 at a rate, which counts as a minute where more requests are refused."""
        rng = np.random.default_rng(0)
        arrivals_s = np.cumsum(rng.exponential(1 / rate_per_s, _ARRIVALS))
        shapes = rng.choice(self.classes(configuration), _ARRIVALS)
        return min(1e3 * simulate(pipeline, arrivals_s, shapes=shapes).percentile(0.99), 60e3)


def timed(configuration: Configuration, model: str) -> Changes:
    """The changes of a model that decide how long its batches take; how many instances are busy is in the table."""
    changes = configuration.models().get(model, {})
    return tuple((knob, value) for knob, value in changes.items() if knob not in BATCHER_KNOBS and knob != INSTANCES)


def upstream(configuration: Configuration) -> Changes:
    """The parameters of python steps, which decide the shapes of what follows."""
    return tuple(
        (f"{model}.{knob}", value)
        for model, knob, value in configuration.changes
        if knob.startswith("pad_to_multiple_of")
    )


def variants(space: Space, model: str) -> list[Configuration]:
    """One configuration for each table of a model, those with the fewest changes first."""
    found: dict[Changes, Configuration] = {}
    for configuration in sorted(space.vary(model), key=lambda each: len(each.changes)):
        found.setdefault(timed(configuration, model), configuration)
    return list(found.values())
