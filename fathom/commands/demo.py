"""Export, serve, ask, measure and report: the main job end to end, on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table

from export import recipes
from fathom import demo, options
from fathom.commands import capacity
from fathom.figures import cell
from fathom.output import out, print_json
from loadtests.slo import Slo


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom demo`."""
    options.add_repository(command)
    command.add_argument(
        "--results", type=Path, default=Path("results/demo"), metavar="DIR", help="default: %(default)s"
    )
    command.add_argument(
        "--slo", default="p99=100ms", metavar="pNN=LIMIT", help="what the capacities must hold (default: %(default)s)"
    )
    command.add_argument(
        "--budget", type=float, default=50.0, metavar="S", help="seconds per capacity search (default: %(default)g)"
    )
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and close with what it measured."""
    slo = Slo.parse(arguments.slo)
    done = demo.run(arguments.model_repository, arguments.results, slo, arguments.budget)
    if arguments.json:
        print_json(done.to_json())
    else:
        _summary(done)
    return 0


def _summary(done: demo.DemoResult) -> None:
    out.print()
    for answer in done.answers.values():
        out.print(f"  {answer}", markup=False)
    out.print()
    table = Table("model", "figure", "source", "onnx", "served", "pipeline", box=None, pad_edge=False)
    for name, measured in done.models.items():
        for row, figure in enumerate(measured["source"].accuracy):
            values = [cell(measured[at].accuracy.get(figure) if at in measured else None) for at in table_stations()]
            table.add_row(name if row == 0 else "", figure, *values)
    out.print(table)
    out.print()
    for result in done.capacities.values():
        for line in capacity.summary(result):
            out.print(f"  {line}", markup=False)
    out.print()
    out.print(f"  report   {done.report}")
    out.print(f"  digit    {done.digit}")
    out.print(f"  models   {', '.join(recipes.NAMES)}: `fathom serve`, then `fathom infer`")
    out.print(f"  took     {done.seconds:.0f} s")


def table_stations() -> tuple[str, ...]:
    """The stations in the order that data passes them."""
    return ("source", "onnx", "served", "pipeline")
