"""The main job end to end: export, serve, query, measure, report."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clients import Client
from export import recipes
from export.exporter import export_model
from export.models import digits
from export.precision.precision import FP32
from export.recipe.measure import Measurement
from fathom.console import answers
from fathom.console.options import default_config_name
from fathom.console.output import Steps
from fathom.recipes import manifest_of, measure_served, measured_at_export
from fathom.workload import with_evaluation_data
from loadtests import report
from loadtests.capacity import CapacityRequest
from loadtests.errors import LoadTestError
from loadtests.finding import find
from loadtests.report.prose import in_short
from loadtests.results.result import INTERRUPTED, CapacityResult
from loadtests.slo import Slo
from loadtests.workload.workload import ModelWeight
from server import TritonServer

PIPELINES = ("image_classifier", "text_embedding")
SENTENCES = ("play some jazz", "put on some saxophone music")
WEATHER = {
    "temperature_c": 9.0,
    "humidity_pct": 97.0,
    "pressure_hpa": 996.0,
    "wind_speed_m_s": 8.0,
    "cloud_cover_pct": 100.0,
}


@dataclass
class DemoResult:
    """The demo's results, in the order in which they were made."""

    models: dict[str, dict[str, Measurement]] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    capacities: dict[str, CapacityResult] = field(default_factory=dict)
    digit: Path = Path()
    report: Path = Path()
    ready_s: float = 0.0
    seconds: float = 0.0
    interrupted: bool = False
    """By Ctrl-C during a search; what was measured until then is in the report."""
    trouble: str = ""
    """Why some results could not be written; empty where all were."""

    def to_json(self) -> dict[str, Any]:
        """The document of `fathom demo --json`."""
        return {
            "models": {
                name: {station: measured.to_json() for station, measured in measured_at.items()}
                for name, measured_at in self.models.items()
            },
            "answers": self.answers,
            "capacities": {name: result.to_json() for name, result in self.capacities.items()},
            "digit": str(self.digit),
            "report": str(self.report) if self.report.name else None,
            "ready_s": round(self.ready_s, 2),
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
        }


def run(repository: Path, results: Path, slo: Slo, budget_s: float, precision: str = FP32) -> DemoResult:
    """Do it all; a model that the precision is not offered for stays at FP32. Raises the errors of the package that
    failed."""
    began = time.monotonic()
    done = DemoResult()
    results.mkdir(parents=True, exist_ok=True)
    with Steps() as steps:
        for name in recipes.NAMES:
            with steps.step(f"export {name}") as step:
                recipe = recipes.find(name)
                chosen = precision if precision in recipe.reduced else FP32
                exported = export_model(recipe, repository, precision=chosen, on_progress=step.update)
                step.update("unchanged" if exported.skipped else f"{exported.seconds:.1f} s")
        with steps.step("start Triton") as step:
            server = TritonServer(repository, config_name=default_config_name(repository), stop_timeout_s=0)
            start = time.monotonic()
            server.start()
            done.ready_s = time.monotonic() - start
            step.update(f"ready in {done.ready_s:.1f} s at {server.grpc_url}")
        try:
            _use(server, repository, results, slo, budget_s, steps, done)
        finally:
            server.stop()
        with steps.step("write the report") as step:
            try:
                done.report = report.write(results)
                step.update(str(done.report))
            except LoadTestError as error:  # what was measured is shown all the same
                done.trouble = done.trouble or str(error)
    done.seconds = time.monotonic() - began
    return done


def _use(
    server: TritonServer, repository: Path, results: Path, slo: Slo, budget_s: float, steps: Steps, done: DemoResult
) -> None:
    with Client(server.grpc_url) as client:
        with steps.step("ask") as step:
            done.digit = results / "digit.png"
            done.answers = ask(client, done.digit)
            step.update("; ".join(done.answers.values()))
        for name in recipes.NAMES:
            recipe = recipes.find(name)
            with steps.step(f"judge {name}") as step:
                at_export = measured_at_export(recipe, repository)
                served = measure_served(recipe, client, repository, step.update)
                done.models[name] = at_export | served
                figure = recipe.figures[0].name
                step.update(f"{figure} {next(iter(served.values())).accuracy.get(figure, float('nan')):.5g} served")
        for name in PIPELINES:
            with steps.step(f"capacity of {name}") as step:

                def show(point: Any, step: Any = step) -> None:
                    step.update(f"{point.rate_per_s:.0f}/s {point.verdict}")

                request = CapacityRequest(
                    server=server.grpc_url,
                    model=name,
                    slos=(slo,),
                    budget_s=budget_s,
                    mix=[with_evaluation_data(client, ModelWeight(name), repository)],
                    manifest=manifest_of(name, repository),
                    folder=results,
                )
                found = find(request, on_point=show)
                done.capacities[name] = found
                done.trouble = done.trouble or found.unsaved
                step.update(in_short(found))
            if found.partial:  # interrupted, or nobody is there to be asked about the next one
                done.interrupted = found.ended_because == INTERRUPTED
                return


def ask(client: Client, digit: Path) -> dict[str, str]:
    """One real question to each model, answered for a person. Writes the digit's picture to `digit`."""
    picture, truth = digits.held_out_png(0)
    digit.write_bytes(picture)
    (classes,) = client.model("image_classifier").classify(image=[picture], top=5)
    first, second = client.model("text_embedding")(text=list(SENTENCES))["sentence_embedding"]
    rain = client.model("rain_forecast")({name: np.full((1, 1), value, np.float32) for name, value in WEATHER.items()})
    return {
        "image_classifier": f"{answers.ranked(classes)}; it is a {truth}",
        "text_embedding": f'"{SENTENCES[0]}" and "{SENTENCES[1]}" are {float(first @ second):.2f} alike',
        "rain_forecast": recipes.find("rain_forecast").interpret(rain)[0],
    }
