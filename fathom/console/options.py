"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
import math
import re
import shutil
from pathlib import Path

from export.command import default_repository
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
        help="folder of models that Triton loads (default: model_repository/ here or beside the package; "
        "FATHOM_MODEL_REPOSITORY overrides it)",
    )


def add_server(command: argparse._ActionsContainer) -> None:
    """`--server`."""
    command.add_argument(
        "--server",
        metavar="HOST:PORT",
        help=f"gRPC endpoint of any KServe-v2 server (default: {DEFAULT_SERVER}, or one started for this)",
    )


def add_slo(command: argparse._ActionsContainer) -> None:
    """`--slo`, once or several times."""
    command.add_argument(
        "--slo",
        action="append",
        required=True,
        metavar="pNN=LIMIT",
        help="what must hold, as in p99=50ms or errors=0.1%%, and of streamed answers ttft:p99=1s, itl:p99=150ms or "
        "gap:p99=500ms; may be given several times",
    )


def add_seed(command: argparse._ActionsContainer) -> None:
    """`--seed`."""
    command.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of arrivals and inputs: the same seed sends the same requests at the same times (default: %(default)s)",
    )


def add_generators(command: argparse._ActionsContainer) -> None:
    """`--workers` and `--no-real-time`."""
    command.add_argument(
        "--workers",
        type=count,
        default=1,
        metavar="N",
        help="generator processes that share the load (default: 1)",
    )
    command.add_argument(
        "--no-real-time",
        action="store_false",
        dest="real_time",
        help="leave the generators at normal priority; they take real-time priority where they may, to send on time",
    )


def add_tritonserver(command: argparse._ActionsContainer) -> None:
    """`--tritonserver`."""
    command.add_argument(
        "--tritonserver",
        type=Path,
        metavar="PATH",
        help="the Triton to start: its program, or its folder (default: /opt/tritonserver where there is one, else "
        "that of the wheel; FATHOM_TRITONSERVER overrides it)",
    )


def add_allow_source(command: argparse._ActionsContainer) -> None:
    """`--allow-source`."""
    command.add_argument(
        "--allow-source",
        action="store_true",
        help="run the code, and read the files outside its folder, that an added model's recipe.toml names, from now "
        "on; what `fathom add` added on this machine is allowed already",
    )


def add_json(command: argparse._ActionsContainer) -> None:
    """`--json`."""
    command.add_argument("--json", action="store_true", help="print one JSON document; progress goes to stderr")


def duration_s(text: str) -> float:
    """`180`, `90s`, `3m` or `1h` in seconds, as a type for argparse."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a length of time above zero; write 90, 90s, 3m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def folder(text: str) -> Path:
    """A folder that is there, as a type for argparse."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"'{text}' is not a folder" if Path(text).exists() else f"no folder '{text}'")
    return Path(text)


def port(text: str) -> int:
    """A TCP port, or 0 for a free one, as a type for argparse."""
    if not (text.isdecimal() and int(text) <= _MOST_PORT):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a port; give one from 1 to {_MOST_PORT}, or 0 for a free one"
        )
    return int(text)


def count(text: str) -> int:
    """A whole number above zero, as a type for argparse."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above zero")
    return int(text)


def rate(text: str) -> float:
    """Requests a second, `200` or `200/s`, as a type for argparse."""
    try:
        found = float(text.removesuffix("/s"))
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and found > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is not a rate above zero; write requests a second, as in 200")
    return found


def default_config_name(repository: Path, tritonserver: Path | None = None) -> str | None:
    """The named configuration for this machine where some model has it: `cpu` where there is no NVIDIA driver, `gpu`
    where there is one and the Triton there runs engines."""
    name = "cpu"
    if shutil.which("nvidia-smi"):
        if not environment.runs_engines(tritonserver):
            return None
        name = "gpu"
    return name if list(repository.glob(f"*/configs/{name}.pbtxt")) else None
