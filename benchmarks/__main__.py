"""Measure the project's claims: `python -m benchmarks [NAME ...]` renews benchmarks/results.json and its page."""

from __future__ import annotations

import argparse

from rich.table import Table
from rich.text import Text

from benchmarks import bulk, client, generation, generator, idle, rates, results, served, shared_memory
from benchmarks.results import Measured
from benchmarks.row import Row
from export import recipes
from export.command import default_repository
from export.exporter import export_model
from fathom.console.output import Steps, out
from loadtests.slo import about

BENCHMARKS = {
    "served": served.measure,
    "generator": generator.measure,
    "rates": rates.measure,
    "client": client.measure,
    "bulk": bulk.measure,
    "shared_memory": shared_memory.measure,
    "idle": idle.measure,
    "generation": generation.measure,
}


def main() -> None:
    """Measure what is named (all by default), one benchmark after the other on an otherwise quiet machine."""
    command = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    command.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHMARKS)} (default: all)")
    arguments = command.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        command.error(f"there is no benchmark '{unknown.pop()}': choose {', '.join(BENCHMARKS)}")
    repository = default_repository()
    found = results.read()
    measured: list[Row] = []
    with Steps() as steps:
        with steps.step("export"):
            for name in recipes.NAMES:
                export_model(recipes.find(name), repository)
        for name in arguments.names or BENCHMARKS:
            with steps.step(name):
                rows = BENCHMARKS[name](repository)
            found[name] = Measured.now(rows)
            results.write(found)  # at once: the next one may take long, or fail
            measured += rows
    results.PAGE.write_text(results.page(found), encoding="utf-8")
    out.print(table(measured))


def table(rows: list[Row]) -> Table:
    """Median, extremes and bound of each row."""
    made = Table("measured", "median", "min to max", "wanted", "", "detail", box=None, pad_edge=False)
    for row in rows:
        mark = {True: Text("reached", "green"), False: Text("missed", "red"), None: Text()}[row.reached]
        spread = f"{about(row.low)} to {about(row.high)}, n={row.repetitions}"
        made.add_row(row.name, f"{about(row.value)} {row.unit}", spread, row.wanted, mark, row.detail)
    return made


if __name__ == "__main__":
    main()
