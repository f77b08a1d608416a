"""Compute how many replicas meet the SLOs at a request rate, with queue limits, latency and cost.

  fathom capacity rain_forecast --slo p99=20ms --report results
  fathom plan --rate 20000 --report results --cost-per-hour 4

The plan uses a capacity measurement: its proven rate or the lower end of the estimate's 95 % interval, whichever is
higher. It prints which, and what it assumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fathom import kubernetes
from fathom.console import options
from fathom.console.arguments import UsageError
from fathom.console.output import print_json, print_sentence
from loadtests.errors import ResultsError
from loadtests.results.store import Stored, read_runs
from loadtests.sizing import BASES, BASIS_NAMES, DEFAULT_HEADROOM, DEFAULT_SPARE, DeploymentPlan, make_plan
from loadtests.slo import about, format_ms, format_rate


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of `fathom plan`."""
    command.add_argument(
        "--rate",
        type=options.rate,
        required=True,
        metavar="RATE",
        help="peak request rate of the whole service, in requests/s",
    )
    options.add_report(command, "results", "the latest run of `fathom capacity` there is used")
    command.add_argument("--model", metavar="MODEL", help="model to plan for, if the folder has results of several")
    command.add_argument(
        "--headroom",
        type=options.share,
        default=DEFAULT_HEADROOM,
        metavar="SHARE",
        help=f"part of each replica's rate to keep free (default: {DEFAULT_HEADROOM:.0%}%)",
    )
    command.add_argument(
        "--spare",
        type=options.whole,
        default=DEFAULT_SPARE,
        metavar="N",
        help="replicas that may be down at the same time (default: %(default)s)",
    )
    command.add_argument(
        "--basis",
        choices=BASES,
        help="rate to expect of one replica: the proven rate, the lower end of the estimate's 95 %% interval, or the "
        "estimate (default: the higher of the first two)",
    )
    command.add_argument(
        "--cost-per-hour", type=float, metavar="COST", help="cost of one replica per hour, in any currency"
    )
    command.add_argument(
        "--kubernetes",
        type=Path,
        metavar="FILE",
        help="also write a kustomize patch for deploy/kubernetes to this file",
    )
    options.add_json(command)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    stored = choose(arguments.report, arguments.model)
    plan = make_plan(
        stored.result,
        arguments.rate,
        headroom=arguments.headroom,
        spare=arguments.spare,
        cost_per_hour=arguments.cost_per_hour,
        basis=arguments.basis,
    )
    if arguments.kubernetes is not None:
        try:
            arguments.kubernetes.write_text(kubernetes.patch(plan), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {arguments.kubernetes}: {error.strerror}") from error
    if arguments.json:
        print_json(plan.to_json())
    else:
        for line in describe(plan):
            print_sentence(line)
    return 0


def choose(folder: Path, model: str | None) -> Stored:
    """The run of this model; the only one when no model is named."""
    runs = read_runs(folder)
    if model is None and len(runs) > 1:
        names = ", ".join(stored.run.model for stored in runs)
        raise ResultsError(f"{folder} has several models ({names}): choose one with --model", folder)
    for stored in runs:
        if model in (None, stored.run.model):
            return stored
    names = ", ".join(stored.run.model for stored in runs)
    raise ResultsError(f"{folder} has no results of {model}; it has: {names}", folder)


def describe(plan: DeploymentPlan) -> list[str]:
    """The plan for a person."""
    needed = plan.replicas - plan.spare
    lines = [
        f"{plan.replicas:,} replicas of {plan.model} sustain {format_rate(plan.rate_per_s)} under {plan.slo} "
        f"({needed:,} + {plan.spare} spare, each for {format_rate(plan.replica_per_s)}: {BASIS_NAMES[plan.basis]})",
        f"load per replica   {format_rate(plan.load_per_s)} with all replicas{_p99(plan, plan.expected_p99_ms)}",
        f"                   {format_rate(plan.load_without_spare_per_s)} without the spare ones"
        + _p99(plan, plan.expected_p99_without_spare_ms),
    ]
    if plan.max_queue_size is not None:
        lines.append(
            f"queue limit        max_queue_size {plan.max_queue_size}, default_timeout_microseconds "
            f"{plan.queue_timeout_us} (default_queue_policy of each replica)"
        )
    if plan.cost_per_million is not None:
        lines.append(f"cost               {about(plan.cost_per_million, 4)} per million requests")
    lines += [f"warning: {doubt}" for doubt in plan.doubts]
    return [*lines, "assumptions:", *(f"- {text}" for text in plan.assumptions)]


def _p99(plan: DeploymentPlan, p99_ms: float | None) -> str:
    if p99_ms is None:
        return ", beyond what was measured"
    name = "p99" if plan.p99_of == "latency" else f"{plan.p99_of} p99"
    return f", expected {name} {'at most ' if plan.p99_is_upper_bound else ''}{format_ms(float(f'{p99_ms:.3g}'))}"
