"""Accuracy at every station of a model, from the trained source to the pipeline in front of the served model."""

from __future__ import annotations

from pathlib import Path

from clients import Client
from export.recipe.measure import Measurement, measure
from export.recipe.recipe import Progress, Recipe, no_progress
from export.repository.manifest import Manifest
from fathom.payloads import reference

SENT_TOGETHER = 8


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
