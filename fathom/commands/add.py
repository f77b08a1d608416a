"""Add your own model: draft its configuration and recipe, export it, and check that Triton serves it.

  fathom add my_model --onnx model.onnx
  fathom add my_model --torch package.module:function      returns (module, example)
  fathom add my_model --hf DIR                             a save_pretrained() folder, or a hub id
  fathom add my_model --sklearn package.module:function    returns (estimator, example)

The model is added only if ONNX Runtime and Triton give the same answers as the source. After a failure or Ctrl-C the
repository is unchanged.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from clients import Client
from export.add.add import MAX_BATCH_SIZE, Addition, AddOptions, add
from export.added.recipe import Added
from export.added.recipe_file import FILE
from export.command import fathom
from export.recipe.gate import gate
from export.recipe.measure import Measurement
from export.recipe.recipe import Array
from fathom.commands.export import as_json
from fathom.console import options
from fathom.console.arguments import UsageError
from fathom.console.output import Steps, cell, note, out, print_json
from fathom.console.servers import not_loaded
from fathom.latencies import generous_slo
from fathom.recipes import measure_served, measured_at_export
from server import EnvironmentNotFitError, TritonServer

LITERAL_NUMBERS = 4
"""Inputs of at most so many numbers are written out in the command that is shown; others come from the example."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom add`."""
    command.add_argument(
        "name", metavar="NAME", help="name of the model, and of its new folder in the model repository"
    )
    sources = command.add_mutually_exclusive_group(required=True)
    sources.add_argument("--onnx", metavar="FILE", help="an ONNX file, with its external data beside it")
    sources.add_argument(
        "--torch", metavar="MODULE:FUNCTION", help="a function that returns (torch module, example input)"
    )
    sources.add_argument("--hf", metavar="DIR|ID", help="a Transformers model: local folder or hub id")
    sources.add_argument(
        "--sklearn", metavar="MODULE:FUNCTION", help="a function that returns (fitted estimator, example rows)"
    )
    command.add_argument(
        "--dim",
        action="append",
        default=[],
        metavar="NAME=SIZE",
        help="size of a dynamic axis in the example, named by its symbol or as INPUT:AXIS; can be repeated",
    )
    command.add_argument(
        "--example",
        type=Path,
        metavar="FILE",
        help=".npz file of example requests: an array for each input, a row for each request (default: the example "
        "that the function returns, else made up from the graph)",
    )
    command.add_argument(
        "--max-batch-size",
        type=options.whole,
        default=MAX_BATCH_SIZE,
        metavar="N",
        help="largest batch, if the model can batch; 0 for no batching (default: %(default)s)",
    )
    command.add_argument(
        "--triton-tag",
        metavar="TAG",
        help="Triton release that must load the model, such as 26.08-py3 (default: that of docker-compose.yml beside "
        "the model repository)",
    )
    command.add_argument(
        "--no-serve",
        action="store_true",
        help="add the model without checking that Triton serves it",
    )
    options.add_repository(command)
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Add the model, and print its accuracy and the next commands."""
    kind, source = next(
        (kind, given) for kind in ("onnx", "torch", "hf", "sklearn") if (given := getattr(arguments, kind)) is not None
    )
    add_options = AddOptions(
        kind,
        source,
        dims=dict(map(_dim, arguments.dim)),
        example=arguments.example,
        max_batch_size=arguments.max_batch_size,
        triton_tag=arguments.triton_tag,
    )
    served: dict[str, Measurement] = {}

    def verify(recipe: Added, staged: Path) -> None:
        step.update("serve")
        served.update(measure_staged(recipe, staged))

    with Steps() as steps, steps.step(f"add {arguments.name}") as step:
        added = add(
            arguments.name,
            add_options,
            arguments.model_repository,
            verify=None if arguments.no_serve else verify,
            on_progress=step.update,
        )
        step.update(f"{added.exported.seconds:.1f} s")
    for line in added.notes:
        note(line)
    commands = next_commands(added, arguments.model_repository)
    if arguments.json:
        print_json({**_as_json(added, served), "commands": commands})
        return 0
    out.print(table(added, served))
    if left := not_loaded(arguments.model_repository, None):
        note(left)
    for words, line in zip(("serve", "call", "measure"), commands, strict=True):
        out.print(f"{words.ljust(8)} {line}", markup=False)
    return 0


def measure_staged(recipe: Added, staged: Path) -> dict[str, Measurement]:
    """The station `served`: the staged model in a Triton of its own, held to the recipe's tolerance.

    Where this machine cannot run the embedded Triton, a note says so and nothing is measured.
    """
    try:
        with TritonServer(staged, stop_timeout_s=0) as server, Client(server.grpc_url, timeout_s=60.0) as client:
            measured = measure_served(recipe, client, staged)
    except EnvironmentNotFitError as error:
        note(f"not served here: {error}")
        return {}
    before = measured_at_export(recipe, staged)
    for station, measurement in measured.items():
        gate(recipe, station, before["source"], measurement)
    return measured


def next_commands(added: Addition, model_repository: Path) -> list[str]:
    """Three commands to copy: serve, call, measure."""
    name = added.recipe.name
    words = (
        ("serve",),
        ("infer", name, *_inputs(added.recipe)),
        ("capacity", name, "--slo", generous_slo(added.latency_ms)),
    )
    return [fathom(*each, repository=model_repository) for each in words]


def table(added: Addition, served: Mapping[str, Measurement]) -> Table:
    """Every station for a person."""
    made = Table(
        "model", "batch", "station", "matching rows", "parity (max abs)", "min cosine", box=None, pad_edge=False
    )
    stations_of = {**(added.exported.manifest.stations or {}), **served}
    for row, (station, measured) in enumerate(stations_of.items()):
        parity = measured.parity
        made.add_row(
            added.recipe.name if row == 0 else "",
            (f"1 to {added.max_batch_size}" if added.max_batch_size else "none") if row == 0 else "",
            station,
            cell(measured.accuracy.get("matching_rows")),
            f"{parity.max_abs:.1e}" if parity else "",
            f"{parity.min_cosine:.6f}" if parity else "",
        )
    return made


def _as_json(added: Addition, served: Mapping[str, Measurement]) -> dict[str, object]:
    return {
        **as_json(added.exported),
        "recipe": str(added.exported.folder / FILE),
        "max_batch_size": added.max_batch_size,
        "kept": dict(added.kept.files),
        "needs": list(added.kept.needs),
        "notes": list(added.notes),
        "latency_ms": round(added.latency_ms, 3),
        "served": {station: measured.to_json() for station, measured in served.items()},
    }


def _dim(text: str) -> tuple[str, int]:
    name, equals, size = text.rpartition("=")
    if not equals or not name or not size.isdecimal() or int(size) < 1:
        raise UsageError(f"--dim {text} is not understood: write axis and size, as in tokens=32 or pixels:2=224")
    return name, int(size)


def _inputs(recipe: Added) -> list[str]:
    """The first example request as arguments, where it is short enough to write out, else --example."""
    evaluation = recipe.evaluation()
    request = {name: rows[0] for name, rows in evaluation.inputs.items()}
    if any("=" in name or name.startswith("-") or not _short(row) for name, row in request.items()):
        return ["--example"]
    return [f"{name}={_literal(row)}" for name, row in request.items()]


def _short(row: Array) -> bool:
    if row.dtype.kind == "U":
        return row.shape == (1,) and not str(row[0]).startswith("@")
    return row.size <= LITERAL_NUMBERS


def _literal(row: Array) -> str:
    if row.dtype.kind == "U":
        return str(row[0])
    digits = {2: 4, 4: 7}.get(row.dtype.itemsize, 16)
    plain: Any = [float(f"{number:.{digits}g}") for number in row.ravel()] if row.dtype.kind == "f" else row.tolist()
    if row.dtype.kind == "f":
        plain = np.array(plain).reshape(row.shape).tolist()
    return json.dumps(plain[0] if row.shape == (1,) else plain).replace(" ", "")
