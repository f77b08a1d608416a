"""Write the HTML report of a measurement again from its raw results, or compare several measurements.

  fathom report results
  fathom report --compare before after

A comparison is between the first folder and each of the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fathom.console import options
from fathom.console.arguments import UsageError
from fathom.console.output import out, print_json, print_labelled, print_sentence


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom report`."""
    command.add_argument(
        "folder",
        type=Path,
        nargs="?",
        metavar="DIR",
        help="folder of results; the latest run of each model is used",
    )
    command.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="two or more folders of results, or of single runs, to compare; the earliest first",
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file for the comparison (default: comparison.html in the last folder)",
    )
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Write the page and print its path."""
    if (arguments.folder is None) == (arguments.compare is None):
        raise UsageError("give one folder, as in `fathom report results`, or --compare with two or more")
    return _compare(arguments) if arguments.compare else _report(arguments)


def _report(arguments: argparse.Namespace) -> int:
    from loadtests import report

    path = report.write(arguments.folder)
    if arguments.json:
        print_json({"report": str(path)})
    else:
        out.print(str(path), markup=False)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from loadtests.report import comparison_page

    path = arguments.output or arguments.compare[-1] / "comparison.html"
    found = comparison_page.write(arguments.compare, path)
    if arguments.json:
        print_json({"report": str(path), "comparisons": [comparison.to_json() for comparison in found]})
        return 0
    for comparison in found:
        print_sentence(f"{comparison.model} under {comparison.slo}")
        for change in comparison.changes:
            print_labelled("found", change.sentence)
            for line in change.notes:
                print_labelled("warning", line)
        if comparison.advice:
            print_labelled("next", comparison.advice)
    out.print(f"  report: {path}", markup=False)
    return 0
