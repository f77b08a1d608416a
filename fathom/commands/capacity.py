"""Measure the highest request rate at which a model meets your SLOs, and write a report.

A probe sends requests at one rate and checks the SLOs. The result of a search over many rates has two numbers. The
capacity is estimated from all probes, with its 95 % interval. The proven rate is lower: at this rate, confirmation runs
with fresh seeds met the SLOs with 99 % confidence.

  fathom capacity image_classifier --slo p99=50ms
  fathom capacity my_model --slo p99=20ms --slo errors=0.1% --server triton.example:8001
  fathom capacity image_classifier --slo p99=50ms --against new_repository
  fathom capacity image_classifier=0.7 text_embedding=0.3 --slo p99=50ms --slo text_embedding:p50=10ms
  fathom capacity recipe_writer --slo ttft:p90=1s --slo itl:p90=150ms
  fathom capacity voice_command --slo p99=100ms --slo gap:p99=200ms --sequence-interval 80ms

Exit status 0: a rate was proven. 1: none was, or the server died. 130: you pressed Ctrl-C. 2 after a printed result:
Fathom could not write it to disk. After 1 and 130, the results so far are kept. --resume continues such a search, or a
finished one with a longer --budget.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from export.command import quote
from fathom.console import options, summary
from fathom.console.arguments import STOPPED
from fathom.console.live_table import live_table
from fathom.console.output import note, out, print_json
from fathom.console.servers import connect_with_metrics, same_server
from fathom.recipes import manifest_of
from fathom.workload import (
    add_arrivals,
    add_inputs,
    add_sequence_interval,
    chosen_arrivals,
    same_requests,
    with_requests,
)
from loadtests.capacity import CapacityRequest
from loadtests.errors import ResultsError, SloUnreachableError
from loadtests.finding import find
from loadtests.results.result import INTERRUPTED, CapacityResult, summarise
from loadtests.search.budget import AUTO_BUDGET_S, AUTO_GAP
from loadtests.slo import Slo
from loadtests.target import access_options
from loadtests.target.hardware import available_memory
from loadtests.workload.arrivals import POISSON
from loadtests.workload.workload import ModelWeight, name_of


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom capacity`."""
    command.add_argument(
        "models",
        nargs="+",
        metavar="MODEL[@PRIORITY][=WEIGHT]",
        help="model or pipeline to measure, with the priority of its requests (1 is highest); several share the load "
        "by weight",
    )
    options.add_slo(command)
    options.add_server(command)
    command.add_argument(
        "--budget",
        type=_budget_s,
        default=None,
        metavar="TIME",
        help="time for all probes together, as in 90s or 3m; a longer budget can prove a higher rate (default: auto, "
        "which stops when --gap is reached, after 10m at the latest)",
    )
    command.add_argument(
        "--gap",
        type=options.share,
        metavar="SHARE",
        help="stop when the proven rate is this close to the estimated capacity, or the estimate's interval this "
        f"narrow (default with --budget auto: {AUTO_GAP:.0%}%)",
    )
    command.add_argument(
        "--tolerance",
        type=options.share,
        default=0.03,
        metavar="SHARE",
        help="bisect until the highest rate that met the SLOs and the lowest that missed them are this close (default: "
        "3%%)",
    )
    options.add_seed(command)
    command.add_argument(
        "--start-rate",
        type=options.rate,
        metavar="RATE",
        help="first rate to try, in requests/s (default: half the rate of one request after another)",
    )
    command.add_argument("--max-rate", type=options.rate, metavar="RATE", help="highest rate to try, in requests/s")
    add_inputs(command)
    add_sequence_interval(command)
    add_arrivals(command)
    options.add_generators(command)
    command.add_argument(
        "--locust-master",
        metavar="[HOST:]PORT",
        help="listen here for --workers Locust workers (locust -f loadtests/locustfile.py --worker), and let them send "
        "the load",
    )
    options.add_report_or_resume(command, "results")
    command.add_argument(
        "--metrics-url", metavar="URL", help="Prometheus endpoint of the server (default: port 8002 of its host)"
    )
    command.add_argument(
        "--against",
        metavar="DIR|CONFIG|HOST:PORT",
        help="compare with a second server, probed in turns with the first, each within --budget: another model "
        "repository, another named configuration, or the address of another server",
    )
    access_options.add_arguments(command)
    options.add_repository(command)
    options.add_tritonserver(command)
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Search, write the report and print the result."""
    from fathom import against
    from loadtests import report

    slos = tuple(Slo.parse(text) for text in arguments.slo)
    shares = [ModelWeight.parse(text) for text in arguments.models]
    folder = arguments.resume or arguments.report
    repository = arguments.model_repository
    access = access_options.read_access(arguments)
    models = list(dict.fromkeys(share.model for share in shares))
    if arguments.against:
        against.check(arguments, models)
    free = available_memory()
    arrivals = chosen_arrivals(arguments.arrivals) or POISSON
    with connect_with_metrics(arguments.server, repository, access, models, arguments.tritonserver) as (
        server,
        metrics_url,
    ):
        request = CapacityRequest(
            server=server,
            model=name_of(shares),
            slos=slos,
            mix=with_requests(server, shares, repository, access, inputs=arguments.inputs, seed=arguments.seed),
            interval_s=arguments.sequence_interval,
            access=access,
            arrivals=arrivals,
            budget_s=arguments.budget or AUTO_BUDGET_S,
            gap=AUTO_GAP if arguments.gap is None and arguments.budget is None else arguments.gap,
            tolerance=arguments.tolerance,
            seed=arguments.seed,
            start_per_s=arguments.start_rate,
            max_per_s=arguments.max_rate,
            workers=arguments.workers,
            real_time=arguments.real_time,
            locust_master=arguments.locust_master,
            folder=folder,
            resume=arguments.resume is not None,
            metrics_url=arguments.metrics_url or metrics_url,
            manifest=manifest_of(shares[0].model, repository) if len(shares) == 1 else None,
        )
        if arguments.against:
            taken = None if metrics_url is None else (free or 0) - (available_memory() or 0)
            return against.measure(arguments, request, taken)
        try:
            with live_table(request.budget_s, slos, transient=arguments.json) as show:
                result = find(request, on_point=show, on_note=note)
        except SloUnreachableError as error:
            return _unreachable(request, error, as_json=arguments.json)
    path = None
    try:
        if result.folder is not None and not result.unsaved:
            path = report.write(Path(result.folder))
    finally:  # whatever becomes of the report, what was measured is printed
        _print(arguments, result, path)
    if result.unsaved:
        raise ResultsError(result.unsaved)
    if result.ended_because == INTERRUPTED:
        return STOPPED
    return 0 if result.verdict == "pass" and not result.partial else 1


def _budget_s(text: str) -> float | None:
    """A length of time; None for `auto`."""
    return None if text == "auto" else options.duration_s(text)


def _print(arguments: argparse.Namespace, result: CapacityResult, path: Path | None) -> None:
    if arguments.json:
        print_json({**result.to_json(), "report": str(path) if path else None})
        return
    given = f" --tritonserver {quote(str(arguments.tritonserver))}" if arguments.tritonserver else ""
    summary.show(result, options=given + same_requests(arguments) + same_server(arguments))
    if path:
        out.print(f"  report: {path}", markup=False, soft_wrap=True)


def _unreachable(request: CapacityRequest, error: SloUnreachableError, *, as_json: bool) -> int:
    """The SLO is missed without any load: a result without points, and no report."""
    if as_json:
        nothing = summarise(
            (),
            request.slos,
            model=request.model,
            server=request.server,
            base_seed=request.seed,
            manifest=request.manifest,
        )
        missed = replace(nothing, verdict="fail", reason=str(error))
        print_json({**missed.to_json(), "report": None})
    else:
        print(f"fathom capacity: {error}", file=sys.stderr)
    return 1
