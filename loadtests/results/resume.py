"""Continue an earlier search: which of its points are valid, and whether new ones may be added."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loadtests.errors import BadRequestError
from loadtests.records.point import Point
from loadtests.results.differences import differences
from loadtests.results.result import CUT_OFF
from loadtests.results.store import Run, Stored, read_runs
from loadtests.slo import Slo


def earlier_run(
    folder: Path, model: str, slos: Sequence[Slo], manifest: Mapping[str, Any] | None, budget_s: float
) -> Stored:
    """The run to go on with.

    Raises ResultsError when there is none and BadRequestError when it measured something else or has spent the budget.
    """
    stored = next((run for run in read_runs(folder) if run.run.model == model), None)
    if stored is None:
        raise BadRequestError(f"{folder} has no search of {model} to resume", field="model")
    if sorted(map(str, stored.run.slos)) != sorted(map(str, slos)):
        before, now = (", ".join(map(str, given)) for given in (stored.run.slos, slos))
        raise BadRequestError(
            f"the search in {folder} was for {before}, not {now}: resume it with the same --slo", field="slos"
        )
    if stored.run.manifest != json.loads(json.dumps(manifest)):
        raise BadRequestError(
            f"{model} was exported again after the search in {folder}, so its probes are not valid: start a new one",
            field="manifest",
        )
    spent_s = sum(point.took_s for point in usable_points(stored))
    if spent_s >= budget_s * 0.95:
        raise BadRequestError(
            f"the search in {folder} has spent {spent_s:.0f} s of its {budget_s:g} s; raise --budget to continue",
            field="budget_s",
        )
    return stored


def resumed(earlier: Stored, run: Run) -> Run:
    """The run as a continuation of the earlier one, with the notes of both: what changed in between, and the highest
    CPU use before either. BadRequestError where it would send other requests than the earlier one.
    """
    then = earlier.run
    if bool(then.settings.get("side")) != bool(run.settings.get("side")):
        raise BadRequestError(
            f"the search in {earlier.folder} was measured "
            + (
                "in turns with another: resume both with --against"
                if then.settings.get("side")
                else "without --against"
            ),
            field="side",
        )
    changed = differences(then, run)
    if other := next((difference for difference in changed if difference.kind == "requests"), None):
        raise BadRequestError(
            f"the search in {earlier.folder} had {other.what} {other.first}, not {other.second}: resume it with the "
            "same requests, or start a new search with --report",
            field=other.what,
        )
    notes = [*(then.settings.get("resumed") or ()), *(f"{d.what} {d.first}, then {d.second}" for d in changed)]
    busy = [share for each in (then, run) if (share := each.settings.get("busy_before_share")) is not None]
    own = {key: value for key, value in then.settings.items() if key in ("side", "turns")}
    settings = {
        **run.settings,
        **own,
        "busy_before_share": max(busy, default=None),
        **({"resumed": notes} if notes else {}),
    }
    return replace(run, settings=settings, started_at=then.started_at)


def usable_points(stored: Stored) -> list[Point]:
    """The points before the first that was cut off and is measured again: numbers and seeds stay in order."""
    usable: list[Point] = []
    for point in stored.result.points:
        if point.stopped in CUT_OFF:
            break
        usable.append(point)
    return usable
