"""Run the benchmarks: `python -m benchmarks [NAME ...]`; a table on stdout, everything in results/bench.json."""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

from rich.table import Table
from rich.text import Text

from benchmarks import bulk, client, generation, generator, idle, rates, served, shared_memory
from benchmarks.row import Row
from export import recipes
from export.command import default_repository
from export.exporter import export_model
from fathom.console.output import Steps, out
from loadtests.target.hardware import describe_hardware

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
    command.add_argument("--results", type=Path, default=Path("results/bench.json"), metavar="FILE")
    arguments = command.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        command.error(f"there is no benchmark '{unknown.pop()}': choose {', '.join(BENCHMARKS)}")
    repository = default_repository()
    rows: list[Row] = []
    with Steps() as steps:
        with steps.step("export"):
            for name in recipes.NAMES:
                export_model(recipes.find(name), repository)
        for name in arguments.names or BENCHMARKS:
            with steps.step(name):
                rows += BENCHMARKS[name](repository)
    document = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "hardware": describe_hardware(),
        "rows": [row.to_json() for row in rows],
    }
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps(document, indent=2) + "\n")
    out.print(table(rows))


def table(rows: list[Row]) -> Table:
    """Median, extremes and bound of each row."""
    made = Table("measured", "median", "min to max", "wanted", "", "detail", box=None, pad_edge=False)
    for row in rows:
        mark = {True: Text("reached", "green"), False: Text("missed", "red"), None: Text()}[row.reached]
        spread = f"{row.low:.3g} to {row.high:.3g}, n={row.repetitions}"
        made.add_row(row.name, f"{row.value:.3g} {row.unit}", spread, row.wanted, mark, row.detail)
    return made


if __name__ == "__main__":
    main()
