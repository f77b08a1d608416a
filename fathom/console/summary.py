"""A capacity result on the terminal: the result, what it is based on, and the next commands."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from fathom.console.output import out, print_labelled
from loadtests.judge.sequences import describe_sequences
from loadtests.judge.streams import describe_streams
from loadtests.report import prose
from loadtests.report.requests import describe_requests, describe_sizes
from loadtests.results.folders import home_of
from loadtests.results.result import CapacityResult
from loadtests.search.monotonicity import monotonicity_violation
from loadtests.slo import as_requested, format_rate


def show(result: CapacityResult, *, options: str = "") -> None:
    """Print it; `options` belong to every suggested command: they name the same server and models."""
    out.print(prose.headline(result), soft_wrap=True)
    for word, sentence in sentences(result):
        print_labelled(word, sentence)
    for word, command in next_steps(result, options):
        out.print(f"  {word}: {command}", soft_wrap=True)


def sentences(result: CapacityResult) -> list[tuple[str, str]]:
    """(label, sentence): why there is no estimate, what the proven rate is based on, warnings."""
    shown = []
    if result.capacity_estimate_per_s is None and result.capacity_per_s is not None:
        why = monotonicity_violation(result.points) or "no tested rate was too high"
        shown.append(("capacity", f"no estimate: {why}"))
    if result.capacity_per_s is not None and result.certificate is not None:
        sure = "a server that misses the SLO passes this at most one time in a hundred"
        shown.append(("proven", f"{format_rate(result.capacity_per_s)}: {result.certificate.describe()}; {sure}"))
    else:
        shown.append(("proven", f"none: {result.finding}{prose.missed_by(result)}"))
    near = prose.edge_point(result)
    if near and (streams := describe_streams(near)):
        shown.append(("tokens", streams))
    if near and (sequences := describe_sequences(near)):
        shown.append(("sequences", sequences))
    if result.settings.get("payload_sizes"):
        shown.append(("requests", describe_requests(result.settings)))
    if (point := prose.sized_point(result)) and (by_size := describe_sizes(point)):
        shown.append(("by size", by_size))
    if warning := prose.warn(result):
        shown.append(("warning", warning))
    if result.partial:
        shown.append(("partial", f"{result.ended_because}; the result uses the probes before that"))
    return shown


def next_steps(result: CapacityResult, options: str = "") -> list[tuple[str, str]]:
    """(what for, command)."""
    if result.folder is None:
        return []
    run = Path(result.folder)
    alone = home_of(run, result.model) == run
    folder = shlex.quote(str(run if alone else run.parent))  # there `latest` is this run
    budget_s = float(result.settings.get("budget_s", 180))
    again = f"fathom capacity {_traffic(result)}{options} --resume {folder}"
    if result.settings.get("gap") is not None and not result.partial:  # it ended before its budget did
        budget_s = math.ceil(sum(point.took_s for point in result.points))
    steps = []
    if result.partial:
        steps.append(("continue", f"{again} --budget {budget_s:g}s"))
    elif result.verdict == "invalid":
        more = 2 * result.settings.get("workers", 1)
        steps.append(("with more generators", f"fathom capacity {_traffic(result)}{options} --workers {more}"))
    elif result.verdict != "fail" and (room := prose.worth_more(result)):
        minutes, rate_per_s = room
        what = f"prove up to {rate_per_s:,.0f}/s in {minutes} min more"
        steps.append((what, f"{again} --budget {budget_s + 60 * minutes:g}s"))
    if result.capacity_per_s is not None:
        rate_per_s = float(f"{10 * result.capacity_per_s:.2g}")
        command = f"fathom plan --rate {rate_per_s:g} --report {folder}"
        steps.append((f"plan for {rate_per_s:,.0f}/s", command))
    return steps


def _traffic(result: CapacityResult) -> str:
    mix = result.settings.get("mix") or {}
    models = [f"{model}={weight:.4g}" for model, weight in mix.items()] if len(mix) > 1 else [result.model]
    return " ".join([*map(shlex.quote, models), *(f"--slo {slo}" for slo in as_requested(result.slos))])
