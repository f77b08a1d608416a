"""A model's recipe at work: its manifest, requests from its evaluation data, and its accuracy as served."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from clients import Client, InvalidInputError, codec
from export import recipes
from export.errors import ExportError, RecipeError
from export.recipe.measure import Measurement, Reference, measure
from export.recipe.recipe import Array, Evaluation, Progress, Recipe, no_progress
from export.repository.manifest import Manifest

POOL_SIZE = 64
SENT_TOGETHER = 8


def manifest_of(model: str, repository: Path) -> dict[str, Any] | None:
    """The manifest that a report names, where this machine has it; None for a model without a recipe here."""
    try:
        manifest = Manifest.read(repository / recipes.find(model, repository).name)
    except ExportError:
        return None
    return manifest.to_json() if manifest else None


def requests_of(client: Client, model: str, repository: Path) -> list[bytes] | None:
    """Up to POOL_SIZE single-sample requests of real input, or None for a model that no recipe's data fits."""
    try:
        recipe = recipes.find(model, repository)
        if recipe.pipeline is not None and model == recipe.pipeline.name:
            evaluation = Evaluation(recipe.pipeline.requests())
        else:
            evaluation = reference(model, repository).evaluation
        spec = client.model(model).spec
        return [codec.encode(spec, row) for row in itertools.islice(evaluation.batches(1), POOL_SIZE)]
    except (RecipeError, InvalidInputError):
        return None  # no recipe, not exported here, or another model of the same name


def example(model: str, repository: Path) -> dict[str, Array]:
    """The first request that the model was exported with, or the first of its pipeline.

    Raises RecipeError where it has none, or was not exported here.
    """
    recipe = recipes.find(model, repository)
    if recipe.pipeline is not None and model == recipe.pipeline.name:
        return next(Evaluation(recipe.pipeline.requests()).batches(1))
    evaluation = reference(model, repository).evaluation
    return next(evaluation.batches(1))


def reference(model: str, repository: Path) -> Reference:
    """The source's answers that export kept beside the artefact. Raises RecipeError where there is none."""
    return Reference.read(repository / model / "1" / "reference.npz")


def measured_at_export(recipe: Recipe, repository: Path) -> dict[str, Measurement]:
    """The stations `source` and `onnx`, as the manifest records them."""
    manifest = Manifest.read(repository / recipe.name)
    return dict(manifest.stations or {}) if manifest else {}


def measure_served(
    recipe: Recipe, client: Client, repository: Path, on_progress: Progress = no_progress
) -> dict[str, Measurement]:
    """The stations `served` (the model over gRPC) and `pipeline` (raw input over gRPC), by the same function."""
    kept = reference(recipe.name, repository)
    stations = {"served": (recipe.name, False)}
    if recipe.pipeline is not None:
        stations["pipeline"] = (recipe.pipeline.name, True)
    measured = {}
    for station, (name, through_pipeline) in stations.items():
        model = client.model(name)
        batch = max(1, min(SENT_TOGETHER, model.spec.max_batch_size))
        measured[station] = measure(
            recipe,
            model.__call__,
            kept,
            batch=batch,
            through_pipeline=through_pipeline,
            on_progress=on_progress,
            station=station,
        )
    return measured
