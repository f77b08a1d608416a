"""TensorRT engines on the command line: the options of `fathom export`, and the notes where none can be built."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.engine import library
from export.engine.export import CONFIG_NAME, EngineResult, export_engine
from export.engine.options import HARDWARE_COMPATIBILITY, TILING, EngineOptions
from export.errors import EngineError, EngineUnavailableError
from export.exporter import ARTEFACT
from export.graph import onnx_stream
from export.recipe.recipe import Recipe
from fathom.console import options
from fathom.console.arguments import UsageError
from fathom.console.output import Steps, note


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`--engine`, `--no-engine`, and how an engine is built."""
    group = command.add_argument_group("TensorRT engine")
    group.add_argument(
        "--engine",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="build an engine for the GPU of this machine, or fail (default: build one if TensorRT and a GPU exist)",
    )
    group.add_argument(
        "--workspace-gb", type=float, metavar="GB", help="limit of scratch memory (default: all of the GPU's memory)"
    )
    group.add_argument(
        "--builder-optimization-level",
        type=int,
        choices=range(6),
        metavar="0..5",
        help="effort of the search for fast kernels (default: TensorRT's, 3)",
    )
    group.add_argument(
        "--tiling", choices=TILING, help="effort of the search for kernels that keep data in the L2 cache"
    )
    group.add_argument(
        "--max-aux-streams",
        type=options.whole,
        metavar="N",
        help="CUDA streams beside the main one; 0 needs least memory",
    )
    group.add_argument(
        "--tuned-batch",
        type=options.count,
        metavar="N",
        help="batch size to optimise for (default: the largest preferred_batch_size, else max_batch_size)",
    )
    group.add_argument(
        "--hardware-compatibility",
        choices=HARDWARE_COMPATIBILITY,
        default="none",
        help="other GPUs that can run the engine, at some cost in speed (default: %(default)s)",
    )
    group.add_argument(
        "--version-compatible",
        action="store_true",
        help="let newer TensorRT versions run the engine, at some cost in speed",
    )
    group.add_argument("--no-tf32", action="store_true", help="compute FP32 products with all bits of the mantissa")


@dataclass
class Engines:
    """The engines of one `fathom export`. `trt` is None where none is built."""

    trt: Any | None
    explicit: bool
    options: EngineOptions
    named: bool = True
    """Whether somebody named the models. Of all models, those with operators that TensorRT never has need no engine."""
    built: dict[str, EngineResult] = field(default_factory=dict)
    failures: list[EngineError] = field(default_factory=list)
    why_none: str = ""
    """Why there is no TensorRT here, where it was not asked for."""

    def export(self, recipe: Recipe, model_repository: Path, steps: Steps, *, force: bool) -> None:
        """Build the engine of one exported model. A failure is kept: the other models still get theirs."""
        if self.trt is None:
            return
        if not self.named and (operator := _beyond_tensorrt(model_repository / recipe.name / ARTEFACT)):
            note(f"no engine: {recipe.name} has the operator {operator}, which TensorRT lacks; ONNX Runtime serves it")
            return
        with steps.step(f"engine {recipe.name}") as step:
            try:
                result = export_engine(
                    recipe, model_repository, self.trt, self.options, force=force, on_progress=step.update
                )
            except EngineError as error:
                self.failures.append(error)
                step.update("none")
                return
            self.built[recipe.name] = result
            state = "unchanged" if result.skipped else f"{result.seconds:.1f} s"
            step.update(f"{state}, {result.record.batch1_ms:.2f} ms at batch 1 on {result.record.gpu.name}")

    def finish(self) -> None:
        """Say what could not be built. Raises the first failure where engines were asked for."""
        if self.why_none:
            note(f"only ONNX is exported: {self.why_none}")
        for result in self.built.values():
            for line in result.notes:
                note(line)
        if self.built:
            note(f"Triton serves engines with --model-config-name={CONFIG_NAME}, the default of docker-compose.yml")
        for failure in self.failures[1:] if self.explicit else self.failures:
            note(f"no engine: {failure}")
        if self.explicit and self.failures:
            raise self.failures[0]

    def to_json(self, model: str) -> dict[str, Any] | None:
        """One model's engine for `--json`, None where there is none."""
        result = self.built.get(model)
        return {**result.record.to_json(), "unchanged": result.skipped} if result else None


def find(arguments: argparse.Namespace) -> Engines:
    """TensorRT where it can build here; `finish` says why where it cannot.

    Raises EngineUnavailableError where `--engine` asked for it, UsageError for options out of range.
    """
    try:
        chosen = EngineOptions(
            workspace_gb=arguments.workspace_gb,
            builder_optimization_level=arguments.builder_optimization_level,
            tiling=arguments.tiling,
            max_aux_streams=arguments.max_aux_streams,
            hardware_compatibility=arguments.hardware_compatibility,
            version_compatible=arguments.version_compatible,
            tf32=not arguments.no_tf32,
            tuned_batch=arguments.tuned_batch,
        )
    except EngineError as error:
        raise UsageError(str(error)) from None
    explicit = bool(arguments.engine)
    if arguments.engine is False:
        return Engines(None, explicit, chosen)
    try:
        return Engines(library.load(), explicit, chosen, named=bool(arguments.models))
    except EngineUnavailableError as error:
        if explicit:
            raise
        return Engines(None, explicit, chosen, why_none=str(error))


def _beyond_tensorrt(path: Path) -> str:
    """An operator of classical machine learning (`ai.onnx.ml`) in the graph, of which TensorRT has none; else empty."""
    model = onnx_stream.read_without_weights(path)
    return next((str(node.op_type) for node in model.graph.node if node.domain == "ai.onnx.ml"), "")
