"""How much worse than the source a station may be: figures, tolerances, and limits of a reduced precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf


@dataclass(frozen=True)
class Figure:
    """One accuracy figure: what it means, which way is better, and how much a station may lose against the source."""

    name: str
    meaning: str
    tolerance: float
    higher_is_better: bool = True

    def loss(self, source: float, measured: float) -> float:
        """How much worse `measured` is than `source`; negative when it is better."""
        return source - measured if self.higher_is_better else measured - source


@dataclass(frozen=True)
class Tolerance:
    """How far a station's raw outputs may be from the source's (see `export.recipe.measure.Parity`)."""

    max_abs: float
    min_cosine: float
    max_relative: float = inf

    def times(self, factor: float, min_cosine: float) -> Tolerance:
        """The tolerance of a coarser arithmetic."""
        return Tolerance(factor * self.max_abs, min_cosine, factor * self.max_relative)


@dataclass(frozen=True)
class Limits:
    """What a station may cost: the distance of its outputs, and how much of each figure may be lost.

    `losses` are by the figure's name; a figure that it does not name may lose its own tolerance.
    """

    tolerance: Tolerance
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Reduced(Limits):
    """What a recipe allows one reduced precision to cost.

    `keep_float` are nodes that stay in FP32, by name; those that a graph of other weights does not have are passed
    over. `keep_float_symmetric` takes its place in INT8 for TensorRT, where activations have no zero point and so lose
    more. `weights_only` reduces the weights of products and leaves every activation in FP32, without calibration.
    """

    keep_float: tuple[str, ...] = ()
    keep_float_symmetric: tuple[str, ...] | None = None
    weights_only: bool = False
