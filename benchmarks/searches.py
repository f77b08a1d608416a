"""Ten searches of one deployment in a row: how repeatable are the two numbers? `python -m benchmarks.searches`.

Each search has a seed of its own. The pooled value is the estimate from the points of all searches together; how often
a search's own interval holds it says whether the intervals are honest.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clients import Client
from export import recipes
from export.command import default_repository
from export.exporter import export_model
from fathom.console.options import default_config_name
from fathom.console.output import Steps, out
from fathom.recipes import requests_of
from loadtests.capacity import CapacityRequest
from loadtests.finding import find
from loadtests.results.result import CapacityResult
from loadtests.search.estimate import estimate
from loadtests.slo import Slo
from loadtests.target.hardware import describe_hardware
from server import TritonServer


def main() -> None:
    """Search, summarise, write."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.searches", description=__doc__)
    command.add_argument("--model", default="rain_forecast", metavar="MODEL")
    command.add_argument("--slo", default="p99=50ms", metavar="SLO")
    command.add_argument("--searches", type=int, default=10, metavar="N")
    command.add_argument(
        "--budget", type=float, default=40.0, metavar="S", help="seconds of each (default: %(default)g)"
    )
    command.add_argument("--output", type=Path, default=Path("results/searches.json"), metavar="FILE")
    arguments = command.parse_args()
    slo, repository = Slo.parse(arguments.slo), default_repository()
    with Steps() as steps:
        with steps.step("export"):
            export_model(recipes.find(arguments.model), repository)
        with TritonServer(repository, config_name=default_config_name(repository)) as server:
            with Client(server.grpc_url) as client:
                pool = requests_of(client, arguments.model, repository)
            found = []
            for number in range(arguments.searches):
                with steps.step(f"search {number + 1}") as step:
                    request = CapacityRequest(
                        server.grpc_url,
                        arguments.model,
                        [slo],
                        budget_s=arguments.budget,
                        seed=number,
                        payloads=pool,
                        folder=arguments.output.with_suffix("") / str(number + 1),
                    )
                    found.append(find(request))
                    step.update(_told(found[-1]))
    summary = summarise(found, slo)
    document = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "hardware": describe_hardware(),
        "model": arguments.model,
        "slo": arguments.slo,
        "budget_s": arguments.budget,
        **summary,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    out.print_json(json.dumps(summary))


def summarise(found: Sequence[CapacityResult], slo: Slo) -> dict[str, Any]:
    """Spread (highest / lowest) of both numbers, seconds of each, and how often an interval held the pooled value."""
    proven = [result.capacity_per_s for result in found if result.capacity_per_s]
    estimates = [result.capacity_estimate_per_s for result in found if result.capacity_estimate_per_s]
    pooled = estimate([point for result in found for point in result.points], [slo])
    intervals = [result.capacity_estimate_interval_per_s for result in found]
    held = [low <= pooled.rate_per_s <= high for low, high in filter(None, intervals)] if pooled else []
    return {
        "searches": len(found),
        "proven_per_s": [result.capacity_per_s for result in found],
        "proven_spread": max(proven) / min(proven) if proven else None,
        "estimate_per_s": [result.capacity_estimate_per_s for result in found],
        "estimate_spread": max(estimates) / min(estimates) if estimates else None,
        "interval_per_s": intervals,
        "pooled_per_s": pooled.rate_per_s if pooled else None,
        "intervals_that_held_it": sum(held),
        "seconds": [round(sum(point.took_s for point in result.points), 1) for result in found],
    }


def _told(result: CapacityResult) -> str:
    proven = f"{result.capacity_per_s:.0f}/s" if result.capacity_per_s else "none"
    guess = f"{result.capacity_estimate_per_s:.0f}/s" if result.capacity_estimate_per_s else "none"
    return f"proven {proven}, estimate {guess}"


if __name__ == "__main__":
    main()
