"""Export models to the model repository: ONNX, precision, TensorRT engine, accuracy at every station, manifest.

A model that has not changed is not exported again, unless you add --force. If one model fails, the others are still
exported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from export import recipes
from export.added.recipe_file import FILE
from export.command import fathom
from export.errors import AccuracyError, ExportError, NotOfferedError
from export.exporter import ExportResult, export_model
from export.precision.precision import CPU, FP32, INT8, PRECISIONS, RUNTIMES, TENSORRT, rule
from export.recipe.recipe import Recipe
from fathom import engines
from fathom.console import options
from fathom.console.arguments import UsageError
from fathom.console.output import Steps, cell, note, out, print_json


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom export`."""
    command.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help=f"{', '.join((*recipes.NAMES, *recipes.EXTRA))}, or a model that you added (default: "
        f"{', '.join(recipes.NAMES)} and those that you added, as far as the repository has them)",
    )
    command.add_argument(
        "--all", action="store_true", help="every bundled model of the repository and those that you added"
    )
    command.add_argument(
        "--weights",
        metavar="SOURCE",
        help="Hugging Face id or local folder to take the weights from, which updates the dims of config.pbtxt "
        "(default: the recipe's own weights; `bundled` returns to them)",
    )
    command.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=FP32,
        help="precision of weights and arithmetic; inputs and outputs keep their types, and the export fails if "
        "accuracy falls by more than the recipe allows (default: %(default)s)",
    )
    command.add_argument(
        "--int8-for",
        choices=RUNTIMES,
        help="runtime that the INT8 graph is written for: CPUs are fast with UINT8 activations, TensorRT takes "
        "symmetric INT8 only (default: tensorrt if an engine is built, else cpu)",
    )
    command.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="NODE_OR_OP",
        help="keep this node, or all nodes of this operator type, in FP32; can be repeated",
    )
    command.add_argument("--force", action="store_true", help="export again even if nothing has changed")
    options.add_allow_source(command)
    engines.add_arguments(command)
    options.add_repository(command)
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Export each model and print its accuracy."""
    repository = arguments.model_repository
    if arguments.all and arguments.models:
        raise UsageError(f"--all exports every model: leave out {arguments.models[0]}, or --all")
    bundled = (*recipes.NAMES, *(recipes.EXTRA if arguments.all else ()))
    names = arguments.models or recipes.names(repository, bundled)
    if not names:
        raise UsageError(
            f"{repository} has no added model and none of {', '.join(bundled)}: name one that it has, or add one with "
            f"`{fathom('add', repository=repository)}`"
        )
    if arguments.weights and len(names) != 1:
        raise UsageError("--weights is for one model: name it, as in `fathom export mobilenet_v2 --weights DIR`")
    if arguments.exclude and (len(names) != 1 or arguments.precision == FP32):
        raise UsageError(
            "--exclude is for one model at a reduced precision, as in "
            "`fathom export minilm --precision int8 --exclude Gather`"
        )
    if arguments.engine and arguments.precision == INT8 and arguments.int8_for == CPU:
        raise UsageError(
            "--engine builds with TensorRT, which takes INT8 with zero point 0 only: leave out --int8-for cpu"
        )
    chosen, failed = find(names, repository)
    if arguments.allow_source:
        recipes.allow_sources(chosen)
    for recipe in chosen if arguments.models else ():
        rule(recipe, arguments.precision)
    results = []
    builder = engines.find(arguments)
    runtime = arguments.int8_for or (CPU if builder.trt is None else TENSORRT)
    with Steps() as steps:
        for recipe in chosen:
            if arguments.precision != FP32 and arguments.precision not in recipe.reduced:
                note(f"{recipe.name} is left as it is: {recipe.why_not_reduced}")
                continue
            with steps.step(f"export {recipe.name}") as step:
                try:
                    result = export_model(
                        recipe,
                        repository,
                        weights=arguments.weights,
                        precision=arguments.precision,
                        excluded=arguments.exclude,
                        runtime=runtime,
                        force=arguments.force,
                        on_progress=step.update,
                    )
                except (ExportError, OSError) as error:
                    if isinstance(error, NotOfferedError) and not arguments.models:
                        note(f"{recipe.name} is left as it is: {error.why}")
                        step.update("left as it is")
                        continue
                    failed[recipe.name] = error
                    step.update("failed")
                    continue
                step.update("unchanged" if result.skipped else f"{result.seconds:.1f} s")
            results.append(result)
            try:
                builder.export(recipe, repository, steps, force=arguments.force)
            except AccuracyError as error:  # the engine's; the ONNX model stands
                failed[recipe.name] = error
    for result in results:
        for line in result.notes:
            note(line)
    if arguments.json:
        models = [{**as_json(result), "engine": builder.to_json(result.recipe)} for result in results]
        print_json({"models": models, "failed": {name: str(why) for name, why in failed.items()}})
    elif results:
        out.print(table(results, {recipe.name: recipe for recipe in chosen}))
    try:
        builder.finish()
    finally:
        for name, why in failed.items():
            print(f"fathom export: {name}: {' '.join(str(why).split())}", file=sys.stderr)
    return status(failed.values())


def find(names: Sequence[str], model_repository: Path) -> tuple[list[Recipe], dict[str, Exception]]:
    """The recipes of that name, and the errors of those whose recipe.toml cannot be read.

    Raises RecipeError for a name that has none.
    """
    found: list[Recipe] = []
    broken: dict[str, Exception] = {}
    for name in dict.fromkeys(names):
        try:
            found.append(recipes.find(name, model_repository))
        except ExportError as error:
            if not (model_repository / name / FILE).is_file():
                raise
            broken[name] = error
    return found, broken


def status(failures: Iterable[Exception]) -> int:
    """The exit status: 2 where a model could not be exported, 1 where only accuracy gates failed."""
    kinds = {isinstance(error, AccuracyError) for error in failures}
    return 2 if False in kinds else int(True in kinds)


def as_json(result: ExportResult) -> dict[str, object]:
    """One export for `--json`."""
    return {
        "model": result.recipe,
        "folder": str(result.folder),
        "precision": result.manifest.precision,
        "unchanged": result.skipped,
        "seconds": round(result.seconds, 2),
        "notes": list(result.notes),
        "manifest": result.manifest.to_json(),
    }


def table(results: Sequence[ExportResult], chosen: Mapping[str, Recipe]) -> Table:
    """The exports for a person, a row for each figure of their recipes."""
    made = Table("model", "precision", "figure", "source", "onnx", "parity (max abs)", "size", box=None, pad_edge=False)
    for result in results:
        stations = result.manifest.stations or {}
        size_mb = sum(file.bytes for name, file in result.manifest.files.items() if ".onnx" in name) / 1e6
        parity = stations["onnx"].parity
        for row, figure in enumerate(chosen[result.recipe].figures):
            made.add_row(
                result.recipe if row == 0 else "",
                result.manifest.precision if row == 0 else "",
                figure.name,
                cell(stations["source"].accuracy.get(figure.name)),
                cell(stations["onnx"].accuracy.get(figure.name)),
                f"{parity.max_abs:.1e}" if row == 0 and parity else "",
                f"{size_mb:.1f} MB" if row == 0 else "",
            )
    return made
