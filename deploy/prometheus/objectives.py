"""Write the rules that depend on the models: `python -m deploy.prometheus.objectives [RESULT.json ...] [--check]`.

rules/objectives.yml follows from objectives.toml; rules/capacity.yml from the results of `fathom capacity` that are
named (`results/MODEL/latest/capacity.json`), and is left as it is where none is. With --check nothing is written and
the exit status is 1 where a file differs. A mistake is one line and exit status 2.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from clients.errors import InvalidInputError, ModelNotFoundError
from clients.metrics import BUCKETS_S, NAME
from loadtests.errors import LoadTestError
from loadtests.slo import Slo

FOLDER = Path(__file__).parent
WINDOWS = ("5m", "30m", "1h")
TRITON = "nv_inference_first_response_histogram_ms"
TRITON_BUCKETS_S = (0.1, 0.5, 2.0, 5.0)
"""Triton's own, unless a configuration has others."""
# What ends so says nothing of the service: wrong requests, and those the caller gave up.
NOT_OURS = "|".join((InvalidInputError.label, ModelNotFoundError.label, "Cancelled"))
LONG_WINDOWS = ("6h", "3d")  # costly to evaluate, and slow to change
HEADER = "# Written by python -m deploy.prometheus.objectives: {source} and run it again.\n"


class ObjectiveError(Exception):
    """An objective or a result that no rule can be made of."""


def objective_rules(slos: Mapping[str, str]) -> dict[str, Any]:
    """Recording rules per model: its bound, its budget, and the share of slow or failed requests in each window."""
    rules: list[dict[str, Any]] = []
    long_rules: list[dict[str, Any]] = []
    for model, text in slos.items():
        slo = Slo.parse(text)
        if slo.limit_ms is None or slo.limit_ms / 1e3 not in BUCKETS_S:
            offer = ", ".join(f"{bound:g}" for bound in BUCKETS_S)
            raise ObjectiveError(f"the bound of {model} ({text}) is no bucket of the client histogram: {offer} s")
        bound_s = slo.limit_ms / 1e3
        rules.append(_rule("fathom:slo_bound:seconds", model, f"vector({bound_s})"))
        rules.append(_rule("fathom:slo_budget:ratio", model, f"vector({slo.allowed_share})"))
        rules += [_slow_share(model, bound_s, window) for window in WINDOWS]
        if bound_s in TRITON_BUCKETS_S:
            rules.append(_rule("model:triton_slow:ratio_rate5m", model, _slow_in_triton(model, bound_s)))
        long_rules += [_slow_share(model, bound_s, window) for window in LONG_WINDOWS]
    return {
        "groups": [
            {"name": "client objectives", "rules": rules},
            {"name": "client objectives, long windows", "interval": "1m", "rules": long_rules},
        ]
    }


def _slow_share(model: str, bound_s: float, window: str) -> dict[str, Any]:
    fast = f'sum(rate({NAME}_bucket{{model="{model}",status="OK",le="{bound_s}"}}[{window}]))'
    all_ = f'sum(rate({NAME}_count{{model="{model}",status!~"{NOT_OURS}"}}[{window}]))'
    return _rule(f"model:client_slow:ratio_rate{window}", model, f"1 - ({fast} or vector(0)) / ({all_} > 0)")


def _slow_in_triton(model: str, bound_s: float) -> str:
    bound = f"{bound_s * 1000:g}"
    fast = f'sum(rate({TRITON}_bucket{{model="{model}",le=~"{bound}|{bound}.0"}}[5m]))'  # as Prometheus 2 and 3 have it
    return f'1 - {fast} / (sum(rate({TRITON}_count{{model="{model}"}}[5m])) > 0)'


def _rule(record: str, model: str, expression: str, **labels: str) -> dict[str, Any]:
    return {"record": record, "labels": {"model": model, **labels}, "expr": expression}


def capacity_rules(results: Iterable[Path]) -> dict[str, Any]:
    """The proven requests/s of one replica, per model. Raises ObjectiveError for a result that proves no rate."""
    rules = []
    for path in results:
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            model, rate, slo = result["model"], result["capacity_per_s"], result["slo"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ObjectiveError(f"{path} is no result of fathom capacity ({error!r})") from error
        if not rate:
            raise ObjectiveError(f"{path} proves no rate for {model} (verdict {result.get('verdict')})")
        rules.append(_rule("fathom:proven_per_second", model, f"vector({rate:.6g})", slo=str(slo)))
    return {"groups": [{"name": "proven capacity", "rules": rules}]}


def main(arguments: list[str] | None = None) -> int:
    """Write or check the two files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "results", nargs="*", type=Path, metavar="RESULT.json", help="results of fathom capacity --json"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where objectives.toml and rules/ are")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where a file differs")
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    try:
        with (folder / "objectives.toml").open("rb") as file:
            slos = tomllib.load(file)["slo"]
        texts = {"objectives.yml": _text(objective_rules(slos), "change objectives.toml")}
        if options.results:
            texts["capacity.yml"] = _text(capacity_rules(options.results), "measure a capacity")
    except (ObjectiveError, LoadTestError, OSError, KeyError, tomllib.TOMLDecodeError) as error:
        print(f"objectives: {error}", file=sys.stderr)
        return 2
    differing = [name for name, text in texts.items() if _read(folder / "rules" / name) != text]
    for name in differing:
        if options.check:
            print(f"{folder / 'rules' / name} is not what objectives.toml and the results make", file=sys.stderr)
        else:
            (folder / "rules" / name).write_text(texts[name], encoding="utf-8")
    return 1 if options.check and differing else 0


def _text(rules: Mapping[str, Any], source: str) -> str:
    return HEADER.format(source=source) + yaml.safe_dump(rules, sort_keys=False, width=120)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
