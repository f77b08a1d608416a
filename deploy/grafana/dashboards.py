"""Write Grafana's dashboards: `python -m deploy.grafana.dashboards [--check]`.

The JSON files in dashboards/ are what Grafana is provisioned with; with --check nothing is written and the exit status
is 1 where a file differs from what this module makes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from clients.metrics import NAME

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
PER_SECOND, SECONDS, SHARE, COUNT, BYTES, WATTS = "reqps", "s", "percentunit", "short", "bytes", "watt"
MODEL = 'model=~"$model"'
HEIGHT = 8


@dataclass(frozen=True)
class Query:
    """One PromQL expression and the name of its lines, with `{{label}}` for a label's value."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One diagram; `note` is what Grafana shows at its title."""

    title: str
    unit: str
    note: str
    queries: tuple[Query, ...]
    width: int = 12


@dataclass(frozen=True)
class Board:
    """One dashboard; with `by_model` it has a choice of models on top."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    by_model: bool = False


def rate(metric: str, matchers: str = MODEL, by: str = "model") -> str:
    """Increase per second, summed: a counter's only sensible reading."""
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


def mean(total_us: str) -> str:
    """Seconds per answered request of one of Triton's durations: a ratio of sums."""
    return f"{rate(total_us)} / 1e6 / ({rate('nv_inference_request_success')} > 0)"


def quantile(share: float, by: str = "model") -> str:
    """A percentile of what clients measured, over all clients."""
    buckets = f"sum by (le, {by}) (rate({NAME}_bucket{{{MODEL}}}[$__rate_interval]))"
    return f"histogram_quantile({share}, {buckets})"


def slower(bound_ms: str) -> str:
    """The share of the requests that Triton answered later; exact, as a percentile from four buckets is not."""
    histogram = "nv_inference_first_response_histogram_ms"
    bucket = f'{MODEL},le=~"{bound_ms}|{bound_ms}.0"'  # as Prometheus 2 and 3 have it
    return f"1 - {rate(f'{histogram}_bucket', bucket)} / ({rate(f'{histogram}_count')} > 0)"


OVERVIEW = Board(
    "overview",
    "Service overview",
    (
        Panel("Tritons up", COUNT, "Scraped, and as ready as HAProxy's health check finds them.", (
            Query("triton:up:count", "up"),
            Query('max(haproxy_backend_active_servers{proxy="triton"})', "ready"),
        ), 6),
        Panel("Answered", PER_SECOND, "By Triton. The steps of an ensemble count under their own names too.", (
            Query(f"model:triton_answered:rate5m{{{MODEL}}}", "{{model}}"),
        ), 18),
        Panel("Latency, as clients see it", SECONDS, "From the call to the answer, retries and network included.", (
            Query(quantile(0.5), "p50 {{model}}"),
            Query(quantile(0.99), "p99 {{model}}"),
            Query("max by (model) (fathom:slo_bound:seconds)", "objective {{model}}"),
        )),
        Panel("Slow or failed requests against the budget", SHARE, "1 is the share that the objective allows.", (
            Query("model:client_slow:ratio_rate5m / on (model) fathom:slo_budget:ratio", "5 min {{model}}"),
            Query("model:client_slow:ratio_rate1h / on (model) fathom:slo_budget:ratio", "1 h {{model}}"),
        )),
        Panel("How requests end, as clients see it", PER_SECOND, "OK, or the class of the client's error.", (
            Query(rate(f"{NAME}_count", MODEL, "status"), "{{status}}"),
        )),
        Panel("Requests by replica", PER_SECOND, "HAProxy's answers from each Triton: equal, unless one is slower.", (
            Query(
                "sum by (server) (rate("
                'haproxy_server_http_responses_total{proxy="triton",code="2xx"}[$__rate_interval]))',
                "{{server}}",
            ),
        )),
    ),
    by_model=True,
)  # fmt: skip

PER_MODEL = Board(
    "model",
    "Models",
    (
        Panel("Answered", PER_SECOND, "", (Query(rate("nv_inference_request_success"), "{{model}}"),)),
        Panel("Failed, by reason", PER_SECOND, "REJECTED: the queue was full or the wait in it too long.", (
            Query(rate("nv_inference_request_failure", MODEL, "model, reason"), "{{model}} {{reason}}"),
        )),
        Panel("Where the time goes", SECONDS, "Means per request, inside Triton.", (
            Query(mean("nv_inference_queue_duration_us"), "{{model}} queue"),
            Query(mean("nv_inference_compute_input_duration_us"), "{{model}} input"),
            Query(mean("nv_inference_compute_infer_duration_us"), "{{model}} infer"),
            Query(mean("nv_inference_compute_output_duration_us"), "{{model}} output"),
        )),
        Panel("Share of the time spent waiting", SHARE, "", (
            Query(f"model:triton_queue:share_rate5m{{{MODEL}}}", "{{model}}"),
        )),
        Panel("Mean batch", COUNT, "Inferences per execution: what dynamic batching achieves.", (
            Query(f"model:triton_batch:mean_rate5m{{{MODEL}}}", "{{model}}"),
        )),
        Panel("Waiting now", COUNT, "Requests in the queues, to be compared with max_queue_size.", (
            Query(f"sum by (model) (nv_inference_pending_request_count{{{MODEL}}})", "{{model}}"),
        )),
        Panel("Latency, as clients see it", SECONDS, "", (
            Query(quantile(0.5), "p50 {{model}}"),
            Query(quantile(0.9), "p90 {{model}}"),
            Query(quantile(0.99), "p99 {{model}}"),
        )),
        Panel("Slower than", SHARE, "Inside Triton, to the first response, over all replicas.", (
            Query(slower("100"), "100 ms {{model}}"),
            Query(slower("500"), "500 ms {{model}}"),
            Query(slower("2000"), "2 s {{model}}"),
        )),
        Panel("Executions", PER_SECOND, "Batches that a model computed.", (
            Query(rate("nv_inference_exec_count"), "{{model}}"),
        )),
    ),
    by_model=True,
)  # fmt: skip

CAPACITY = Board(
    "capacity",
    "Capacity headroom",
    (
        Panel("Used share of the proven capacity", SHARE, "Of all replicas that are up; 80 % raises a ticket.", (
            Query(f"model:triton_saturation:ratio{{{MODEL}}}", "{{model}} {{slo}}"),
        )),
        Panel("Rate and proven capacity", PER_SECOND, "The proven rates come from rules/capacity.yml.", (
            Query(f"model:triton_answered:rate5m{{{MODEL}}}", "{{model}}"),
            Query(f"model:triton_capacity:per_second{{{MODEL}}}", "{{model}} proven, {{slo}}"),
        )),
        Panel("Left", PER_SECOND, "What the replicas take more before the objective is at risk.", (
            Query(
                f"model:triton_capacity:per_second{{{MODEL}}}"
                " - on (model) group_left () model:triton_answered:rate5m",
                "{{model}} {{slo}}",
            ),
        )),
        Panel("Refused share", SHARE, "Above zero the bound of a queue is reached.", (
            Query(f"model:triton_rejected:ratio_rate5m{{{MODEL}}}", "{{model}}"),
        )),
        Panel("Processors of the hosts", SHARE, "", (Query("nv_cpu_utilization", "{{instance}}"),)),
        Panel("Memory of the hosts", BYTES, "", (
            Query("nv_cpu_memory_used_bytes", "{{instance}} used"),
            Query("nv_cpu_memory_total_bytes", "{{instance}} total"),
        )),
    ),
    by_model=True,
)  # fmt: skip

GPU = Board(
    "gpu",
    "GPU",
    (
        Panel("Utilisation", SHARE, "Share of the time in which any kernel ran.", (
            Query("nv_gpu_utilization", "{{instance}} {{gpu_uuid}}"),
        )),
        Panel("Memory", BYTES, "", (
            Query("nv_gpu_memory_used_bytes", "{{instance}} {{gpu_uuid}} used"),
            Query("nv_gpu_memory_total_bytes", "{{instance}} {{gpu_uuid}} total"),
        )),
        Panel("Used share of the memory", SHARE, "", (Query("triton:gpu_memory:ratio", "{{instance}} {{gpu_uuid}}"),)),
        Panel("Power", WATTS, "At its limit a GPU lowers its clock.", (
            Query("nv_gpu_power_usage", "{{instance}} {{gpu_uuid}}"),
            Query("nv_gpu_power_limit", "{{instance}} {{gpu_uuid}} limit"),
        )),
        Panel("Energy per answered request", "joule", "", (
            Query(
                "sum(rate(nv_energy_consumption[$__rate_interval]))"
                " / (sum(rate(nv_inference_request_success[$__rate_interval])) > 0)",
                "joules",
            ),
        )),
        Panel("Pinned memory pool", BYTES, "", (
            Query("nv_pinned_memory_pool_used_bytes", "{{instance}} used"),
            Query("nv_pinned_memory_pool_total_bytes", "{{instance}} total"),
        )),
    ),
)  # fmt: skip

BOARDS = (OVERVIEW, PER_MODEL, CAPACITY, GPU)


def render(board: Board) -> str:
    """The JSON that Grafana takes."""
    builder = (
        dashboard.Dashboard(f"Triton: {board.title}")
        .uid(f"fathom-{board.name}")
        .tags(["triton", "fathom"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("10s")
        .readonly()
    )
    if board.by_model:
        builder.with_variable(
            dashboard.QueryVariable("model")
            .label("Model")
            .datasource(SOURCE)
            .query("label_values(nv_inference_request_success, model)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    for panel in board.panels:
        builder.with_panel(_panel(panel))
    return str(JSONEncoder(sort_keys=True, indent=1).encode(builder.build())) + "\n"


def _panel(panel: Panel) -> timeseries.Panel:
    drawn = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.note)
        .unit(panel.unit)
        .min(0)
        .datasource(SOURCE)
        .span(panel.width)
        .height(HEIGHT)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .show_legend(True)
            .placement(LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        drawn.with_target(
            prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(letter).datasource(SOURCE)
        )
    return drawn


def queries() -> Iterator[tuple[Board, Panel, Query]]:
    """Every query of every panel, for whoever wants to run them."""
    for board in BOARDS:
        for panel in board.panels:
            for query in panel.queries:
                yield board, panel, query


def main(arguments: list[str] | None = None) -> int:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where a file differs")
    check = parser.parse_args(arguments).check
    wanted = {FOLDER / f"{board.name}.json": render(board) for board in BOARDS}
    stale = {path for path in FOLDER.glob("*.json") if path not in wanted}
    differing = {path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text}
    for path in sorted(stale | differing):
        if check:
            print(f"{path.name} is not what {Path(__file__).name} makes: run python -m deploy.grafana.dashboards")
        elif path in stale:
            path.unlink()
        else:
            path.write_text(wanted[path], encoding="utf-8")
    return 1 if check and stale | differing else 0


if __name__ == "__main__":
    sys.exit(main())
