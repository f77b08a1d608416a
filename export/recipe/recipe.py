"""What a recipe is: where a model comes from, what it is evaluated on, and how its answers are judged.

A station is anything that answers like the model: the trained source, an ONNX Runtime session, an engine, a client of
the running server. Each is a `Predict`, called with one mapping of named arrays whose first axis is the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from export.errors import EngineError, ExportError, RecipeError
from export.recipe.limits import Figure, Reduced, Tolerance
from export.recipe.system import System

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Predict = Callable[[Arrays], Arrays]
Progress = Callable[[str, int, int], None]

BUNDLED = "bundled"

CELLS = 512
"""How many padded tokens a batch of ragged rows has at most: attention takes memory by the square of the length."""


@dataclass(frozen=True)
class AxisRange:
    """The sizes one axis may take, and the one to be fast at. Raises EngineError unless 1 <= min <= opt <= max."""

    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise EngineError(
                f"the range (min {self.minimum}, opt {self.optimum}, max {self.maximum}) is not in order",
                remedy="write 1 <= min <= opt <= max",
                field="axis_ranges",
                found=(self.minimum, self.optimum, self.maximum),
            )


def no_progress(step: str, done: int, total: int) -> None:
    """A progress callback that does nothing; called as (step, done, total)."""


@dataclass(frozen=True)
class Evaluation:
    """The rows a model is judged on.

    `inputs` are named arrays of equal first axis. `truth` is what the answers are judged against and is never sent;
    its arrays may have any length (the answer per query, say). `mask` names the input whose non-zero columns are the
    used part of ragged rows: a batch is cut to its longest row. Where `batched` is False the model has no batch axis:
    each row is one whole request, sent alone. `requests` are the rows as the judged system takes them, where they
    follow from the weights: else they are the system's own.
    """

    inputs: Arrays
    truth: Arrays = field(default_factory=dict)
    mask: str | None = None
    batched: bool = True
    requests: Arrays = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batches(self, size: int, cells: int | None = None) -> Iterator[dict[str, Array]]:
        """The rows in order, `size` at a time (the last batch may be smaller), each cut to its longest row.

        With `cells`, a batch of ragged rows takes fewer rows where these times the longest would exceed it. Of a model
        without a batch axis one row after the other, without the axis of the rows.
        """
        if not self.batched:
            yield from ({name: values[row] for name, values in self.inputs.items()} for row in range(len(self)))
            return
        start = 0
        while start < len(self):
            rows = min(size, len(self) - start)
            if self.mask is not None and cells is not None:
                used = self._longest(start, start + rows)
                rows = max(1, min(rows, cells // used))
            batch = {name: values[start : start + rows] for name, values in self.inputs.items()}
            if self.mask is not None:
                used = self._longest(start, start + rows)
                width = batch[self.mask].shape[1]
                batch = {
                    name: np.ascontiguousarray(values[:, :used]) if values.shape[1:2] == (width,) else values
                    for name, values in batch.items()
                }
            yield batch
            start += rows

    def _longest(self, start: int, stop: int) -> int:
        """Columns in use by the longest of these ragged rows."""
        assert self.mask is not None
        return int(self.inputs[self.mask][start:stop].any(axis=0).nonzero()[0].max(initial=0)) + 1


@dataclass(frozen=True)
class Weights:
    """The files that a model is made from, found but not loaded.

    `files` maps the name in the manifest to the path. `folder` is where the source is loaded from. `explicit` says
    that a person named the weights, and so allows export to rewrite the dims of config.pbtxt. `licence` is an SPDX id.
    `trained_here` says that this project trained them.
    """

    description: str
    files: Mapping[str, Path]
    folder: Path | None = None
    custom: bool = False
    explicit: bool = False
    licence: str = ""
    trained_here: bool = False


@dataclass(frozen=True)
class Source:
    """A loaded model: the source station, how it becomes ONNX, and what it is judged on.

    `labels` are class names by label file, written where config.pbtxt names that file.
    `assets` are the files of companion models in the repository, as {model: {path in its folder: content}}.
    `calibration` gives the rows that INT8 finds its ranges on, of a bundled model none that is in `evaluation`.
    `module` is the torch module that `predict` runs, where there is one: its parameters are the inputs, by name.
    `files` are further ones of the model itself, by path in its folder.
    """

    predict: Predict
    write_onnx: Callable[[Path], None]
    evaluation: Evaluation
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    assets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    calibration: Callable[[], Evaluation] | None = None
    module: Any = None
    files: Mapping[str, bytes] = field(default_factory=dict)

    def released(self) -> Source:
        """The source without the trained model, whose memory is then free for what follows."""
        return replace(self, predict=_released, write_onnx=_released, module=None)


def _released(*arguments: Any) -> Any:
    raise RuntimeError("the trained model was released after it was measured")


class Recipe(ABC):
    """One model, from where it comes from to how it is judged. Importing a recipe loads no heavy library."""

    name: ClassVar[str]
    summary: ClassVar[str]
    figures: ClassVar[tuple[Figure, ...]]
    tolerance: ClassVar[Tolerance]
    BUILD: ClassVar[int] = 1
    """The recipe's build number: raise it when a change of its code changes the model, its figures or its files."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions determine the build, beside those of every export."""
    axis_ranges: ClassVar[Axes] = {}
    """What an engine is built for on every open axis but the batch: {input: {axis: (AxisRange(min, opt, max),)}}."""
    reduced: ClassVar[Mapping[str, Reduced]] = {}
    """The precisions other than fp32 that the model can be exported at, each with what it may cost."""
    why_not_reduced: ClassVar[str] = "its recipe names no tolerance for one"
    """The reason that a person is given for a precision that is not among them."""
    not_compared: ClassVar[frozenset[str]] = frozenset()
    """Outputs that `score` alone judges, since equally good ones may take each other's place: ids of what was found."""
    companions: ClassVar[tuple[str, ...]] = ()
    """The other models of the repository whose files `Source.assets` gives."""

    @abstractmethod
    def resolve(self, weights: str | None) -> Weights:
        """Find the weights: None or "bundled" for those it comes with, else a hub id or a local folder.

        Raises RecipeError when they are missing or cannot be used.
        """

    @abstractmethod
    def load(self, weights: Weights) -> Source:
        """Load (or train) the model. Raises RecipeError when the files do not hold what the recipe needs."""

    def load_showing(self, weights: Weights, on_progress: Progress) -> Source:
        """`load`, which a recipe whose loading takes minutes reports the progress of."""
        return self.load(weights)

    @abstractmethod
    def evaluation(self) -> Evaluation:
        """What the model with its bundled weights is judged on; made without torch or transformers."""

    @abstractmethod
    def score(self, outputs: Arrays, evaluation: Evaluation, source: Arrays | None = None) -> dict[str, float]:
        """Judge answers to all rows of `evaluation`; with the source's own answers, also by closeness to them.

        The keys are names of `figures`.
        """

    @abstractmethod
    def interpret(self, outputs: Arrays, labels: Sequence[str] = ()) -> list[str]:
        """One sentence for a person per row of the outputs."""

    @property
    def systems(self) -> tuple[System, ...]:
        """What people ask that is made of this model. Without one, the model itself is asked."""
        return ()

    def judged(self, predict: Predict) -> Predict:
        """The station with what is kept of its answers: all, unless they are too large to keep for every row."""
        return predict

    def judged_graph(self, predict: Predict, graph: Path) -> Predict:
        """A session of the ONNX file as such a station, also where the graph takes more than a request has."""
        return self.judged(predict)

    def accuracy(self, predict: Predict, evaluation: Evaluation | None = None, *, batch: int = 8) -> dict[str, float]:
        """The figures of any station: `recipe.accuracy(client.model(recipe.name))`, `batch` rows at a time."""

        evaluation = evaluation or self.evaluation()
        return self.score(answers(self.judged(predict), evaluation, batch=batch), evaluation)

    def example(self, batch: int = 1) -> dict[str, Array]:
        """`batch` rows of real input, named as the model names them: the evaluation's, repeated if they run out."""
        evaluation = self.evaluation()
        rows = np.arange(batch) % len(evaluation)
        chosen = replace(evaluation, inputs={name: values[rows] for name, values in evaluation.inputs.items()})
        return next(chosen.batches(batch))

    def data(self) -> tuple[Path, ...]:
        """Data files, beside the weights, that determine the build: texts, example requests."""
        return ()

    def figure(self, name: str) -> Figure:
        """The definition of a figure by name."""
        for figure in self.figures:
            if figure.name == name:
                return figure
        raise RecipeError(
            f"recipe '{self.name}' has no figure '{name}': it has {[figure.name for figure in self.figures]}"
        )


Axes = Mapping[str, Mapping[int, Sequence[AxisRange]]]
"""Ranges by input and axis of the graph's whole shape (axis 0 is the batch where the model batches): one range for
all profiles, or one per profile."""


def answers(
    predict: Predict,
    evaluation: Evaluation,
    *,
    batch: int = 8,
    on_progress: Progress = no_progress,
    step: str = "measure",
) -> dict[str, Array]:
    """The station's outputs for every row of the evaluation, at most `batch` rows at a time, fewer of long ragged ones.

    A model without a batch axis gets one row at a time, and its answers are stacked (laid end to end where their shapes
    differ). Raises ExportError when the station answers with another number of rows than it was given.
    """
    parts: dict[str, list[Array]] = {}
    total, done = len(evaluation), 0
    on_progress(step, 0, total)
    for inputs in evaluation.batches(batch, CELLS):
        rows = len(next(iter(inputs.values()))) if evaluation.batched else 1
        for name, values in predict(inputs).items():
            if evaluation.batched and len(values) != rows:
                raise ExportError(
                    f"output '{name}' has {len(values)} rows for a batch of {rows}",
                    tensor=name,
                    found=len(values),
                    expected=rows,
                )
            parts.setdefault(name, []).append(np.asarray(values))
        done += rows
        on_progress(step, done, total)
    return {name: _joined(values, evaluation.batched) for name, values in parts.items()}


def _joined(values: list[Array], batched: bool) -> Array:
    if batched:
        return np.concatenate(values)
    if len({value.shape for value in values}) == 1:
        return np.stack(values)
    return np.concatenate([value.ravel() for value in values])
