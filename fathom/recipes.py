"""What commands need of a model's recipe: its manifest, requests from its evaluation data, and its served accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clients import Client, InvalidInputError, codec
from export import recipes
from export.errors import ExportError, RecipeError
from export.recipe.measure import Measurement, Reference, measure
from export.recipe.recipe import Array, Evaluation, Progress, Recipe, no_progress
from export.repository.manifest import Manifest

POOL_BYTES = 64 << 20
"""Of the requests that a load test keeps in memory, in each of its generators."""
SENT_TOGETHER = 8


def manifest_of(model: str, repository: Path) -> dict[str, Any] | None:
    """The manifest that a report names, where this machine has it; None for a model without a recipe here."""
    try:
        manifest = Manifest.read(repository / recipes.find(model, repository).name)
    except ExportError:
        return None
    return manifest.to_json() if manifest else None


def requests_of(client: Client, model: str, repository: Path, *, seed: int = 0) -> list[bytes] | None:
    """A request for each sample of the evaluation data, or None for a model that no recipe's data fits.

    Where all have more than POOL_BYTES, as many as have not are drawn from the whole set by the seed.
    """
    try:
        evaluation = _evaluation(model, repository)
        spec = client.model(model).spec
        return draw([codec.encode(spec, row) for row in evaluation.batches(1)], POOL_BYTES, seed=seed)
    except (RecipeError, InvalidInputError):
        return None  # no recipe, not exported here, or another model of the same name


def draw(requests: list[bytes], most_bytes: int, *, seed: int) -> list[bytes]:
    """Draw items by the seed, in their order: as many as fit into the bytes, and at least one."""
    drawn = np.random.default_rng(seed).permutation(len(requests))
    fitting = int(np.searchsorted(np.cumsum([len(requests[row]) for row in drawn]), most_bytes, side="right"))
    return [requests[row] for row in sorted(drawn[: max(fitting, 1)])]


def example(model: str, repository: Path) -> dict[str, Array]:
    """The first request that the model was exported with, or the first of its pipeline.

    Raises RecipeError where it has none, or was not exported here.
    """
    return next(_evaluation(model, repository).batches(1))


def _evaluation(model: str, repository: Path) -> Evaluation:
    """The requests that a model's recipe has for it; raises RecipeError."""
    borrower = recipes.borrower(model)
    if borrower is not None:
        return Evaluation(borrower.requests())
    recipe = recipes.find(model, repository)
    if recipe.pipeline is not None and model == recipe.pipeline.name:
        return Evaluation(recipe.pipeline.requests())
    return reference(model, repository).evaluation


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
