"""Find how many requests a second a model holds under its SLOs, with a report.

Two numbers come out. The certified capacity is the highest rate whose confirmation, with a fresh seed, passed at 99 %
confidence; it is conservative. The estimate, with its 95 % interval, comes from all points together.

  fathom capacity image_classifier --slo p99=50ms
  fathom capacity my_model --slo p99=20ms --slo errors=0.1% --server triton.example:8001
  fathom capacity image_classifier=0.7 text_embedding=0.3 --slo p99=50ms --slo text_embedding:p50=10ms

Exit status 1 when no rate could be certified.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.live import Live
from rich.table import Table

from clients import Client
from fathom import options, payloads
from fathom.manifests import manifest_of
from fathom.output import err, out, print_json
from fathom.servers import connect_with_metrics
from loadtests.capacity import CapacityRequest, find
from loadtests.point import Point
from loadtests.result import CapacityResult
from loadtests.slo import Slo, describe_slos
from loadtests.traffic import ModelShare, name_of

COLOURS = {"pass": "green", "fail": "red", "invalid": "magenta"}


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom capacity`."""
    command.add_argument(
        "models",
        nargs="+",
        metavar="MODEL[=WEIGHT]",
        help="a model or pipeline of the server; several are asked at once, by weight",
    )
    command.add_argument(
        "--slo",
        action="append",
        required=True,
        metavar="pNN=LIMIT",
        help="what must hold, as in p99=50ms or errors=0.1%%; may be given several times",
    )
    command.add_argument(
        "--server",
        metavar="HOST:PORT",
        help=f"gRPC endpoint of any KServe-v2 server (default: {options.DEFAULT_SERVER}, or one started for this)",
    )
    command.add_argument(
        "--budget",
        type=options.duration_s,
        default=180.0,
        metavar="TIME",
        help="what all probes may take together, as in 90s or 3m; more of it certifies a higher rate (default: 3m)",
    )
    command.add_argument(
        "--tolerance",
        type=float,
        default=0.03,
        metavar="SHARE",
        help="bisect until what held and what did not are this close (default: %(default)g, that is 3 %%)",
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="base of all seeds (default: %(default)s)")
    command.add_argument(
        "--start",
        type=float,
        metavar="RATE",
        help="first rate in requests/s (default: half of what one request after the other reaches)",
    )
    command.add_argument("--max-rate", type=float, metavar="RATE", help="never ask for more requests/s than this")
    command.add_argument(
        "--workers", type=int, default=1, metavar="N", help="generator processes that share the load (default: 1)"
    )
    command.add_argument(
        "--locust-master",
        metavar="[HOST:]PORT",
        help="listen there for --workers Locust workers (locust -f loadtests/locustfile.py --worker), "
        "which then are the generators",
    )
    command.add_argument(
        "--report", type=Path, metavar="DIR", help="where raw results and report go (default: results/)"
    )
    command.add_argument(
        "--metrics-url", metavar="URL", help="the server's Prometheus endpoint (default: port 8002 of its host)"
    )
    command.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="go on with the search in this folder, which was interrupted or gets a longer --budget",
    )
    options.add_repository(command)
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Search, write the report, say what holds."""
    from loadtests import report

    slos = tuple(Slo.parse(text) for text in arguments.slo)
    shares = [ModelShare.parse(text) for text in arguments.models]
    folder = arguments.resume or arguments.report or Path("results")
    repository = arguments.model_repository
    with connect_with_metrics(arguments.server, repository) as (server, metrics_url):
        request = CapacityRequest(
            server=server,
            model=name_of(shares),
            slos=slos,
            mix=traffic(server, shares, repository),
            budget_s=arguments.budget,
            tolerance=arguments.tolerance,
            seed=arguments.seed,
            start_per_s=arguments.start,
            max_per_s=arguments.max_rate,
            workers=arguments.workers,
            locust_master=arguments.locust_master,
            folder=folder,
            resume=arguments.resume is not None,
            metrics_url=arguments.metrics_url or metrics_url,
            manifest=manifest_of(shares[0].model, repository) if len(shares) == 1 else None,
        )
        with growing_table(transient=arguments.json) as show:
            result = find(request, on_point=show)
    path = report.write(Path(result.folder or folder))
    if arguments.json:
        print_json({**result.to_json(), "report": str(path)})
    else:
        for line in summary(result):
            out.print(line)
        out.print(f"report  {path}")
    return 0 if result.verdict == "pass" else 1


def traffic(server: str, shares: Sequence[ModelShare], repository: Path) -> list[ModelShare]:
    """The models with the inputs of their recipes, where there are any."""
    with Client(server) as client:
        return [replace(share, payloads=payloads.from_recipe(client, share.model, repository)) for share in shares]


@contextmanager
def growing_table(*, transient: bool) -> Iterator[Callable[[Point], None]]:
    """Shows each point that it is given; nothing before the first, so that an error stands alone."""
    table = points_table()
    live = Live(table, console=err, refresh_per_second=4, transient=transient)

    def show(point: Point) -> None:
        table.add_row(*point_row(point))
        live.start()

    try:
        yield show
    finally:
        if live.is_started:
            live.stop()
            if not err.is_terminal and not transient:
                err.line()  # which rich leaves out there


def points_table() -> Table:
    """The head of the live table, which fits 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("phase", no_wrap=True, min_width=7)
    for name in ("rate/s", "requests", "p50\nms", "p99\nms", "queue\nms", "compute\nms", "mean\nbatch", "lag\np99 ms"):
        table.add_column(name, justify="right", no_wrap=True, vertical="bottom")
    table.add_column("verdict", no_wrap=True)
    return table


def point_row(point: Point) -> tuple[str, ...]:
    """One measured point as table cells."""
    shown = point.to_json()

    def number(key: str, digits: int = 2) -> str:
        value = shown.get(key)
        return "-" if value is None else f"{value:.{digits}f}"

    colour = COLOURS.get(point.verdict, "yellow")
    return (
        point.phase,
        number("rate_per_s", 1),
        str(point.requests),
        number("p50_ms"),
        number("p99_ms"),
        number("queue_ms"),
        number("compute_ms"),
        number("mean_batch"),
        number("send_lag_p99_ms"),
        f"[{colour}]{point.verdict}[/{colour}]",
    )


def summary(result: CapacityResult) -> list[str]:
    """What was found, for a person."""
    slos = describe_slos(result.slos)
    lines = []
    if result.capacity_per_s is not None:
        lines.append(f"{result.model} holds {result.capacity_per_s:.1f} requests/s under {slos}: {result.reason}")
    else:
        lines.append(f"no rate was certified for {result.model} under {slos}: {result.reason}")
    if result.capacity_estimate_per_s is not None and result.capacity_estimate_interval_per_s is not None:
        low, high = result.capacity_estimate_interval_per_s
        lines.append(
            f"estimated capacity {result.capacity_estimate_per_s:.1f}/s, 95 % between {low:.1f} and {high:.1f}"
        )
    if result.partial:
        lines.append("partial: the search ended early, the points until then count")
    return lines
