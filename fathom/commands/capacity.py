"""Find how many requests a second a model holds under its SLOs, with a report.

Two numbers come out. The capacity, with its 95 % interval, is estimated from all probes together. The proven rate is
the highest whose confirmation runs, with fresh seeds, passed at 99 % confidence; it is conservative.

  fathom capacity image_classifier --slo p99=50ms
  fathom capacity my_model --slo p99=20ms --slo errors=0.1% --server triton.example:8001
  fathom capacity image_classifier --slo p99=50ms --against new_repository
  fathom capacity image_classifier=0.7 text_embedding=0.3 --slo p99=50ms --slo text_embedding:p50=10ms
  fathom capacity recipe_writer --slo ttft:p90=1s --slo itl:p90=150ms

Exit status 1 when no rate could be proven, or the server died; 130 when Ctrl-C ended it. What was measured until
then is kept in both cases, and --resume goes on with it. Exit status 2 after a result: it could not be written to disk.
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
from fathom.workload import add_arrivals, add_inputs, chosen_arrivals, same_requests, with_requests
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
        help="a model or pipeline of the server; several are asked at once, by weight",
    )
    options.add_slo(command)
    options.add_server(command)
    command.add_argument(
        "--budget",
        type=_budget_s,
        default=None,
        metavar="TIME",
        help="what all probes may take together, as in 90s or 3m; more of it proves a higher rate "
        "(default: auto, which goes on until --gap is reached, for at most 10m)",
    )
    command.add_argument(
        "--gap",
        type=float,
        metavar="SHARE",
        help="end as soon as the proven rate lies within this share of the estimate, or the estimate's interval is "
        f"this narrow (default with --budget auto: {AUTO_GAP:g}, that is {AUTO_GAP:.0%}%)",
    )
    command.add_argument(
        "--tolerance",
        type=float,
        default=0.03,
        metavar="SHARE",
        help="bisect until what held and what did not are this close (default: %(default)g, that is 3 %%)",
    )
    options.add_seed(command)
    command.add_argument(
        "--start",
        type=options.rate,
        metavar="RATE",
        help="first rate in requests/s (default: half of what one request after the other reaches)",
    )
    command.add_argument(
        "--max-rate", type=options.rate, metavar="RATE", help="never ask for more requests/s than this"
    )
    add_inputs(command)
    add_arrivals(command)
    options.add_generators(command)
    command.add_argument(
        "--locust-master",
        metavar="[HOST:]PORT",
        help="listen there for --workers Locust workers (locust -f loadtests/locustfile.py --worker), "
        "which then are the generators",
    )
    place = command.add_mutually_exclusive_group()
    place.add_argument(
        "--report", type=Path, metavar="DIR", help="raw results and report go to DIR/MODEL/START (default DIR: results)"
    )
    command.add_argument(
        "--metrics-url", metavar="URL", help="the server's Prometheus endpoint (default: port 8002 of its host)"
    )
    place.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="go on with the latest search in this folder, which was interrupted or gets a longer --budget",
    )
    command.add_argument(
        "--against",
        metavar="DIR|CONFIG|HOST:PORT",
        help="compare with a second server, measured in turns with the first (--budget is for each): another model "
        "repository, another named configuration of the models, or another server",
    )
    access_options.add_arguments(command)
    options.add_repository(command)
    options.add_tritonserver(command)
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Search, write the report, say what holds."""
    from fathom import against
    from loadtests import report

    slos = tuple(Slo.parse(text) for text in arguments.slo)
    shares = [ModelWeight.parse(text) for text in arguments.models]
    folder = arguments.resume or arguments.report or Path("results")
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
            access=access,
            arrivals=arrivals,
            budget_s=arguments.budget or AUTO_BUDGET_S,
            gap=AUTO_GAP if arguments.gap is None and arguments.budget is None else arguments.gap,
            tolerance=arguments.tolerance,
            seed=arguments.seed,
            start_per_s=arguments.start,
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
