"""Two or more measurements of one model side by side: does the capacity differ, by how much, and by more than chance?

The ratio of two estimates has an interval of its own, made from both intervals (MOVER on the logarithms: Zou and Donner
2008, which needs no symmetric intervals), or from the turns where both were measured in turns (`search.turns`). The
difference is significant when that interval leaves out 1. Where a run has no estimate, its proven rate still is a lower
bound. Two runs of the same thing show whether the machine has changed; where it has, nothing is significant.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loadtests.errors import ResultsError
from loadtests.report import page
from loadtests.report.prose import busy_machine, doubts
from loadtests.report.svg import P99, PASS, SLO, STEPS, Picture, make_picture, plain_ticks
from loadtests.results.differences import differences
from loadtests.results.result import CapacityResult
from loadtests.results.store import Stored, read_runs
from loadtests.search.turns import Ratio, capacity_ratio
from loadtests.slo import as_requested, describe_slos, format_ms, format_rate
from loadtests.text import visible

Finding = Literal["more", "less", "no difference shown", "unknown"]
_FEWEST = 2
_OTHERWISE = "the runs differ otherwise too"


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
                    "capacity_estimate_interval_per_s": (
                        list(interval) if (interval := result.capacity_estimate_interval_per_s) else None
                    ),
                    "partial": result.partial,
                }
                for name, result in zip(self.names, self.results, strict=True)
            ],
            "changes": [
                {
                    "name": change.name,
                    "finding": change.finding,
                    "ratio": change.ratio,
                    "interval": list(change.interval) if change.interval else None,
                    "sentence": change.sentence,
                    "notes": list(change.notes),
                }
                for change in self.changes
            ],
            "advice": self.advice or None,
        }


def compare_folders(folders: Sequence[Path]) -> list[Comparison]:
    """One comparison per model that all folders hold; ResultsError when they cannot be compared, with the reason."""
    if len(folders) < _FEWEST:
        raise ResultsError("a comparison takes at least two folders: the run before, then the run after")
    runs = [{stored.run.model: stored for stored in read_runs(folder)} for folder in folders]
    places = [stored.folder.resolve() for held in runs for stored in held.values()]
    if doubled := [place for place in places if places.count(place) > 1]:
        raise ResultsError(
            f"{doubled[0]} is named twice, and a run does not differ from itself: give two folders", doubled[0]
        )
    shared = [model for model in runs[0] if all(model in held for held in runs)]
    if not shared:
        found = "; ".join(f"{folder} has {', '.join(held)}" for folder, held in zip(folders, runs, strict=True))
        raise ResultsError(f"these folders hold no model in common, so there is nothing to compare: {found}")
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
    names = (
        [run.run.settings.get("side") or name for name, run in zip(names, runs, strict=True)]
        if _in_turns(*runs)
        else names
    )
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
    slos = " ".join(f"--slo {slo}" for slo in as_requested(stored.run.slos))
    return (
        "the machine may have changed between the runs, so measure both in turns: "
        f"fathom capacity {stored.run.model} {slos} --against MODEL_REPOSITORY (or HOST:PORT)"
    )


def _drifted(names: Sequence[str], runs: Sequence[Stored]) -> list[str]:
    """A sentence for each two runs that measured the same and found another capacity."""
    notes = []
    for (one_name, one), (name, run) in itertools.combinations(zip(names, runs, strict=True), 2):
        found = ratio_interval(one.result, run.result)
        if found is None or not _same(one, run) or found[1] <= 1 <= found[2]:
            continue
        notes.append(
            f"{one_name} and {name} measured the same, and {name} found {_percent(found[0])}: the machine changed"
        )
    return notes


def _same(first: Stored, second: Stored) -> bool:
    """Whether two runs measured the same, as far as a digest of the model's configuration and its manifest tell."""
    known = first.run.settings.get("model_config_sha256") and second.run.settings.get("model_config_sha256")
    return bool(known) and first.run.manifest == second.run.manifest and not differences(first.run, second.run)


def _ratio(first: Stored, second: Stored) -> Ratio | None:
    if _in_turns(first, second):
        return capacity_ratio(first.result.points, second.result.points, first.run.slos)
    return ratio_interval(first.result, second.result)


def ratio_interval(first: CapacityResult, second: CapacityResult) -> Ratio | None:
    """Of two estimates that know nothing of one another; None where one is missing."""
    if not (first.capacity_estimate_per_s and second.capacity_estimate_per_s):
        return None
    if not (first.capacity_estimate_interval_per_s and second.capacity_estimate_interval_per_s):
        return None
    guess = math.log(second.capacity_estimate_per_s) - math.log(first.capacity_estimate_per_s)
    below_1, above_1 = _arms(first.capacity_estimate_per_s, first.capacity_estimate_interval_per_s)
    below_2, above_2 = _arms(second.capacity_estimate_per_s, second.capacity_estimate_interval_per_s)
    low, high = guess - math.hypot(below_2, above_1), guess + math.hypot(above_2, below_1)
    return Ratio(math.exp(guess), math.exp(low), math.exp(high))


def write(folders: Sequence[Path], path: Path) -> list[Comparison]:
    """The comparison as a page at `path`."""
    found = compare_folders(folders)
    shown = [(comparison, _picture(comparison, number)) for number, comparison in enumerate(found)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page.render("compare.html", shown=shown), encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"cannot write the comparison to {path}: {error.strerror}", path) from error
    return found


def _change(first_name: str, first: Stored, name: str, second: Stored, drifted: Sequence[str]) -> Change:
    """`drifted` says what shows that the machine changed between the runs."""
    together = _in_turns(first, second)  # what the machine did, it did to both
    differing = _differing(first, second)
    doubted = [*_doubts(first_name, first, together=together), *_doubts(name, second, together=together)]
    doubted += () if together else drifted
    busy = _busy(first, second) if together else []
    notes = (*doubted, *busy, *differing, *_partial(first_name, first.result), *_partial(name, second.result))
    found = _ratio(first, second)
    if found is None and together:
        sentence = f"{name} and {first_name} cannot be told apart: too few turns show where both capacities lie."
        return Change(name, "unknown", None, None, sentence, notes)
    if found is None:
        finding, sentence = _by_certificates(first_name, first.result, name, second.result)
        if differing and finding != "unknown":
            sentence = f"{sentence.rstrip('.')}, but {_OTHERWISE}."
        finding = "unknown" if doubted else finding
        return Change(name, finding, None, None, sentence, notes)
    ratio, low, high = found
    between = f"95 % between {_percent(low)} and {_percent(high)}" + (", from turns" if together else "")
    if low > 1 or high < 1:
        finding = "more" if ratio > 1 else "less"
        share = _percent(abs(ratio - 1) + 1, sign=False)
        if doubted:
            sentence = f"{name} measured {share} {finding} than {first_name} ({between})"
            return Change(name, "unknown", ratio, (low, high), f"{sentence}, which proves nothing: see below.", notes)
        sentence = f"{name} holds {share} {finding} than {first_name} ({between})"
        conclusion = f"more than chance, but {_OTHERWISE}" if differing else "significant at 95 %"
        return Change(name, finding, ratio, (low, high), f"{sentence}: {conclusion}.", notes)
    sentence = (
        f"No difference shown between {name} and {first_name}: the estimates differ by {_percent(ratio)} ({between}), "
        "which chance alone explains; longer budgets would show smaller differences."
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
                f"{name} holds {finding} than {first_name}: {high_name} is proven for "
                f"{format_rate(high.capacity_per_s)}, above the 95 % interval of {low_name} "
                f"(up to {format_rate(interval[1])})."
            )
    missing = " and ".join(n for n, r in ((first_name, first), (name, second)) if not r.capacity_estimate_per_s)
    return "unknown", f"{name} and {first_name} cannot be told apart: {missing} ended without an estimate."


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


def _picture(comparison: Comparison, number: int) -> Picture:
    """p99 over the rate for each run, and below the estimates with their intervals and the proven rates."""
    palette = (P99, *STEPS[1:])
    rows = len(comparison.names)

    def draw(figure: Any, narrow: bool) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 0.5 + 0.42 * rows))
        upper.set_yscale("log")
        top = 0.0
        for row, (name, result) in enumerate(zip(comparison.names, comparison.results, strict=True)):
            colour = palette[row % len(palette)]
            longest = sorted(result.points, key=lambda point: point.requests)
            points = sorted({p.rate_per_s: p.p99_ms for p in longest if p.p99_ms and not p.stopped}.items())
            if points:
                upper.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, linewidth=1.6)
                top = max(top, points[-1][0])
            if result.capacity_estimate_interval_per_s and result.capacity_estimate_per_s:
                lower.plot(result.capacity_estimate_interval_per_s, [row, row], color=colour, linewidth=5, alpha=0.35)
                lower.plot(result.capacity_estimate_per_s, row, "o", color=colour, markersize=8)
                top = max(top, result.capacity_estimate_interval_per_s[1])
            if result.capacity_per_s:
                lower.plot(result.capacity_per_s, row, "|", color=PASS, markersize=15, markeredgewidth=2.5)
            lower.annotate(
                visible(name), (0, row), (6, 8), textcoords="offset points", color=colour, fontsize=9, va="center"
            )
        for slo in comparison.results[0].slos:
            if slo.limit_ms is not None:
                upper.axhline(slo.limit_ms, color=SLO, linewidth=1.2, dashes=(5, 3))
                upper.annotate(
                    f"{slo.metric} limit {format_ms(slo.limit_ms)}", (0, slo.limit_ms), (6, 4),
                    xycoords=("axes fraction", "data"), textcoords="offset points", color=SLO, fontsize=9,
                )  # fmt: skip
        lower.set_ylim(rows - 0.4, -0.9)
        lower.set_yticks([])
        lower.set_xlim(0, top * 1.06 or 1)
        plain_ticks(upper.yaxis)
        upper.set_ylabel("p99, ms", labelpad=9)
        lower.set_xlabel("requests/s", labelpad=6)

    return make_picture(
        f"{comparison.model}: runs compared", f"compare-{number}", draw, 4.6 + 0.3 * rows, 4.4 + 0.3 * rows
    )


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
