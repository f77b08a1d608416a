"""Send one load schedule or recorded trace to a model, or to several at once, and judge the result by your SLOs.

  fathom load rain_forecast --schedule 200 --duration 30s --slo p99=20ms
  fathom load image_classifier=0.7 text_embedding=0.3 --schedule ramp:20-200 --slo p99=50ms
  fathom load image_classifier text_embedding --trace trace.csv --slo p99=50ms

Exit status 1: the SLOs were missed, or the run had too few requests for a verdict.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from fathom.console import options
from fathom.console.arguments import STOPPED, UsageError
from fathom.console.live_table import coloured, points_table
from fathom.console.output import err, out, print_json, print_labelled, print_sentence
from fathom.console.servers import connect_with_metrics
from fathom.workload import (
    add_arrivals,
    add_inputs,
    add_sequence_interval,
    chosen_arrivals,
    describe_trace,
    with_requests,
)
from loadtests.capacity import CapacityRequest, load
from loadtests.judge.sequences import describe_sequences
from loadtests.judge.streams import describe_streams
from loadtests.records.point import Point
from loadtests.report.prose import busy_machine
from loadtests.report.requests import describe_requests, describe_sizes
from loadtests.search.unloaded import busy_share
from loadtests.slo import Slo
from loadtests.target import access_options
from loadtests.workload.shape import FORMS, Shape, parse_shape
from loadtests.workload.trace import Trace, read_trace
from loadtests.workload.workload import ModelWeight, name_of

_SCHEDULE = "10"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom load`."""
    command.add_argument(
        "models",
        nargs="+",
        metavar="MODEL[@PRIORITY][=WEIGHT]",
        help="model or pipeline to load, with the priority of its requests (1 is highest); several share the load by "
        "weight",
    )
    options.add_slo(command)
    when = command.add_mutually_exclusive_group()
    when.add_argument(
        "--schedule",
        metavar="SHAPE",
        help=f"request rate over time, in a form listed below (default: {_SCHEDULE})",
    )
    when.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="replay arrivals from a CSV file: offset in seconds (or a column offset_ms), optionally model and payload "
        "index; --arrivals FILE without --schedule does the same",
    )
    command.add_argument(
        "--duration",
        type=options.duration_s,
        default=30.0,
        metavar="TIME",
        help="length of the schedule (default: 30s)",
    )
    options.add_server(command)
    options.add_seed(command)
    add_inputs(command)
    add_sequence_interval(command)
    add_arrivals(command)
    options.add_generators(command)
    access_options.add_arguments(command)
    options.add_repository(command)
    options.add_json(command)
    command.epilog = "schedules:\n" + "\n".join(f"  {form:<22}{meaning}" for form, meaning in FORMS.items())


def run(arguments: argparse.Namespace) -> int:
    """Send the load, judge and print it."""
    slos = tuple(Slo.parse(text) for text in arguments.slo)
    shares = [ModelWeight.parse(text) for text in arguments.models]
    plan = _plan(arguments)
    access = access_options.read_access(arguments)
    models = list(dict.fromkeys(share.model for share in shares))
    with connect_with_metrics(arguments.server, arguments.model_repository, access, models) as (server, metrics_url):
        request = CapacityRequest(
            server=server,
            model=name_of(shares),
            slos=slos,
            metrics_url=metrics_url,
            mix=with_requests(
                server,
                shares,
                arguments.model_repository,
                access,
                inputs=arguments.inputs,
                seed=arguments.seed,
            ),
            interval_s=arguments.sequence_interval,
            access=access,
            seed=arguments.seed,
            workers=arguments.workers,
            real_time=arguments.real_time,
        )
        doubts = busy_machine(busy_share(request.timing.cpu_sample_s))
        settings: dict[str, Any] = {}
        with err.status(f"sending for {plan.duration_s:.4g} s"):
            point = load(request, plan, settings.update)
    if arguments.json:
        asked = {"model": request.model, "server": server, "slo": ", ".join(map(str, slos))}
        print_json({**asked, **point.to_json(), "settings": settings, "doubts": doubts})
    else:
        show(point, arguments.slo, settings, doubts)
    if point.stopped == "asked":
        return STOPPED
    return 0 if point.verdict == "pass" else 1


def _plan(arguments: argparse.Namespace) -> Shape | Trace:
    if arguments.trace:
        if arguments.arrivals:
            raise UsageError(f"--trace replays its own arrivals: leave out --arrivals {arguments.arrivals}")
        trace = read_trace(arguments.trace)
        describe_trace(trace)
        return trace
    arrivals = chosen_arrivals(arguments.arrivals)
    if arrivals and arrivals.trace and arguments.schedule is None:
        return arrivals.trace
    return parse_shape(arguments.schedule or _SCHEDULE, arguments.duration, arrivals)


def show(point: Point, slos: Sequence[str], settings: Mapping[str, Any], doubts: Sequence[str] = ()) -> None:
    """Print it for a person."""
    out.print(points_table([point], width=out.width))
    if point.models:
        out.print(models_table(point))
    print_sentence(f"{', '.join(slos)}: {point.verdict}, {point.reason}")
    if streams := describe_streams(point):
        print_labelled("tokens", streams)
    if sequences := describe_sequences(point):
        print_labelled("sequences", sequences)
    print_labelled("requests", describe_requests(settings))
    if by_size := describe_sizes(point):
        print_labelled("by size", by_size)
    if point.load and point.load.rejected:
        print_labelled("refused", f"{point.load.rejected:,} by the server, whose queue was full or too slow for them")
    for doubt in doubts:
        print_labelled("warning", doubt)


def models_table(point: Point) -> Table:
    """Each model of a mix."""
    table = Table("model", box=None, pad_edge=False)
    for name in ("requests", "failed", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for entry in point.models:
        values = ("-" if value is None else f"{value:.2f}" for value in (entry.p50_ms, entry.p99_ms))
        table.add_row(entry.model, str(entry.requests), str(entry.errors), *values, coloured(entry.verdict))
    return table
