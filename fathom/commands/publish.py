"""Serve a new version of a model under load, and roll back when it fails.

  fathom publish minilm --from build/minilm/1 --server localhost:8001

The server must run with --model-control-mode=explicit --load-model=*. FATHOM_ADMIN_TOKEN is sent where it is set. The
token of your own `fathom serve` on this machine is found without it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from pathlib import Path

from clients import Client
from fathom.console import options
from fathom.console.arguments import UsageError
from fathom.console.output import err, print_json
from fathom.replica import RolloutError, Rules
from fathom.rollout import Watched, roll
from loadtests.judge.verdict import required_requests
from server import admin


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
        "--watch",
        type=float,
        default=Rules.watch_s,
        metavar="S",
        help="seconds of traffic to watch (default: %(default)g)",
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
    """Roll out; exit status 1 when the version was refused or rolled back, or met no traffic while it was watched."""
    if arguments.watch < 0 or not 0 <= arguments.failed < 1 or arguments.tolerance < 0:
        raise UsageError("--watch and --tolerance cannot be negative, --failed has to be between 0 and 1")
    rules = Rules(None if arguments.no_parity else arguments.tolerance, arguments.watch, arguments.failed)
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Client(server, headers=admin.headers(server)))
            for server in arguments.server or [options.DEFAULT_SERVER]
        ]
        try:
            rollout = roll(clients, arguments.model, arguments.files, arguments.model_repository, rules, err.print)
        except RolloutError as error:
            print(f"fathom publish: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
    if arguments.json:
        watched = None if rollout.watched is None else dataclasses.asdict(rollout.watched)
        print_json({"model": arguments.model, "version": rollout.version, "watched": watched})
    err.print(f"version {rollout.version} of {arguments.model} is in service{_confirmation(rollout.watched, rules)}")
    return 1 if rollout.watched is not None and not rollout.watched.requests else 0


def _confirmation(watched: Watched | None, rules: Rules) -> str:
    """What the watch says of the version, as the end of a sentence."""
    if watched is None:
        return "; it was not watched"
    if not watched.requests:
        return f", unconfirmed: no request reached it in {rules.watch_s:g} s; watch it under traffic, or give --watch 0"
    text = f"; {watched.failed:,} of {watched.requests:,} requests failed in {rules.watch_s:g} s"
    if watched.verdict == "undecided":
        text += f", too few to confirm a share of at most {rules.failed_share:g}"
        if rules.failed_share:
            text += f" (needs {required_requests(1 - rules.failed_share, watched.failed):,})"
    return text + (f"; no request reached {', '.join(watched.idle)}" if watched.idle else "")
