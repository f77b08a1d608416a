"""The options of a load, shared by the commands that send one: its requests and their arrivals."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clients import Client
from export import recipes
from export.command import quote
from fathom.console import options
from fathom.console.output import note
from fathom.recipes import requests_of
from loadtests.slo import format_ms
from loadtests.target.access import Access
from loadtests.workload.arrivals import Arrivals, parse_arrivals
from loadtests.workload.inputs import files_of, with_inputs
from loadtests.workload.trace import Trace
from loadtests.workload.workload import ModelWeight

_LOOK_TIMEOUT_S = 10.0  # for the metadata alone


def add_inputs(command: argparse._ActionsContainer) -> None:
    """`--inputs`."""
    command.add_argument(
        "--inputs",
        action="append",
        default=[],
        metavar="[MODEL=]FILE",
        help="JSON Lines file of requests, one object of inputs per line; for several models repeat it as MODEL=FILE "
        "(default: the evaluation data of the model's recipe, else inputs made up from the server's metadata). For a "
        "model that keeps state, a line is a sequence: the first axis of each input counts its requests",
    )


def add_sequence_interval(command: argparse._ActionsContainer) -> None:
    """Declare `--sequence-interval`."""
    command.add_argument(
        "--sequence-interval",
        type=options.duration_s,
        metavar="TIME",
        help="time between two requests of a sequence, for a model that keeps state, as in 80ms; rates are then "
        "sequences/s, and an SLO limits the last request of each, or with gap: the slowest (default: the interval of "
        "the model's recipe)",
    )


def add_arrivals(command: argparse._ActionsContainer) -> None:
    """`--arrivals`."""
    command.add_argument(
        "--arrivals",
        metavar="LAW",
        help="how requests arrive: poisson (independent users), constant (evenly spaced), gamma:cv=2 (bursts; cv is "
        "the standard deviation of the gaps divided by their mean) or a CSV file of arrivals (default: poisson)",
    )


def chosen_arrivals(text: str | None) -> Arrivals | None:
    """What `--arrivals` asks for. Raises BadRequestError for an unknown law; prints how a recording varies."""
    arrivals = parse_arrivals(text) if text is not None else None
    if arrivals and arrivals.trace:
        describe_trace(arrivals.trace)
    return arrivals


def same_requests(arguments: argparse.Namespace) -> str:
    """The options for a command line that sends the same requests."""
    words = [word for entry in arguments.inputs for word in ("--inputs", entry)]
    words += ["--arrivals", arguments.arrivals] if arguments.arrivals else []
    words += ["--seed", str(arguments.seed)] if arguments.seed else []
    interval_s = getattr(arguments, "sequence_interval", None)
    words += ["--sequence-interval", format_ms(interval_s * 1e3)] if interval_s else []
    return "".join(f" {quote(word)}" for word in words)


def describe_trace(trace: Trace) -> None:
    """Print how its arrivals vary."""
    note(f"{trace.path.name}: {trace.variability.describe()}")


def with_requests(
    server: str,
    shares: Sequence[ModelWeight],
    repository: Path,
    access: Access,
    *,
    inputs: Sequence[str] = (),
    seed: int = 0,
) -> list[ModelWeight]:
    """Each model with the requests of its file in `inputs` (see `files_of`), else of its recipe's evaluation data, and
    with the interval between the requests of a sequence that its recipe names.

    A model that has neither is left without, and requests are made from the server's metadata. Raises BadRequestError
    and InputFileError for inputs that cannot be used.
    """
    files = files_of(inputs, list(dict.fromkeys(share.model for share in shares)))
    with Client(server, timeout_s=_LOOK_TIMEOUT_S, tls=access.tls, headers=access.headers) as client:
        recipes_own = [
            _in_time(share) if share.model in files else with_evaluation_data(client, share, repository, seed=seed)
            for share in shares
        ]
    return with_inputs(recipes_own, files, server, access)


def with_evaluation_data(client: Client, share: ModelWeight, repository: Path, *, seed: int = 0) -> ModelWeight:
    """The share with the requests of its model's recipe, or as it is where no recipe's data fits."""
    payloads, share = requests_of(client, share.model, repository, seed=seed), _in_time(share)
    source = "evaluation data" if recipes.bundled(share.model) else "example requests of the added model"
    return replace(share, payloads=payloads, source=source) if payloads else share


def _in_time(share: ModelWeight) -> ModelWeight:
    """With its recipe's interval between the requests of a sequence, where it has one."""
    system = recipes.system(share.model)
    return replace(share, interval_s=system.sequence_interval_s) if system else share
