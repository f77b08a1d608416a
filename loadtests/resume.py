"""Going on with an earlier search: which of its points count, and whether they may be mixed with new ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests.errors import BadRequestError
from loadtests.hardware import MACHINE
from loadtests.page import plain
from loadtests.point import Point
from loadtests.result import CUT_OFF
from loadtests.slo import Slo
from loadtests.store import Run, Stored, read_runs


def earlier_run(
    folder: Path, model: str, slos: Sequence[Slo], manifest: Mapping[str, Any] | None, budget_s: float
) -> Stored:
    """The run to go on with.

    Raises ResultsError when there is none and BadRequestError when it measured something else or has spent the budget.
    """
    stored = next((run for run in read_runs(folder) if run.run.model == model), None)
    if stored is None:
        raise BadRequestError(f"{folder} has no search of {model} to resume")
    if sorted(map(str, stored.run.slos)) != sorted(map(str, slos)):
        before, now = (", ".join(map(str, given)) for given in (stored.run.slos, slos))
        raise BadRequestError(f"the search in {folder} was for {before}, not {now}: resume it with the same --slo")
    if stored.run.manifest != json.loads(json.dumps(manifest)):
        raise BadRequestError(
            f"{model} was exported anew since the search in {folder}: its points do not count any more"
        )
    spent_s = sum(point.took_s for point in usable_points(stored))
    if spent_s >= budget_s * 0.95:
        raise BadRequestError(
            f"the search in {folder} has spent {spent_s:.0f} s of its {budget_s:g} s; give a longer --budget to go on"
        )
    return stored


def changes(before: Run, server: str, settings: Mapping[str, Any], hardware: Mapping[str, Any]) -> list[str]:
    """What is no longer as it was when the points so far were measured, now or at an earlier resumption."""
    found = list(before.settings.get("resumed") or ())
    then: dict[str, Any] = {**before.hardware, **before.settings}
    now: dict[str, Any] = {**hardware, **settings}
    if before.server.rpartition(":")[0] != server.rpartition(":")[0]:
        found.append(f"server {before.server}, then {server}")
    for key in (*MACHINE, "server_name"):
        if then.get(key) != now.get(key):
            found.append(f"{key.replace('_', ' ')} {plain(then.get(key))}, then {plain(now.get(key))}")
    return found


def usable_points(stored: Stored) -> list[Point]:
    """Those up to the first that was cut off and is measured again, which keeps numbers and seeds in order."""
    usable: list[Point] = []
    for point in stored.result.points:
        if point.stopped in CUT_OFF:
            break
        usable.append(point)
    return usable
