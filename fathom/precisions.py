"""Every precision of the bundled models: exported, served by a real Triton and measured, one after another.

Each precision has a model repository of its own under the results, so that the one being served elsewhere stays as it
is and a second run exports nothing.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients import Client
from export import recipes
from export.exporter import ExportResult, export_model
from export.precision.precision import FP32, PRECISIONS
from export.recipe.measure import Measurement
from export.recipe.recipe import Recipe
from fathom.console.options import default_config_name
from fathom.console.output import Step, Steps
from fathom.recipes import manifest_of, measure_served
from fathom.workload import with_evaluation_data
from loadtests.capacity import CapacityRequest
from loadtests.finding import find
from loadtests.report.prose import in_short
from loadtests.results.result import INTERRUPTED, CapacityResult
from loadtests.slo import Slo
from loadtests.workload.workload import ModelWeight
from server import TritonServer

FOLDER = "precisions"
BUILT = ("*.onnx", "*.data", "*.npz", "*.plan", "manifest.json", "*.plan.json", "*.layers.json", "__pycache__")


@dataclass(frozen=True)
class ServedPrecision:
    """One model at one precision as it was served. Without `served`, `reason` says why it was not."""

    model: str
    precision: str
    reason: str | None = None
    bytes: int | None = None
    served: Measurement | None = None
    capacity: CapacityResult | None = None

    def to_json(self) -> dict[str, Any]:
        """One entry of the document of `fathom demo --precision all --json`."""
        return {
            "model": self.model,
            "precision": self.precision,
            "reason": self.reason,
            "bytes": self.bytes,
            "served": self.served.to_json() if self.served else None,
            "capacity": self.capacity.to_json() if self.capacity else None,
        }


def run(repository: Path, results: Path, slo: Slo, budget_s: float, steps: Steps) -> tuple[list[ServedPrecision], bool]:
    """A row per model and precision, the models in order, and whether Ctrl-C ended it before all were there.

    Raises the errors of the package that failed.
    """
    rows: dict[tuple[str, str], ServedPrecision] = {}
    interrupted = False
    try:
        _fill(rows, repository, results, slo, budget_s, steps)
    except KeyboardInterrupt:
        if not rows:
            raise
        interrupted = True
    order = [(name, precision) for name in recipes.NAMES for precision in PRECISIONS]
    return [rows[key] for key in order if key in rows], interrupted


def _fill(
    rows: dict[tuple[str, str], ServedPrecision],
    repository: Path,
    results: Path,
    slo: Slo,
    budget_s: float,
    steps: Steps,
) -> None:
    for precision in PRECISIONS:
        chosen = []
        for name in recipes.NAMES:
            recipe = recipes.find(name)
            if precision == FP32 or precision in recipe.reduced:
                chosen.append(recipe)
            else:
                rows[name, precision] = ServedPrecision(name, precision, recipe.why_not_reduced)
        if not chosen:
            continue
        for row in _serve(chosen, precision, repository, results / FOLDER / precision, slo, budget_s, steps):
            rows[row.model, precision] = row


def _serve(
    chosen: list[Recipe], precision: str, repository: Path, home: Path, slo: Slo, budget_s: float, steps: Steps
) -> Iterator[ServedPrecision]:
    """Export the models at one precision into `home`, serve them, and measure each."""
    own = home / "model_repository"
    exported: dict[str, ExportResult] = {}
    for recipe in chosen:
        _copy_configs(recipe, repository, own)
    for recipe in chosen:
        with steps.step(f"export {recipe.name} at {precision}") as step:
            result = export_model(recipe, own, precision=precision, on_progress=step.update)
            step.update("unchanged" if result.skipped else f"{result.seconds:.1f} s")
            exported[recipe.name] = result
    with steps.step(f"start Triton at {precision}") as step:
        server = TritonServer(own, config_name=default_config_name(own), stop_timeout_s=0)
        server.start()
        step.update(f"ready at {server.grpc_url}")
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        client = stack.enter_context(Client(server.grpc_url))
        for recipe in chosen:
            with steps.step(f"measure {recipe.name} at {precision}") as step:
                served = measure_served(recipe, client, own, step.update)["served"]
                request = CapacityRequest(
                    server=server.grpc_url,
                    model=recipe.name,
                    slos=(slo,),
                    budget_s=budget_s,
                    mix=[with_evaluation_data(client, ModelWeight(recipe.name), own)],
                    manifest=manifest_of(recipe.name, own),
                    folder=home,
                )
                found = find(request, on_point=_shown(step))
                step.update(in_short(found))
            if found.ended_because == INTERRUPTED:
                raise KeyboardInterrupt
            files = exported[recipe.name].manifest.files
            size = sum(file.bytes for name, file in files.items() if ".onnx" in name)
            yield ServedPrecision(recipe.name, precision, None, size, served, found)


def _shown(step: Step) -> Callable[[Any], None]:
    def show(point: Any) -> None:
        step.update(f"{point.rate_per_s:.0f}/s {point.verdict}")

    return show


def _copy_configs(recipe: Recipe, repository: Path, own: Path) -> None:
    """Copy the committed files of a model, its companions and its systems; files that were built there stay."""
    systems = [name for system in recipe.systems for name in (system.name, *system.steps)]
    for name in dict.fromkeys((recipe.name, *recipe.companions, *systems)):
        shutil.copytree(repository / name, own / name, ignore=shutil.ignore_patterns(*BUILT), dirs_exist_ok=True)
