"""A model at one precision, prepared for the proof: its folder, its rows, and how its answers are judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from export import recipes
from export.compare import typical
from export.errors import RecipeError
from export.measure import Reference
from export.recipe import Array, Arrays, Evaluation


@dataclass(frozen=True)
class Subject:
    """`model` at `precision` in `room`/models/<precision>/<model>, a folder that Triton can load."""

    model: str
    precision: str
    room: Path

    @property
    def repository(self) -> Path:
        """The model repository of that precision."""
        return self.room / "models" / self.precision

    @property
    def folder(self) -> Path:
        """The model's folder in it."""
        return self.repository / self.model

    @property
    def onnx(self) -> Path:
        """The graph."""
        return self.folder / "1" / "model.onnx"

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.model} {self.precision}"

    @cached_property
    def reference(self) -> Reference:
        """The rows it is judged on, with the answers of its source."""
        return Reference.read(self.folder / "1" / "reference.npz")

    def rows(self, batch: int) -> dict[str, Array]:
        """A batch of evaluation rows, around the median length where they are ragged."""
        return typical(self.reference.evaluation, batch)

    def judged_on(self, most: int) -> tuple[Evaluation, dict[str, Array]]:
        """The first rows of the evaluation and the source's answers to them."""
        kept = self.reference
        rows = min(most, len(kept.evaluation))
        if rows == len(kept.evaluation):
            return kept.evaluation, dict(kept.outputs)
        inputs = {name: values[:rows] for name, values in kept.evaluation.inputs.items()}
        return Evaluation(inputs, {}, kept.evaluation.mask), {name: each[:rows] for name, each in kept.outputs.items()}

    def score(self, outputs: Arrays, evaluation: Evaluation, source: Arrays) -> Mapping[str, float]:
        """The recipe's figures where all its rows were answered, else how often the first label is the source's."""
        try:
            recipe = recipes.find(self.model)
        except RecipeError:
            recipe = None
        if recipe is not None and len(evaluation) == len(self.reference.evaluation):
            return recipe.score(outputs, evaluation, source)
        (name,) = source
        first = np.asarray(outputs[name]).argmax(axis=1)
        return {"top1_agreement": float((first == np.asarray(source[name]).argmax(axis=1)).mean())}
