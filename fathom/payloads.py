"""Requests made from a recipe's own evaluation data, for measuring with what the model is for."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

from clients import Client, InvalidInput, codec
from export import recipes
from export.errors import RecipeError
from export.recipe.measure import Reference
from export.recipe.recipe import Array, Evaluation

POOL_SIZE = 64


def from_recipe(client: Client, model: str, repository: Path) -> list[bytes] | None:
    """Up to POOL_SIZE single-sample requests of real input, or None for a model that no recipe's data fits."""
    try:
        recipe = recipes.find(model, repository)
        if recipe.pipeline is not None and model == recipe.pipeline.name:
            evaluation = Evaluation(recipe.pipeline.requests())
        else:
            evaluation = reference(model, repository).evaluation
        spec = client.model(model).spec
        return [codec.encode(spec, row) for row in itertools.islice(evaluation.batches(1), POOL_SIZE)]
    except (RecipeError, InvalidInput):
        return None  # no recipe, not exported here, or another model of the same name


def example(model: str, repository: Path) -> dict[str, Array]:
    """The first request that the model was exported with, or the first of its pipeline.

    Raises RecipeError where it was not exported here.
    """
    with contextlib.suppress(RecipeError):
        recipe = recipes.find(model, repository)
        if recipe.pipeline is not None and model == recipe.pipeline.name:
            return next(Evaluation(recipe.pipeline.requests()).batches(1))
    evaluation = reference(model, repository).evaluation
    return next(evaluation.batches(1))


def reference(model: str, repository: Path) -> Reference:
    """The source's answers that export kept beside the artefact. Raises RecipeError where there is none."""
    return Reference.read(repository / model / "1" / "reference.npz")
