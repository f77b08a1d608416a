"""The `fathom` command: a table of subcommands, and the one place where errors become a line and an exit status.

Exit status: 0 done; 1 a check, an SLO or an accuracy gate failed; 2 the command could not be carried out.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from clients import InferenceError
from export.errors import ExportError
from fathom import __version__
from fathom.commands import add, capacity, check, demo, export, infer, load, plan, precision, publish, report, serve
from fathom.errors import UsageError
from loadtests.errors import LoadTestError
from server import TritonServerError

COMMANDS = {
    "demo": demo,
    "export": export,
    "add": add,
    "precision": precision,
    "check": check,
    "serve": serve,
    "infer": infer,
    "capacity": capacity,
    "load": load,
    "report": report,
    "plan": plan,
    "publish": publish,
}
USER_ERRORS = (UsageError, ExportError, TritonServerError, InferenceError, LoadTestError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        status: int = options.run(options)
    except USER_ERRORS as error:
        print(f"fathom {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"fathom {options.command}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        sys.stderr.close()
        return 141
    return status


def parser() -> argparse.ArgumentParser:
    """The whole command line; also what the documentation's option tables are checked against."""
    top = argparse.ArgumentParser(
        prog="fathom", description="From a trained model to a measured Triton deployment.", allow_abbrev=False
    )
    top.add_argument("--version", action="version", version=f"fathom {__version__}")
    subcommands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or "").strip().splitlines()[0]
        command = subcommands.add_parser(
            name,
            help=summary[0].lower() + summary[1:].rstrip("."),
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return top


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
