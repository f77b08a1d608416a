"""Export models into the model repository: ONNX, accuracy at every station, manifest.

A model whose source has not changed is left alone; --force builds it again.
"""

from __future__ import annotations

import argparse

from rich.table import Table

from export import recipes
from export.exporter import ExportResult, export_model
from fathom import options
from fathom.errors import UsageError
from fathom.figures import cell
from fathom.output import Steps, err, out, print_json


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom export`."""
    command.add_argument("models", nargs="*", metavar="MODEL", help=f"one of {', '.join(recipes.NAMES)} (default: all)")
    command.add_argument(
        "--weights",
        metavar="SOURCE",
        help="a Hugging Face id or a local folder instead of the weights that come with the recipe "
        "(`bundled` for those again); rewrites the dims of config.pbtxt where they differ",
    )
    command.add_argument("--force", action="store_true", help="build again even if nothing changed")
    options.add_repository(command)
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Export each model and show what it earned."""
    names = arguments.models or list(recipes.NAMES)
    if arguments.weights and len(names) != 1:
        raise UsageError("--weights is for one model: name it, as in `fathom export mobilenet_v2 --weights DIR`")
    chosen = [recipes.find(name) for name in names]
    results = []
    with Steps() as steps:
        for recipe in chosen:
            with steps.step(f"export {recipe.name}") as step:
                result = export_model(
                    recipe,
                    arguments.model_repository,
                    weights=arguments.weights,
                    force=arguments.force,
                    on_progress=step.update,
                )
                step.update("unchanged" if result.skipped else f"{result.seconds:.1f} s")
            results.append(result)
    for result in results:
        for note in result.notes:
            err.print(f"[yellow]note[/yellow] {note}", markup=True)
    if arguments.json:
        print_json({"models": [as_json(result) for result in results]})
    else:
        out.print(_table(results))
    return 0


def as_json(result: ExportResult) -> dict[str, object]:
    """One export for `--json`."""
    return {
        "model": result.recipe,
        "folder": str(result.folder),
        "unchanged": result.skipped,
        "seconds": round(result.seconds, 2),
        "notes": list(result.notes),
        "manifest": result.manifest.to_json(),
    }


def _table(results: list[ExportResult]) -> Table:
    table = Table("model", "figure", "source", "onnx", "parity (max abs)", "size", box=None, pad_edge=False)
    for result in results:
        stations = result.manifest.stations or {}
        size_mb = sum(file.bytes for name, file in result.manifest.files.items() if ".onnx" in name) / 1e6
        parity = stations["onnx"].parity
        for row, figure in enumerate(recipes.find(result.recipe).figures):
            table.add_row(
                result.recipe if row == 0 else "",
                figure.name,
                cell(stations["source"].accuracy.get(figure.name)),
                cell(stations["onnx"].accuracy.get(figure.name)),
                f"{parity.max_abs:.1e}" if row == 0 and parity else "",
                f"{size_mb:.1f} MB" if row == 0 else "",
            )
    return table
