"""Which configurations can win, by computation: every one is predicted, and measurements correct the predictions.

A prediction is wrong in two ways. A common factor (this machine, this generator) is learnt from the first configuration
that is measured. What is left differs from one set of batch times to another, and each measurement teaches it for the
configurations that share that set. Its spread is the model's error: only those within it of the best are measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from loadtests.tuning.space import COMMITTED, DELAY, MAX_BATCH, POLICY, PREFERRED, Configuration, Space

BATCHER_KNOBS = frozenset((PREFERRED, DELAY, POLICY, MAX_BATCH))
"""Knobs that choose batches and leave their times alone."""
_ALIKE = 0.015
"""Predictions this close in ln(rate) are equal where the batch times are."""
_ERROR, _WEIGHT = 0.15, 4
"""The model's error in ln(rate) before anything is measured, and as how many measurements that counts."""
_REACH = 3.0
"""So many errors below the best, a configuration may still win."""
_SHRINK = 1.0
"""As how many measurements the common factor counts beside those of a set of batch times."""
_KEPT = 3
"""Of the first step's configurations: how many the next step is varied on."""

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

    def learn(self, configuration: Configuration, value: float) -> None:
        """Correct the predictions by a measurement."""
        self.measured[configuration] = value

    def fail(self, configuration: Configuration, reason: str) -> None:
        """Leave out a configuration that does not serve."""
        self.failed[configuration] = reason

    def expected(self, configuration: Configuration) -> float:
        """The prediction, corrected by what was measured."""
        residuals = list(self._residuals())
        if not residuals:
            return self._value[configuration]
        common = sum(residual for _, residual in residuals) / len(residuals)
        own = [residual for times, residual in residuals if times == batch_times_of(configuration)]
        return self._value[configuration] * math.exp((_SHRINK * common + sum(own)) / (_SHRINK + len(own)))

    @property
    def error(self) -> float:
        """The standard error of a prediction, in ln(rate)."""
        residuals = [residual for _, residual in self._residuals()]
        if len(residuals) < 2:
            return _ERROR
        middle = sum(residuals) / len(residuals)
        squares = sum((residual - middle) ** 2 for residual in residuals)
        return math.sqrt((_WEIGHT * _ERROR**2 + squares) / (_WEIGHT + len(residuals) - 1))

    def contenders(self, leader: float) -> list[Configuration]:
        """What may still beat the `leader`'s value, best first: one of each group whose members are predicted equal,
        and after these the others of groups of which one was measured, since predictions err."""
        least = leader * math.exp(-_REACH * self.error)
        found: dict[Configuration, bool] = {}
        for members in self._groups:
            names = [each.configuration for each in members]
            open_ = [each for each in names if each not in self.measured and not self.why_not(each)]
            if open_ and self.expected(open_[0]) >= least:
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

    def _residuals(self) -> Iterator[tuple[tuple[tuple[str, str, object], ...], float]]:
        for configuration, value in self.measured.items():
            predicted = self._value.get(configuration, math.nan)
            if predicted > 0 and value > 0:
                yield batch_times_of(configuration), math.log(value / predicted)
