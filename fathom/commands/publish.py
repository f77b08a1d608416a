"""Serve a new version of a model under load, and take it back when it fails.

  fathom publish minilm --from build/minilm/1 --server localhost:8001

The server must run with --model-control-mode=explicit --load-model=*. FATHOM_ADMIN_TOKEN is sent where it is set.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from clients import Client, InferenceError
from fathom.console import options
from fathom.console.arguments import UsageError
from fathom.console.output import err, print_json
from fathom.rollout import RolloutError, Rules, roll
from server.command import ADMIN_HEADER


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom publish`."""
    command.add_argument("model", metavar="MODEL", help="a model of the server, not a pipeline")
    command.add_argument(
        "--from", dest="files", type=Path, required=True, metavar="DIR", help="the new version's files, like MODEL/1"
    )
    command.add_argument(
        "--server",
        action="append",
        metavar="HOST:PORT",
        help=f"gRPC endpoint of every replica, itself and not a balancer (default: {options.DEFAULT_SERVER})",
    )
    options.add_repository(command)
    command.add_argument(
        "--tolerance",
        type=float,
        default=Rules.tolerance,
        metavar="SHARE",
        help="how far outputs may be from the old version's, as a share of the largest (default: %(default)g)",
    )
    command.add_argument("--no-parity", action="store_true", help="a model that is meant to answer otherwise")
    command.add_argument(
        "--watch", type=float, default=Rules.watch_s, metavar="S", help="seconds to watch it (default: %(default)g)"
    )
    command.add_argument(
        "--failed",
        type=float,
        default=Rules.failed_share,
        metavar="SHARE",
        help="share of its requests that may fail meanwhile (default: %(default)g)",
    )
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Roll out; exit status 1 when the version was refused or taken back."""
    if arguments.watch < 0 or not 0 <= arguments.failed < 1 or arguments.tolerance < 0:
        raise UsageError("--watch and --tolerance cannot be negative, --failed has to be between 0 and 1")
    rules = Rules(None if arguments.no_parity else arguments.tolerance, arguments.watch, arguments.failed)
    token = os.environ.get("FATHOM_ADMIN_TOKEN")
    headers = {f"triton-grpc-protocol-{ADMIN_HEADER}": token} if token else None
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Client(server, headers=headers))
            for server in arguments.server or [options.DEFAULT_SERVER]
        ]
        try:
            version = roll(clients, arguments.model, arguments.files, arguments.model_repository, rules, err.print)
        except RolloutError as error:
            print(f"fathom publish: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
        except InferenceError as error:
            if "explicit model load" not in error.details:
                raise
            raise UsageError(
                f"{error.endpoint or 'the server'} loads no models on request: start it with "
                "--model-control-mode=explicit --load-model=*"
            ) from error
    if arguments.json:
        print_json({"model": arguments.model, "version": version})
    else:
        err.print(f"version {version} of {arguments.model} is in service")
    return 0
