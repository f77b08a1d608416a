"""The main job end to end: export, serve, query, measure, report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients import Client, InferenceError
from export import recipes
from export.errors import ExportError
from export.exporter import export_model
from export.precision.precision import FP32
from export.recipe.measure import Measurement
from export.recipe.recipe import Recipe, Weights
from export.recipe.system import System
from fathom.asking import ask
from fathom.console.options import default_config_name
from fathom.console.output import Step, Steps
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
from server.errors import TritonServerError


@dataclass
class Shown:
    """One system, as far as it was shown; `reason` says why it was no further."""

    system: System
    recipe: Recipe
    weights: Weights | None = None
    question: str = ""
    truth: str = ""
    answer: str = ""
    latency_ms: float | None = None
    capacity: CapacityResult | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """One entry of `systems` in the document of `fathom demo --json`."""
        return {
            "system": self.system.name,
            "recipe": self.recipe.name,
            "question": self.question or None,
            "answer": self.answer or None,
            "truth": self.truth or None,
            "latency_ms": None if self.latency_ms is None else round(self.latency_ms, 3),
            "weights": self.weights.description if self.weights else None,
            "licence": (self.weights.licence or None) if self.weights else None,
            "trained_here": self.weights.trained_here if self.weights else None,
            "reason": self.reason or None,
        }


@dataclass
class DemoResult:
    """The demo's results, in the order in which they were made."""

    systems: list[Shown] = field(default_factory=list)
    models: dict[str, dict[str, Measurement]] = field(default_factory=dict)
    digit: Path = Path()
    report: Path = Path()
    ready_s: float = 0.0
    seconds: float = 0.0
    interrupted: bool = False
    """By Ctrl-C during a search; what was measured until then is in the report."""
    trouble: str = ""
    """Why some results could not be written; empty where all were."""

    @property
    def capacities(self) -> dict[str, CapacityResult]:
        """Those that were searched for, by system."""
        return {shown.system.name: shown.capacity for shown in self.systems if shown.capacity}

    @property
    def answers(self) -> dict[str, str]:
        """Question and answer in one line, by system."""
        lines = {shown.system.name: f"{shown.question} {shown.answer}" for shown in self.systems if shown.answer}
        truths = {shown.system.name: f" (right: {shown.truth})" for shown in self.systems if shown.truth}
        return {name: line + truths.get(name, "") for name, line in lines.items()}

    def to_json(self) -> dict[str, Any]:
        """The document of `fathom demo --json`."""
        return {
            "models": {
                name: {station: measured.to_json() for station, measured in measured_at.items()}
                for name, measured_at in self.models.items()
            },
            "systems": [shown.to_json() for shown in self.systems],
            "answers": self.answers,
            "capacities": {name: result.to_json() for name, result in self.capacities.items()},
            "digit": str(self.digit),
            "report": str(self.report) if self.report.name else None,
            "ready_s": round(self.ready_s, 2),
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
        }


@dataclass(frozen=True)
class Demo:
    """What to show: the systems of these recipes, from this repository.

    A model that the `precision` is not offered for stays at FP32. With `slo` instead of the systems' own, all are
    searched for the capacity under it. The capacity of a model that is asked as it is, without a system around it, is
    searched with `tolerant` only, which also gives a system that cannot be shown a reason and goes on.
    """

    names: Sequence[str]
    repository: Path
    results: Path
    budget_s: float
    slo: Slo | None = None
    precision: str = FP32
    tolerant: bool = False

    def run(self) -> DemoResult:
        """Do it all. Raises the errors of the package that failed."""
        began = time.monotonic()
        done = DemoResult()
        self.results.mkdir(parents=True, exist_ok=True)
        with Steps() as steps:
            for name in self.names:
                done.systems += self._export(recipes.find(name), steps)
            served = [shown for shown in done.systems if not shown.reason]
            if served:
                self._serve(served, steps, done)
            with steps.step("write the report") as step:
                try:
                    done.report = report.write(self.results)
                    step.update(str(done.report))
                except LoadTestError as error:  # what was measured is shown all the same
                    done.trouble = done.trouble or str(error)
        done.seconds = time.monotonic() - began
        return done

    def _export(self, recipe: Recipe, steps: Steps) -> list[Shown]:
        """The recipe's systems, once its models lie in the repository."""
        shown = [Shown(system, recipe) for system in recipe.systems]
        with steps.step(f"export {recipe.name}") as step, self._or_reason(shown, step):
            weights = recipe.resolve(None)
            precision = self.precision if self.precision in recipe.reduced else FP32
            exported = export_model(recipe, self.repository, precision=precision, on_progress=step.update)
            step.update("unchanged" if exported.skipped else f"{exported.seconds:.1f} s")
            for each in shown:
                each.weights = weights
        return shown

    def _serve(self, served: Sequence[Shown], steps: Steps, done: DemoResult) -> None:
        server: TritonServer | None = None
        with steps.step("start Triton") as step, self._or_reason(served, step):
            models = dict.fromkeys(name for shown in served for name in (shown.system.name, shown.recipe.name))
            config_name = default_config_name(self.repository)
            started = TritonServer(self.repository, config_name=config_name, models=[*models], stop_timeout_s=0)
            start = time.monotonic()
            started.start()
            server = started
            done.ready_s = time.monotonic() - start
            step.update(f"ready in {done.ready_s:.1f} s at {server.grpc_url}")
        if server is None:
            return
        try:
            with Client(server.grpc_url) as client:
                self._use(client, served, steps, done)
        finally:
            server.stop()

    def _use(self, client: Client, served: Sequence[Shown], steps: Steps, done: DemoResult) -> None:
        with steps.step("ask") as step:
            for shown in served:
                with self._or_reason([shown], step):
                    self._ask(client, shown, done)
            step.update("; ".join(done.answers.values()))
        for recipe in {shown.recipe.name: shown.recipe for shown in served}.values():
            with (
                steps.step(f"judge {recipe.name}") as step,
                self._or_reason([shown for shown in served if shown.recipe is recipe], step),
            ):
                done.models[recipe.name] = measured_at_export(recipe, self.repository)
                measured = measure_served(recipe, client, self.repository, step.update)
                done.models[recipe.name] |= measured
                figure = recipe.figures[0].name
                step.update(f"{figure} {next(iter(measured.values())).accuracy.get(figure, float('nan')):.5g} served")
        for shown in served:
            if shown.system.name == shown.recipe.name and not self.tolerant:
                continue
            with steps.step(f"capacity of {shown.system.name}") as step, self._or_reason([shown], step):

                def show(point: Any, step: Any = step) -> None:
                    step.update(f"{point.rate_per_s:.0f}/s {point.verdict}")

                found = find(self._request(client, shown.system), on_point=show)
                shown.capacity = found
                done.trouble = done.trouble or found.unsaved
                step.update(in_short(found))
            if shown.capacity and shown.capacity.ended_because == INTERRUPTED:
                done.interrupted = True
                return
            if shown.capacity and shown.capacity.partial and not self.tolerant:
                return  # nobody is there to be asked about the next one

    def _ask(self, client: Client, shown: Shown, done: DemoResult) -> None:
        question, model = shown.system.question(), client.model(shown.system.name)
        ask(model, question)  # the first request also pays for what is made at the first request
        answer = ask(model, question)
        shown.question, shown.truth = question.text, question.truth
        shown.answer, shown.latency_ms = answer.text, answer.latency_ms
        if shown.system.name == "image_classifier":
            done.digit = self.results / "digit.png"
            done.digit.write_bytes(question.inputs["image"].item())

    def _request(self, client: Client, system: System) -> CapacityRequest:
        return CapacityRequest(
            server=client.endpoint,
            model=system.name,
            slos=(self.slo,) if self.slo else tuple(map(Slo.parse, system.slos)),
            budget_s=self.budget_s,
            mix=[with_evaluation_data(client, ModelWeight(system.name), self.repository)],
            manifest=manifest_of(system.name, self.repository),
            folder=self.results,
        )

    @contextlib.contextmanager
    def _or_reason(self, systems: Sequence[Shown], step: Step) -> Iterator[None]:
        """Let an error of the block be the reason of these systems, where others are to be shown all the same."""
        try:
            yield
        except (ExportError, InferenceError, LoadTestError, TritonServerError, OSError) as error:
            if not self.tolerant:
                raise
            reason = " ".join(str(error).split())
            step.update(reason)
            for shown in systems:
                shown.reason = shown.reason or reason
