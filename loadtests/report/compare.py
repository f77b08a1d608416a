"""Compare measurements of one model: does the capacity differ, by how much, and by more than chance?

The ratio of two estimates has an interval of its own, made from both intervals (MOVER on the logarithms: Zou and Donner
2008, which needs no symmetric intervals), or from the turns where both were measured in turns (`search.turns`). The
difference is significant when that interval leaves out 1. Where a run has no estimate, its proven rate still is a lower
bound. Two runs of the same thing show whether the machine has changed; where it has, nothing is significant.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loadtests.errors import ResultsError
from loadtests.report.prose import busy_machine, doubts
from loadtests.results.differences import differences
from loadtests.results.result import CapacityResult
from loadtests.results.store import Stored, read_runs
from loadtests.search.turns import Ratio, capacity_ratio
from loadtests.slo import as_requested, describe_slos, format_rate

Finding = Literal["more", "less", "no difference shown", "unknown"]
_FEWEST = 2
_OTHERWISE = "the runs also differ in other ways"


@dataclass(frozen=True)
class Change:
    """One run against the first."""

    name: str
    finding: Finding
    ratio: float | None
    """Of the estimates; above 1 means more than the first."""
    interval: tuple[float, float] | None
    """95 % of the ratio."""
    sentence: str
    notes: tuple[str, ...]
    """What casts doubt on one of the two, and what else differs between them."""


@dataclass(frozen=True)
class Comparison:
    """Runs of one model under the same SLOs; the first is what the others are compared with."""

    model: str
    slo: str
    names: tuple[str, ...]
    results: tuple[CapacityResult, ...]
    changes: tuple[Change, ...]
    advice: str
    """What would separate the model from the machine; empty where no difference has to be explained."""

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "slo": self.slo,
            "runs": [
                {
                    "name": name,
                    "capacity_per_s": result.capacity_per_s,
                    "capacity_estimate_per_s": result.capacity_estimate_per_s,
                    "capacity_estimate_interval_per_s": result.capacity_estimate_interval_per_s,
                    "partial": result.partial,
                }
                for name, result in zip(self.names, self.results, strict=True)
            ],
            "changes": [dataclasses.asdict(change) for change in self.changes],
            "advice": self.advice or None,
        }


def compare_folders(folders: Sequence[Path]) -> list[Comparison]:
    """One comparison per model that all folders hold; ResultsError when they cannot be compared, with the reason."""
    if len(folders) < _FEWEST:
        raise ResultsError("a comparison needs at least two folders: name the earlier run first")
    runs = [{stored.run.model: stored for stored in read_runs(folder)} for folder in folders]
    places = [stored.folder.resolve() for held in runs for stored in held.values()]
    if doubled := [place for place in places if places.count(place) > 1]:
        raise ResultsError(f"{doubled[0]} is named twice: name two different runs", doubled[0])
    shared = [model for model in runs[0] if all(model in held for held in runs)]
    if not shared:
        found = "; ".join(f"{folder} has {', '.join(held)}" for folder, held in zip(folders, runs, strict=True))
        raise ResultsError(f"these folders have no model in common: name runs of one model ({found})")
    names = _names(folders)
    return [compare(names, [held[model] for held in runs]) for model in shared]


def compare(names: Sequence[str], runs: Sequence[Stored]) -> Comparison:
    """ResultsError for different models or SLOs."""
    first = runs[0]
    for name, other in zip(names[1:], runs[1:], strict=True):
        if other.run.model != first.run.model:
            raise ResultsError(f"{names[0]} measured {first.run.model} and {name} {other.run.model}: compare one model")
        if sorted(map(str, other.run.slos)) != sorted(map(str, first.run.slos)):
            raise ResultsError(
                f"{first.run.model} was measured under {_slos(first)} in {names[0]} and {_slos(other)} in {name}; "
                "capacities under different SLOs cannot be compared: measure again with the same --slo"
            )
    if _in_turns(*runs):
        names = [run.run.settings.get("side") or name for name, run in zip(names, runs, strict=True)]
    drifted = _drifted(names, runs)
    changes = tuple(_change(names[0], first, name, run, drifted) for name, run in zip(names[1:], runs[1:], strict=True))
    open_ = any(change.finding != "no difference shown" for change in changes)
    advice = "" if _in_turns(*runs) or not open_ else _advice(first)
    return Comparison(first.run.model, _slos(first), tuple(names), tuple(run.result for run in runs), changes, advice)


def _in_turns(first: Stored, *others: Stored) -> bool:
    """Whether all were measured in turns with one another."""
    turns = first.run.settings.get("turns")
    return bool(turns) and all(other.run.settings.get("turns") == turns for other in others)


def _advice(stored: Stored) -> str:
    weights: Mapping[str, float] = stored.run.settings.get("mix") or {}
    models = [f"{model}={weight:.4g}" for model, weight in weights.items()] if len(weights) > 1 else [stored.run.model]
    slos = itertools.chain.from_iterable(("--slo", str(slo)) for slo in as_requested(stored.run.slos))
    return (
        "the machine may have changed between the runs; to rule that out, measure both in turns: "
        f"{shlex.join(['fathom', 'capacity', *models, *slos])} --against DIR (or HOST:PORT)"
    )


def _drifted(names: Sequence[str], runs: Sequence[Stored]) -> list[str]:
    """A sentence for each two runs that measured the same and found another capacity."""
    notes = []
    for (one_name, one), (name, run) in itertools.combinations(zip(names, runs, strict=True), 2):
        found = ratio_interval(one.result, run.result)
        if found is None or not _same(one, run) or found[1] <= 1 <= found[2]:
            continue
        notes.append(
            f"{one_name} and {name} measured the same thing and differ by {_percent(found[0])}: the machine changed"
        )
    return notes


def _same(first: Stored, second: Stored) -> bool:
    """Whether two runs measured the same, as far as a digest of the model's configuration and its manifest tell."""
    known = first.run.settings.get("model_config_sha256") and second.run.settings.get("model_config_sha256")
    return bool(known) and first.run.manifest == second.run.manifest and not differences(first.run, second.run)


def _ratio(first: Stored, second: Stored) -> Ratio | None:
    if _in_turns(first, second) and (
        found := capacity_ratio(first.result.points, second.result.points, first.run.slos)
    ):
        return found
    return ratio_interval(first.result, second.result)


def ratio_interval(first: CapacityResult, second: CapacityResult) -> Ratio | None:
    """The ratio of two independent estimates; None where one is missing."""
    if not (first.capacity_estimate_per_s and second.capacity_estimate_per_s):
        return None
    if not (first.capacity_estimate_interval_per_s and second.capacity_estimate_interval_per_s):
        return None
    guess = math.log(second.capacity_estimate_per_s) - math.log(first.capacity_estimate_per_s)
    below_1, above_1 = _arms(first.capacity_estimate_per_s, first.capacity_estimate_interval_per_s)
    below_2, above_2 = _arms(second.capacity_estimate_per_s, second.capacity_estimate_interval_per_s)
    low, high = guess - math.hypot(below_2, above_1), guess + math.hypot(above_2, below_1)
    return Ratio(math.exp(guess), math.exp(low), math.exp(high))


def _change(first_name: str, first: Stored, name: str, second: Stored, drifted: Sequence[str]) -> Change:
    """`drifted` says what shows that the machine changed between the runs."""
    together = _in_turns(first, second)  # what the machine did, it did to both
    differing = _differing(first, second)
    doubted = [*_doubts(first_name, first, together=together), *_doubts(name, second, together=together)]
    doubted += () if together else drifted
    busy = _busy(first, second) if together else []
    made_up = first.result.made_up if first.result.made_up == second.result.made_up else ""  # else they differ
    notes = (
        *doubted,
        *busy,
        *differing,
        *([f"the requests were {made_up}"] if made_up else ()),
        *_partial(first_name, first.result),
        *_partial(name, second.result),
    )
    found = _ratio(first, second)
    if found is None:
        finding, sentence = _by_certificates(first_name, first.result, name, second.result)
        if differing and finding != "unknown":
            sentence = f"{sentence.rstrip('.')}, but {_OTHERWISE}."
        finding = "unknown" if doubted else finding
        return Change(name, finding, None, None, sentence, notes)
    ratio, low, high = found
    between = f"95 % interval {_percent(low)} to {_percent(high)}" + (", measured in turns" if together else "")
    if low > 1 or high < 1:
        finding = "more" if ratio > 1 else "less"
        share = _percent(abs(ratio - 1) + 1, sign=False)
        if doubted:
            sentence = f"{name} measured {share} {finding} than {first_name} ({between})"
            return Change(name, "unknown", ratio, (low, high), f"{sentence}. This proves nothing: see below.", notes)
        sentence = f"{name} sustains {share} {finding} than {first_name} ({between})"
        conclusion = f"more than chance, but {_OTHERWISE}" if differing else "significant at 95 %"
        return Change(name, finding, ratio, (low, high), f"{sentence}: {conclusion}.", notes)
    sentence = (
        f"No difference is shown between {name} and {first_name}: the estimates differ by {_percent(ratio)} "
        f"({between}), which chance can explain. Longer budgets show smaller differences."
    )
    return Change(name, "no difference shown", ratio, (low, high), sentence, notes)


def _by_certificates(first_name: str, first: CapacityResult, name: str, second: CapacityResult) -> tuple[Finding, str]:
    """Where an estimate is missing: a proven rate above the other's interval decides."""
    for finding, (low_name, low, high_name, high) in {
        "more": (first_name, first, name, second),
        "less": (name, second, first_name, first),
    }.items():
        interval = low.capacity_estimate_interval_per_s
        if high.capacity_per_s and interval and high.capacity_per_s > interval[1]:
            return finding, (  # type: ignore[return-value]
                f"{name} sustains {finding} than {first_name}: the proven rate of {high_name}, "
                f"{format_rate(high.capacity_per_s)}, is above the 95 % interval of {low_name} "
                f"(up to {format_rate(interval[1])})."
            )
    missing = " and ".join(n for n, r in ((first_name, first), (name, second)) if not r.capacity_estimate_per_s)
    return "unknown", f"{name} and {first_name} cannot be compared: {missing} ended without an estimate."


def _doubts(name: str, stored: Stored, *, together: bool) -> list[str]:
    """Why one of the two may not show what its server holds. A busy machine is none where both were measured on it in
    turns."""
    shared = busy_machine(stored.run.settings.get("busy_before_share")) if together else []
    return [f"{name}: {doubt.rstrip('.')}" for doubt in doubts(stored.result) if doubt not in shared]


def _busy(*runs: Stored) -> list[str]:
    """What to know of runs in turns on a machine that did something else, too."""
    shares = [run.run.settings.get("busy_before_share") or 0.0 for run in runs]
    return [f"both: {doubt.rstrip('.')}" for doubt in busy_machine(max(shares))]


def _partial(name: str, result: CapacityResult) -> list[str]:
    return [f"{name} is partial: {result.ended_because}"] if result.partial else []


def _differing(first: Stored, second: Stored) -> list[str]:
    found = (each for each in differences(first.run, second.run) if each.kind != "model")
    notes = [f"different {each.what}: {each.first} and {each.second}" for each in found]
    one, other = _priorities(first.result), _priorities(second.result)
    if one and other and one != other:
        notes.append(f"different priority of the generators: {one} and {other}")
    return notes


def _priorities(result: CapacityResult) -> str:
    """How the operating system scheduled the generators, which no setting alone decides."""
    return ", ".join(sorted({point.generator_priority for point in result.points if point.generator_priority}))


def _arms(value: float, interval: tuple[float, float]) -> tuple[float, float]:
    """How far the ends are away, as logarithms."""
    return math.log(value / interval[0]), math.log(interval[1] / value)


def _names(folders: Sequence[Path]) -> list[str]:
    """Folder names, with as many parents as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{folder} ({number})" for number, folder in enumerate(folders, 1)]


def _slos(stored: Stored) -> str:
    return describe_slos(stored.run.slos)


def _percent(ratio: float, *, sign: bool = True) -> str:
    value = (ratio - 1) * 100
    return f"{value:{'+' if sign else ''}.{1 if abs(value) < 10 else 0}f} %"
