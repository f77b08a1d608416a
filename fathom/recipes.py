"""What commands need of a model's recipe: its manifest, requests from its evaluation data, and its served accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clients import Client, InvalidInputError, Model, ModelSpec, codec
from export import recipes
from export.errors import ExportError, RecipeError
from export.recipe.measure import Measurement, Reference, measure
from export.recipe.recipe import Array, Arrays, Evaluation, Predict, Progress, Recipe, no_progress
from export.recipe.system import Question, System
from export.repository.manifest import Manifest
from loadtests.target.parameters import Payload, size_of
from loadtests.workload.inputs import encode_sequence

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


def requests_of(client: Client, model: str, repository: Path, *, seed: int = 0) -> list[Payload] | None:
    """A request for each sample of the evaluation data, of a model that keeps states a sequence of them, or None for a
    model that no recipe's data fits.

    Where all have more than POOL_BYTES, as many as have not are drawn from the whole set by the seed.
    """
    try:
        spec = client.model(model).spec
        evaluation = _evaluation(spec, repository)
        encode: Callable[[ModelSpec, Arrays], Payload] = encode_sequence if spec.sequence else codec.encode
        return draw([encode(spec, row) for row in evaluation.batches(1)], POOL_BYTES, seed=seed)
    except (RecipeError, InvalidInputError):
        return None  # no recipe, not exported here, or another model of the same name


def draw(requests: list[Payload], most_bytes: int, *, seed: int) -> list[Payload]:
    """Draw items by the seed, in their order: as many as fit into the bytes, and at least one."""
    drawn = np.random.default_rng(seed).permutation(len(requests))
    fitting = int(np.searchsorted(np.cumsum([size_of(requests[row]) for row in drawn]), most_bytes, side="right"))
    return [requests[row] for row in sorted(drawn[: max(fitting, 1)])]


def question(spec: ModelSpec, repository: Path) -> Question:
    """What a person asks the model first: its system's question, else the first request that it was exported with.

    Raises RecipeError where it has none, or was not exported here.
    """
    if (system := recipes.system(spec.name)) is not None:
        manifest = manifest_of(spec.name, repository)
        if not (manifest and manifest["source"]["custom_weights"] and _kept_requests(system, repository)):
            return system.question()
    return Question("the first request that it was exported with", next(_evaluation(spec, repository).batches(1)))


def _evaluation(spec: ModelSpec, repository: Path) -> Evaluation:
    """The requests that a model's recipe has for it; raises RecipeError."""
    if (system := recipes.system(spec.name)) is not None:
        rows = _kept_requests(system, repository) or system.requests()
        return Evaluation(rows, batched=spec.batched and not spec.sequence)
    recipes.find(spec.name, repository)
    return reference(spec.name, repository).evaluation


def _kept_requests(system: System, repository: Path) -> Arrays:
    """The requests that follow from the weights that were exported here; none where they do not."""
    try:
        return reference(recipes.find(system.name).name, repository).evaluation.requests if system.judged else {}
    except RecipeError:
        return {}  # not exported here


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
    asked: dict[str, System | None] = {"served": None}
    asked |= dict(zip(["pipeline"], [system for system in recipe.systems if system.judged], strict=False))
    measured = {}
    for station, system in asked.items():
        model = client.model(system.name if system else recipe.name)
        requests = None
        if system is not None:
            rows = kept.evaluation.requests or system.requests()
            requests = Evaluation(rows, kept.evaluation.truth, batched=model.spec.batched)
        measured[station] = measure(
            recipe,
            _predict(model),
            kept,
            batch=max(1, min(SENT_TOGETHER, model.spec.max_batch_size)),
            requests=requests,
            on_progress=on_progress,
            station=station,
        )
    return measured


def _predict(model: Model) -> Predict:
    """The station of a served model; of one that keeps states, each row is a whole sequence."""
    return (lambda inputs: in_sequence(model, inputs)[0]) if model.spec.sequence else model.__call__


def in_sequence(model: Model, inputs: Arrays) -> tuple[dict[str, Array], float]:
    """The outputs of a whole sequence, whose axis 0 counts the requests as that of the inputs does, and the latency of
    the last request in ms."""
    parts = []
    with model.sequence() as sequence:
        start = time.perf_counter()
        for answer in sequence.each(inputs):
            latency_ms, start = (time.perf_counter() - start) * 1e3, time.perf_counter()
            parts.append(answer)
    join = np.concatenate if model.spec.batched else np.stack
    return {name: join([part[name] for part in parts]) for name in parts[0]}, latency_ms
