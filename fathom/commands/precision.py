"""Compare the precisions of a model: size, parity, accuracy and speed. The model repository is not changed.

Fathom converts each precision in a scratch folder, measures its accuracy as an export does, and times it with ONNX
Runtime on one thread of this CPU. The column `x fp32` is the speed relative to FP32 at batch 1 and 16. Exit status 1: a
precision that the recipe offers is not accurate enough. 2: one could not be converted; the other rows are printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from rich.table import Table

from export import recipes
from export.errors import ExportError
from export.precision import cpu_features
from export.precision.compare import PrecisionRow, compare
from export.precision.precision import CPU, FP32, RUNTIMES
from export.recipe.recipe import Recipe
from fathom.console import options
from fathom.console.arguments import STOPPED, UsageError
from fathom.console.output import Steps, cell, note, out, print_json
from loadtests.slo import about_ms


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom precision`."""
    command.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help=f"{', '.join(recipes.NAMES)}, or a model that you added (default: the first {len(recipes.NAMES)})",
    )
    command.add_argument("--weights", metavar="SOURCE", help="weights to use, as for `fathom export`")
    options.add_allow_source(command)
    options.add_repository(command)
    command.add_argument(
        "--int8-for",
        choices=RUNTIMES,
        default=CPU,
        help="runtime that the INT8 graph is written for; a graph for TensorRT is slow on a CPU (default: %(default)s)",
    )
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Convert, measure and time each model at each precision."""
    names = arguments.models or list(recipes.NAMES)
    if arguments.weights and len(names) != 1:
        raise UsageError("--weights is for one model: name it, as in `fathom precision minilm --weights DIR`")
    chosen = [recipes.find(name, arguments.model_repository) for name in names]
    if arguments.allow_source:
        recipes.allow_sources(chosen)
    rows: list[PrecisionRow] = []
    interrupted = False
    try:
        with Steps() as steps:
            for recipe in chosen:
                with steps.step(f"compare {recipe.name}") as step:
                    try:
                        rows += compare(
                            recipe, weights=arguments.weights, runtime=arguments.int8_for, on_progress=step.update
                        )
                        step.update("done")
                    except (ExportError, OSError) as error:
                        if len(chosen) == 1:
                            raise
                        rows.append(PrecisionRow(recipe.name, FP32, str(error), False))
                        step.update("failed")
    except KeyboardInterrupt:
        if not rows:
            raise
        interrupted = True  # the models until then are shown
    if arguments.json:
        print_json({"precisions": [row.to_json() for row in rows], "int8_instructions": cpu_features.found()})
    else:
        out.print(table(rows, {recipe.name: recipe for recipe in chosen}))
        out.print(f"ONNX Runtime, one thread; {cpu_features.sentence()}", markup=False)
    for row in rows:
        if row.failed:
            print(f"fathom precision: {row.model} at {row.precision}: {' '.join(row.gate.split())}", file=sys.stderr)
        elif row.passed is False:
            note(f"{row.model} at {row.precision}: {row.gate}")
    if interrupted:
        return STOPPED
    return status(rows)


def status(rows: Sequence[PrecisionRow]) -> int:
    """The exit status, as of `fathom export`: 2 where a conversion failed, 1 where only accuracy gates did."""
    return 2 if any(row.failed for row in rows) else int(any(row.passed is False for row in rows))


def table(rows: Sequence[PrecisionRow], chosen: Mapping[str, Recipe]) -> Table:
    """The comparison for a person; parity is the distance from the trained source."""
    heads = ("model", "precision", "size", "max abs", "relative", "min cosine", "accuracy", "batch 1", "batch 16")
    made = Table(*heads, "x fp32", "gate", box=None, pad_edge=False)
    full = {row.model: row for row in rows if row.precision == "fp32"}
    for row in rows:
        name = row.model if row.precision == "fp32" else ""
        if row.measured is None or row.measured.parity is None or row.speed is None or row.bytes is None:
            gate = "not converted" if row.failed else f"not offered: {row.gate}"
            made.add_row(name, row.precision, *("-" for _ in range(8)), gate)
            continue
        parity, speed, base = row.measured.parity, row.speed, full[row.model].speed
        gains = [base.latency_ms[batch] / speed.latency_ms[batch] for batch in (1, 16)] if base else []
        figures = chosen[row.model].figures
        accuracy = [
            f"{each.name} {cell(row.measured.accuracy[each.name])}"
            for each in figures
            if each.name in row.measured.accuracy
        ]
        made.add_row(
            name,
            row.precision,
            f"{row.bytes / 1e6:.2f} MB",
            f"{parity.max_abs:.1e}",
            f"{parity.max_relative:.1e}",
            f"{parity.min_cosine:.5f}",
            "\n".join(accuracy),
            about_ms(speed.latency_ms[1]),
            f"{speed.rows_per_s(16):.0f}/s",
            " ".join(f"{gain:.2f}" for gain in gains),
            "passed" if row.passed else "failed",
        )
    return made
