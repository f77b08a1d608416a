"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Callable
from pathlib import Path

from export.command import default_repository
from loadtests import quantities
from server import environment

DEFAULT_SERVER = "localhost:8001"
_MOST_PORT = 65535


def add_repository(command: argparse._ActionsContainer) -> None:
    """`--model-repository`."""
    command.add_argument(
        "--model-repository",
        type=folder,
        default=default_repository(),
        metavar="DIR",
        help="model repository (default: FATHOM_MODEL_REPOSITORY, else model_repository/ in this folder, else the one "
        "beside the package)",
    )


def add_server(command: argparse._ActionsContainer) -> None:
    """`--server`."""
    command.add_argument(
        "--server",
        metavar="HOST:PORT",
        help=f"gRPC address of a KServe-v2 server (default: {DEFAULT_SERVER}; if none runs there, Fathom starts one)",
    )


def add_report(command: argparse._ActionsContainer, default: str, what: str) -> None:
    """`--report`, the folder of results; `what` is done with it, or lies there."""
    command.add_argument(
        "--report",
        type=Path,
        default=Path(default),
        metavar="DIR",
        help=f"folder of results: {what} (default: {default})",
    )


def add_report_or_resume(command: argparse._ActionsContainer, default: str) -> None:
    """`--report` for a new run, and `--resume` instead of it."""
    place = command.add_mutually_exclusive_group()
    add_report(place, default, "the run is written to DIR/MODEL/DATE_TIME")
    place.add_argument("--resume", type=Path, metavar="DIR", help="folder of results: continue its latest run")


def add_slo(command: argparse._ActionsContainer) -> None:
    """`--slo`, once or several times."""
    command.add_argument(
        "--slo",
        action="append",
        required=True,
        metavar="pNN=LIMIT",
        help="service level objective: a percentile of the latency with its limit, as in p99=50ms, or a share of "
        "failed requests, as in errors=0.1%%; for streamed answers ttft:p99=1s (time to first token), itl:p99=150ms "
        "(inter-token latency) or gap:p99=500ms (longest gap between tokens); can be repeated",
    )


def add_seed(command: argparse._ActionsContainer) -> None:
    """`--seed`."""
    command.add_argument(
        "--seed",
        type=whole,
        default=0,
        metavar="N",
        help="seed of arrivals and inputs; the same seed sends the same requests at the same times (default: 0)",
    )


def add_generators(command: argparse._ActionsContainer) -> None:
    """`--workers` and `--no-real-time`."""
    command.add_argument(
        "--workers",
        type=count,
        default=1,
        metavar="N",
        help="generator processes that send the load together (default: 1)",
    )
    command.add_argument(
        "--no-real-time",
        action="store_false",
        dest="real_time",
        help="run the generators at normal priority (default: real-time priority, if the system allows it)",
    )


def add_tritonserver(command: argparse._ActionsContainer) -> None:
    """`--tritonserver`."""
    command.add_argument(
        "--tritonserver",
        type=Path,
        metavar="PATH",
        help="program or folder of the Triton to start (default: FATHOM_TRITONSERVER, else /opt/tritonserver, else the "
        "installed wheel)",
    )


def add_allow_source(command: argparse._ActionsContainer) -> None:
    """`--allow-source`."""
    command.add_argument(
        "--allow-source",
        action="store_true",
        help="allow the recipe.toml of an added model to run code and to read files outside its folder, now and later; "
        "models added on this machine are allowed already",
    )


def add_json(command: argparse._ActionsContainer) -> None:
    """`--json`."""
    command.add_argument(
        "--json", action="store_true", help="print one JSON document on stdout; progress goes to stderr"
    )


def duration_s(text: str) -> float:
    """A time above zero, such as `90`, `90s`, `3m` or `80ms`, in seconds: a type for argparse."""
    found = _understood(quantities.seconds, text)
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' must be above zero: write 90, 90s, 3m or 80ms")
    return found


def share(text: str) -> float:
    """`3%` or `0.03` as a part of one: a type for argparse."""
    return _understood(quantities.share, text)


def folder(text: str) -> Path:
    """A folder that is there, as a type for argparse."""
    if not Path(text).is_dir():
        what = "is not a folder" if Path(text).exists() else "does not exist"
        raise argparse.ArgumentTypeError(f"'{text}' {what}")
    return Path(text)


def port(text: str) -> int:
    """A TCP port, or 0 for a free one, as a type for argparse."""
    if not (text.isdecimal() and int(text) <= _MOST_PORT):
        raise argparse.ArgumentTypeError(f"'{text}' is not a port: use 1 to {_MOST_PORT}, or 0 for a free one")
    return int(text)


def count(text: str) -> int:
    """A whole number above zero, as a type for argparse."""
    if not (found := whole(text)):
        raise argparse.ArgumentTypeError(f"'{text}' must be 1 or more")
    return found


def whole(text: str) -> int:
    """A whole number, 0 or more, as a type for argparse."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 0 or more")
    return int(text)


def rate(text: str) -> float:
    """Requests a second, `200` or `200/s`, as a type for argparse."""
    try:
        found = float(text.removesuffix("/s"))
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and found > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is not a rate: write requests per second above zero, as in 200")
    return found


def _understood(read: Callable[[str], float], text: str) -> float:
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def default_config_name(repository: Path, tritonserver: Path | None = None) -> str | None:
    """The named configuration for this machine where some model has it: `cpu` where there is no NVIDIA driver, `gpu`
    where there is one and the Triton there runs engines."""
    name = "cpu"
    if shutil.which("nvidia-smi"):
        if not environment.runs_engines(tritonserver):
            return None
        name = "gpu"
    return name if list(repository.glob(f"*/configs/{name}.pbtxt")) else None
