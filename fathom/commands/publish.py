"""Put a new version of a model into service under load, and roll back if it fails.

  fathom publish minilm --from build/minilm/1 --server localhost:8001

The server must run with --model-control-mode=explicit --load-model=*. Fathom sends FATHOM_ADMIN_TOKEN if it is set, and
finds the token of your own `fathom serve` on this machine.
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
    command.add_argument("model", metavar="MODEL", help="model to update (not a pipeline)")
    command.add_argument(
        "--from",
        dest="files",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with the files of the new version, like MODEL/1",
    )
    command.add_argument(
        "--server",
        action="append",
        metavar="HOST:PORT",
        help=f"gRPC address of a replica, not of a load balancer; repeat it for each replica (default: "
        f"{options.DEFAULT_SERVER})",
    )
    options.add_repository(command)
    command.add_argument(
        "--parity",
        type=options.share,
        default=Rules.tolerance,
        metavar="SHARE",
        help="largest difference to the outputs of the old version, relative to its largest output (default: 2%%)",
    )
    command.add_argument(
        "--no-parity", action="store_const", const=None, dest="parity", help="do not compare with the old version"
    )
    command.add_argument(
        "--watch",
        type=_watch_s,
        default=Rules.watch_s,
        metavar="TIME",
        help="how long to watch the new version under traffic; 0 for not at all (default: 30s)",
    )
    command.add_argument(
        "--max-failed",
        type=options.share,
        default=Rules.failed_share,
        metavar="SHARE",
        help="share of the watched requests that may fail (default: 0.1%%)",
    )
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Roll out; exit status 1 if the version was refused or rolled back, or got no traffic while it was watched."""
    if arguments.max_failed == 1:
        raise UsageError("--max-failed 100% would accept any version: allow less")
    rules = Rules(arguments.parity, arguments.watch, arguments.max_failed)
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


def _watch_s(text: str) -> float:
    """A time, or 0 for not at all."""
    return 0.0 if text == "0" else options.duration_s(text)


def _confirmation(watched: Watched | None, rules: Rules) -> str:
    """What watching the version showed, as the end of a sentence."""
    if watched is None:
        return "; it was not watched"
    if not watched.requests:
        return f", unconfirmed: no request reached it in {rules.watch_s:g} s; watch it under traffic, or use --watch 0"
    text = f"; {watched.failed:,} of {watched.requests:,} requests failed in {rules.watch_s:g} s"
    if watched.verdict == "undecided":
        text += f", too few to confirm a share of at most {rules.failed_share:g}"
        if rules.failed_share:
            text += f" (needs {required_requests(1 - rules.failed_share, watched.failed):,})"
    return text + (f"; no request reached {', '.join(watched.idle)}" if watched.idle else "")
