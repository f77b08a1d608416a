"""Export, serve, query and measure the bundled models on this machine, and write a report."""

from __future__ import annotations

import argparse
import itertools
import textwrap
import time
from pathlib import Path

from rich.table import Column, Table

from export import recipes
from export.command import fathom, naming, quote
from export.precision import cpu_features
from export.precision.precision import FP32, PRECISIONS
from fathom import demo, precisions
from fathom.console import options, summary
from fathom.console.arguments import STOPPED, UsageError
from fathom.console.output import WORD_WIDTH, Steps, cell, out, print_json
from loadtests.errors import ResultsError
from loadtests.report.prose import proven
from loadtests.results.result import CapacityResult
from loadtests.slo import Slo, about

ALL = "all"
SLO = "p99=100ms"
BUDGET_S, BUDGET_OF_ALL_S = 50.0, 20.0
MOST_SHOWN = 120
"""The longest answer in the table, in characters."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom demo`."""
    options.add_repository(command)
    options.add_report(command, "results/demo", "the runs and the report are written here")
    command.add_argument(
        "--all",
        action="store_true",
        help="show every system that comes with Fathom, in one table (default: three models)",
    )
    command.add_argument(
        "--slo",
        metavar="pNN=LIMIT",
        help="service level objective of the measured capacities "
        f"(default: the one that each system proposes; with --precision all {SLO})",
    )
    command.add_argument(
        "--precision",
        choices=(*PRECISIONS, ALL),
        default=FP32,
        help="precision of the exported models; `all` serves and measures each, and ends with one table (default: "
        "%(default)s)",
    )
    command.add_argument(
        "--budget",
        type=options.duration_s,
        metavar="TIME",
        help=f"time for each search, as in 90s or 3m (default: {BUDGET_S:g}s; {BUDGET_OF_ALL_S:g}s with --all or "
        "--precision all)",
    )
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and print what it measured."""
    if arguments.precision == ALL:
        if arguments.all:
            raise UsageError("--all shows every system at one precision: leave out --precision all, or --all")
        return _run_precisions(arguments, Slo.parse(arguments.slo or SLO))
    done = demo.Demo(
        (*recipes.NAMES, *recipes.EXTRA) if arguments.all else recipes.NAMES,
        arguments.model_repository,
        arguments.report,
        arguments.budget or (BUDGET_OF_ALL_S if arguments.all else BUDGET_S),
        Slo.parse(arguments.slo) if arguments.slo else None,
        arguments.precision,
        tolerant=arguments.all,
    ).run()
    if arguments.json:
        print_json(done.to_json())
    elif arguments.all:
        out.print()
        out.print(systems_table(done))
        _print_last(report=str(done.report) if done.report.name else "", took=f"{done.seconds:.0f} s")
    else:
        _summary(done, arguments.model_repository)
    if done.trouble:
        raise ResultsError(done.trouble)
    if done.interrupted:
        return STOPPED
    return 1 if any(result.partial for result in done.capacities.values()) else 0


def _run_precisions(arguments: argparse.Namespace, slo: Slo) -> int:
    began = time.monotonic()
    budget_s = arguments.budget or BUDGET_OF_ALL_S
    with Steps() as steps:
        rows, interrupted = precisions.run(arguments.model_repository, arguments.report, slo, budget_s, steps)
    seconds = time.monotonic() - began
    if arguments.json:
        print_json({"precisions": [row.to_json() for row in rows], "slo": str(slo), "seconds": round(seconds, 1)})
        return STOPPED if interrupted else 0
    out.print()
    out.print(precision_table(rows))
    for reason, group in itertools.groupby(
        (row for row in rows if row.reason), key=lambda row: (row.model, row.reason)
    ):
        precisions_left = ", ".join(row.precision for row in group)
        out.print(f"  {reason[0]} is not offered at {precisions_left}: {reason[1]}", markup=False)
    out.print()
    out.print(f"  served by Triton on this CPU, capacity under {slo}; {cpu_features.sentence()}", markup=False)
    out.print(f"  took {seconds:.0f} s", markup=False)
    return STOPPED if interrupted else 0


def precision_table(rows: list[precisions.ServedPrecision]) -> Table:
    """Size, accuracy at the served station and capacity; `x fp32` compares the estimates, which no grid rounds."""
    heads = ("model", "precision", "size", "served accuracy", "min cosine", "capacity (95 %)", "x fp32", "proven")
    made = Table(*(Column(head, overflow="fold") for head in heads), box=None, pad_edge=False)
    full = {row.model: row.capacity for row in rows if row.precision == FP32}
    for row in rows:
        name = row.model if row.precision == FP32 else ""
        if row.served is None or row.capacity is None or row.bytes is None:
            made.add_row(name, row.precision, *("-" for _ in range(6)))
            continue
        estimate = row.capacity.capacity_estimate_per_s
        base, interval = full[row.model], row.capacity.capacity_estimate_interval_per_s
        base_estimate = base.capacity_estimate_per_s if base else None
        between = f" ({interval[0]:.0f} to {interval[1]:.0f})" if interval else ""
        made.add_row(
            name,
            row.precision,
            f"{row.bytes / 1e6:.2f} MB",
            "\n".join(f"{figure} {cell(value)}" for figure, value in row.served.accuracy.items()),
            f"{row.served.parity.min_cosine:.5f}" if row.served.parity else "-",
            "-" if estimate is None else f"{estimate:.0f}/s{between}",
            f"{estimate / base_estimate:.2f}" if estimate and base_estimate else "-",
            proven(row.capacity),
        )
    return made


def _summary(done: demo.DemoResult, repository: Path) -> None:
    given = "".join(f" {quote(word)}" for word in naming(repository))
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
        summary.show(result, options=given)
    out.print()
    _print_last(
        report=str(done.report) if done.report.name else "",
        serve=fathom("serve", repository=repository),
        ask=fathom("infer", "image_classifier", f"image=@{done.digit}", repository=repository),
        took=f"{done.seconds:.0f} s",
    )


def _print_last(**lines: str) -> None:
    for word, text in lines.items():
        if text:
            out.print(f"  {word:<{WORD_WIDTH}}{text}", markup=False)


def systems_table(done: demo.DemoResult) -> Table:
    """A row for each system: what it was asked and answered, its accuracy at each station, and what it holds."""
    heads = ("system", "question", "answer", "latency", "accuracy", "weights", "SLO", "capacity (95 %)")
    made = Table(*(Column(head, overflow="fold") for head in heads), box=None, pad_edge=False, show_lines=True)
    for shown in done.systems:
        name, found = shown.system.name, shown.capacity
        slos = map(str, found.slos) if found else shown.system.slos
        right = f"\n(right: {shown.truth})" if shown.truth else ""
        made.add_row(
            name,
            shown.question,
            "\n".join(
                filter(None, (textwrap.shorten(shown.answer, MOST_SHOWN, placeholder=" ...") + right, shown.reason))
            ),
            "" if shown.latency_ms is None else f"{shown.latency_ms:,.{0 if shown.latency_ms >= 10 else 1}f} ms",
            _accuracy(done, shown),
            _weights(shown),
            ", ".join(slos),
            _capacity(found) if found else "",
        )
    return made


def _accuracy(done: demo.DemoResult, shown: demo.Shown) -> str:
    """The recipe's first figure at each station, in the order in which data passes them."""
    measured, figure = done.models.get(shown.recipe.name, {}), shown.recipe.figures[0].name
    stations = [(at, measured[at].accuracy.get(figure)) for at in table_stations() if at in measured]
    return "\n".join([figure, *(f"{at} {cell(value)}" for at, value in stations)]) if stations else ""


def _weights(shown: demo.Shown) -> str:
    """Their source and licence; the document of --json also describes them."""
    if shown.weights is None:
        return ""
    source = "trained here" if shown.weights.trained_here else "real"
    return f"{source}, {shown.weights.licence}" if shown.weights.licence else source


def _capacity(found: CapacityResult) -> str:
    """The estimate with its interval, and the rate that is proven."""
    estimate, between = found.capacity_estimate_per_s, found.capacity_estimate_interval_per_s
    interval = f" ({about(between[0])} to {about(between[1])})" if between else ""
    return f"{'-' if estimate is None else f'{about(estimate)}/s{interval}'}\nproven {proven(found)}"


def table_stations() -> tuple[str, ...]:
    """The stations in the order that data passes them."""
    return ("source", "onnx", "served", "pipeline")
