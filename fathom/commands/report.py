"""Make the HTML report of a capacity measurement again from its raw results."""

from __future__ import annotations

import argparse
from pathlib import Path

from fathom import options
from fathom.output import out, print_json


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom report`."""
    command.add_argument("folder", type=Path, metavar="DIR", help="a folder that `fathom capacity` or `demo` wrote")
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Write report.html and say where."""
    from loadtests import report

    path = report.write(arguments.folder)
    if arguments.json:
        print_json({"report": str(path)})
    else:
        out.print(str(path))
    return 0
