"""Which configurations can win, by computation: every one is predicted, and measurements correct the predictions.

What a prediction is wrong by is taken as a sum in ln(rate): a part that all share (this machine, this generator), one
of each change, one of each set of batch times, and one of the configuration's own. Each is normal around zero. So every
measurement says something of all configurations, and the more they have in common with it the more (a Gaussian process;
Rasmussen and Williams, 2006, section 2.2). What is then left open of a configuration decides whether it may still win.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loadtests.tuning.space import COMMITTED, DELAY, MAX_BATCH, POLICY, PREFERRED, Configuration, Space

BATCHER_KNOBS = frozenset((PREFERRED, DELAY, POLICY, MAX_BATCH))
"""Knobs that choose batches and leave their times alone."""
_ALIKE = 0.015
"""Predictions this close in ln(rate) are equal where the batch times are."""
_ERROR, _WEIGHT = 0.15, 4
"""The model's error in ln(rate) before anything is measured, and as how many measurements that counts."""
_ALL, _OF_CHANGE, _OF_TIMES, _OWN = 9.0, 0.4, 0.3, 0.2
"""Variances of the parts of an error, where the model's error is 1."""
_REACH = 3.0
"""So many standard errors above what is expected of it, a configuration may still be."""
_KEPT = 3
"""Of the first step's configurations: how many the next step is varied on."""

Floats = NDArray[np.float64]
Predict = Callable[[Configuration], float]
"""The capacity in requests/s of a configuration; NaN where it is not known."""


@dataclass(frozen=True)
class Prediction:
    """One configuration, as computed."""

    configuration: Configuration
    value: float
    """What the objective calls good: a rate, or one a core, or 1 / ms."""


def batch_times_of(configuration: Configuration) -> tuple[tuple[str, str, object], ...]:
    """The changes that decide how long batches take: configurations that share them share the table."""
    return tuple(change for change in configuration.changes if change[1] not in BATCHER_KNOBS)


def rank(space: Space, predict: Predict, order: Sequence[str]) -> list[Prediction]:
    """Predictions, best first. The steps are varied in the given order (the bottleneck first), each on the best few
    configurations of the steps before: what is not the bottleneck can gain little, so the product is not needed. Few
    changes come first, so that a ranking that has to end early has tried every knob."""
    found: dict[Configuration, float] = {COMMITTED: predict(COMMITTED)}
    bases = [COMMITTED]
    for model in order:
        for base in bases:
            for configuration in sorted(space.vary(model, base), key=lambda each: len(each.changes)):
                if configuration not in found:
                    found[configuration] = predict(configuration)
        bases = _distinct_best(found)
    return sorted((Prediction(each, value) for each, value in found.items()), key=_best_first)


def _distinct_best(found: Mapping[Configuration, float]) -> list[Configuration]:
    """The best few, of which no two are equal but for knobs that the prediction does not feel."""
    groups = group([Prediction(each, value) for each, value in found.items()])
    return [members[0].configuration for members in groups[:_KEPT]]


def group(predictions: Sequence[Prediction]) -> list[list[Prediction]]:
    """Predictions that are equal and share their batch times, best group first, in each the fewest changes first."""
    groups: list[list[Prediction]] = []
    latest: dict[tuple[tuple[str, str, object], ...], list[Prediction]] = {}
    for prediction in sorted(predictions, key=_best_first):
        if not prediction.value > 0:
            continue
        times = batch_times_of(prediction.configuration)
        if times in latest and math.log(latest[times][0].value / prediction.value) <= _ALIKE:
            latest[times].append(prediction)
        else:
            latest[times] = [prediction]
            groups.append(latest[times])
    return [sorted(members, key=_simplest_first) for members in groups]


def _simplest_first(prediction: Prediction) -> tuple[int, str]:
    return len(prediction.configuration.changes), str(prediction.configuration)


def _best_first(prediction: Prediction) -> tuple[float, int, str]:
    value = prediction.value if prediction.value > 0 else 0.0
    return -value, *_simplest_first(prediction)


@dataclass
class Ranking:
    """The predictions with what measurements have taught about them."""

    predictions: Sequence[Prediction]
    measured: dict[Configuration, float] = field(default_factory=dict)
    failed: dict[Configuration, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._value = {each.configuration: each.value for each in self.predictions}
        self._groups = group(self.predictions)
        self._place = {configuration: at for at, configuration in enumerate(self._value)}
        changes = {change: at for at, change in enumerate({each for one in self._value for each in one.changes})}
        self._changed = np.zeros((len(self._value), len(changes)))
        for configuration, at in self._place.items():
            self._changed[at, [changes[each] for each in configuration.changes]] = 1.0
        times: dict[object, int] = {}
        self._times = np.array([times.setdefault(batch_times_of(each), len(times)) for each in self._value])
        self._learn_all()

    def learn(self, configuration: Configuration, value: float) -> None:
        """Correct the predictions by a measurement."""
        self.measured[configuration] = value
        self._learn_all()

    def fail(self, configuration: Configuration, reason: str) -> None:
        """Leave out a configuration that does not serve."""
        self.failed[configuration] = reason

    def expected(self, configuration: Configuration) -> float:
        """The prediction, corrected by what was measured."""
        return self._value[configuration] * math.exp(self._correction[self._place[configuration]])

    def possible(self, configuration: Configuration) -> float:
        """The most that the measurements leave room for."""
        return self.expected(configuration) * math.exp(_REACH * self._open[self._place[configuration]])

    def contenders(self, leader: float) -> list[Configuration]:
        """What may still beat the `leader`'s value, best first: one of each group whose members are
        predicted equal, and after these the others of groups of which one was measured, since predictions err."""
        found: dict[Configuration, bool] = {}
        for members in self._groups:
            names = [each.configuration for each in members]
            open_ = [each for each in names if each not in self.measured and not self.why_not(each)]
            if open_ and self.possible(open_[0]) >= leader:
                found[open_[0]] = any(each in self.measured for each in names)
        return sorted(found, key=lambda each: (found[each], -self.expected(each), len(each.changes), str(each)))

    def why_not(self, configuration: Configuration) -> str:
        """Why it needs no measurement, where an earlier failure tells: it has every change that may be to blame."""
        if configuration in self.failed:
            return self.failed[configuration]
        served = {change for each in self.measured for change in each.changes}
        for culprit, reason in self.failed.items():
            blamed = set(culprit.changes) - served
            if blamed and blamed <= set(configuration.changes):
                return f"like {culprit}: {reason}"
        return ""

    def equals(self, configuration: Configuration) -> Configuration | None:
        """The configuration of its group that was measured."""
        for members in self._groups:
            names = [each.configuration for each in members]
            if configuration in names:
                return next((each for each in names if each in self.measured), None)
        return None

    def _learn_all(self) -> None:
        """`error`, and of each configuration the correction and what is left open, in ln(rate)."""
        known = {
            self._place[each]: math.log(value / self._value[each])
            for each, value in self.measured.items()
            if value > 0 and self._value.get(each, math.nan) > 0
        }
        alone = _ALL + _OF_CHANGE * self._changed.sum(axis=1) + _OF_TIMES + _OWN
        self.error = _ERROR
        self._correction, self._open = np.zeros(len(alone)), _ERROR * np.sqrt(alone - _ALL)
        if not known:
            return
        places, residuals = list(known), np.array(list(known.values()))
        shared = (
            _ALL
            + _OF_CHANGE * self._changed @ self._changed[places].T
            + _OF_TIMES * (self._times[:, None] == self._times[places])
        )
        shared[places, np.arange(len(places))] += _OWN
        gains = np.linalg.solve(shared[places], shared.T).T
        explained = residuals @ np.linalg.solve(shared[places], residuals)
        self.error = math.sqrt((_WEIGHT * _ERROR**2 + explained) / (_WEIGHT + max(len(places) - 1, 0)))
        self._correction = gains @ residuals
        self._open = self.error * np.sqrt(np.maximum(alone - (gains * shared).sum(axis=1), 0.0))
