"""Measure a whole grid of a pipeline's configurations: the table that the tests of `fathom tune` replay.

  fathom export image_classifier
  python -m benchmarks.grid image_classifier --slo p99=100ms --out tests/loadtests/tables/image_classifier.json

Every configuration gets a fresh server and a bisection of its capacity, twice. Each pass has its own order, so a slow
phase of the machine does not hit the same configurations again. All rates are rungs of one ladder, and at a rung of a
pass all configurations get the same draw of arrivals and payloads, so that chance favours none of them. FILE is written
after every bisection. The same command goes on from it, after Ctrl-C too.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import random
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.command import default_repository
from fathom.console.arguments import STOPPED
from fathom.console.options import default_config_name
from fathom.console.output import Steps, note
from fathom.tuning.models import TunedModel, this_machine
from fathom.tuning.prediction import predict
from fathom.tuning.request import TuneRequest
from fathom.tuning.servers import Servers
from loadtests.capacity import CapacityRequest
from loadtests.records.point import Point, Probe
from loadtests.slo import Slo
from loadtests.target.hardware import describe_hardware
from loadtests.tuning.arm import Turn
from loadtests.tuning.objective import Objective
from loadtests.tuning.space import Configuration, Space, read_space
from loadtests.workload.schedule import probe_seed

GRIDS = {
    "image_classifier": """
        [mobilenet_v2]
        instances = [1, 2]
        intra_threads = [1, 2]
        preferred = [0, 2, 4, 8]
        rows_per_run = ["auto", "off"]
    """,
    "text_embedding": """
        [minilm]
        instances = [1, 2]
        intra_threads = [1, 2]
        preferred = [0, 2, 4, 8]
        [text_tokenizer]
        pad_to_multiple_of = [8, 16]
    """,
}
"""24 configurations each on a machine with two cores, since instances x threads stay within the cores."""
_PASSES = 2
_PREDICTION_S = 600.0
"""The budget of a tuning run whose share for batch times and ranking suffices for such a grid."""
_RUNG, _FIRST_STEP, _MOST_PROBES = 1.04, 6, 12
"""The ratio of neighbouring rates, how many of them a bisection first goes up or down, and its most probes."""


def main() -> int:
    """Measure what the file lacks."""
    command = argparse.ArgumentParser(
        prog="python -m benchmarks.grid", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("model", choices=GRIDS)
    command.add_argument("--slo", type=Slo.parse, required=True, metavar="pNN=LIMIT")
    command.add_argument("--out", type=Path, required=True, metavar="FILE")
    command.add_argument("--seconds", type=float, default=5.0, metavar="S", help="of a probe (default: %(default)g)")
    command.add_argument("--first", type=int, metavar="N", help="measure only the first N configurations")
    command.add_argument(
        "--predict", action="store_true", help="predict what FILE holds anew, and measure what it lacks"
    )
    arguments = command.parse_args()
    repository, machine = default_repository(), this_machine()
    tuned = TunedModel.read(arguments.model, repository, default_config_name(repository), machine, embedded=True)
    grid = Grid(tuned, read_space(GRIDS[tuned.model], tuned.steps, machine, "grid"), arguments.slo, arguments.out)
    with Steps() as steps, tempfile.TemporaryDirectory(prefix="fathom-grid-") as scratch:
        try:
            grid.measure(Path(scratch), arguments.seconds, arguments.first, steps, anew=arguments.predict)
        except KeyboardInterrupt:
            note(f"interrupted; the same command goes on from {arguments.out}")
            return STOPPED
    return 0


class Grid:
    """The table of one pipeline, in memory and in its file."""

    def __init__(self, tuned: TunedModel, space: Space, slo: Slo, path: Path) -> None:
        self._tuned, self._space, self._slo, self._path = tuned, space, slo, path
        identity = {
            "model": tuned.model,
            "slo": str(slo),
            "committed": {s.model: dict(s.committed) for s in space.steps},
        }
        self.document: dict[str, Any] = {**identity, "hardware": describe_hardware(), "date": "", "rows": []}
        if path.exists():
            self.document = json.loads(path.read_text())
            if any(self.document[key] != value for key, value in identity.items()):
                raise SystemExit(f"{path} holds another grid: name another --out, or remove it")

    def measure(self, scratch: Path, seconds: float, first: int | None, steps: Steps, *, anew: bool) -> None:
        """Predict all configurations, then search each one in every pass. Raises KeyboardInterrupt for Ctrl-C."""
        request = CapacityRequest("", self._tuned.model, (self._slo,), budget_s=_PREDICTION_S)
        with Servers(self._tuned, scratch / "servers", request, None) as servers:
            if anew or not self.document["rows"]:
                self._predict(servers, request, scratch / "times", steps)
            rows = self.document["rows"][:first]
            for number in range(_PASSES):
                order = [row for row in rows if len(row["passes"]) <= number]
                random.Random(number).shuffle(order)
                for done, row in enumerate(order):
                    configuration = Configuration.from_json(row["changes"])
                    with steps.step(f"pass {number + 1}, {done + 1} of {len(order)}: {configuration}") as step:
                        row["passes"].append(self._bisect(servers, configuration, row, number, seconds))
                        step.update(str(row["passes"][-1]))
                    self.document["date"] = datetime.date.today().isoformat()
                    write_table(self._path, self.document)

    def _predict(self, servers: Servers, request: CapacityRequest, scratch: Path, steps: Steps) -> None:
        """A row for each configuration, with the prediction of those that `fathom tune` ranks."""
        asked = TuneRequest(self._tuned, self._space, Objective((self._slo,)), "rate", request, scratch)
        found = {each.configuration: each.value for each in predict(asked, servers, scratch, steps)[0]}
        measured = {str(row["changes"]): row["passes"] for row in self.document["rows"]}
        self.document["rows"] = [
            {
                "changes": configuration.to_json(),
                "predicted_per_s": round(found[configuration], 1) if found.get(configuration, 0) > 0 else None,
                "passes": measured.get(str(configuration.to_json()), []),
            }
            for configuration in self._space.all()
        ]
        write_table(self._path, self.document)

    def _bisect(
        self, servers: Servers, configuration: Configuration, row: dict[str, Any], number: int, seconds: float
    ) -> dict[str, Any]:
        """The estimate with its 95 % interval, or why there is none."""
        points: dict[int, Point] = {}
        rung: int | None = round(math.log(self._expected_per_s(row)) / math.log(_RUNG))
        try:
            while rung is not None and len(points) < _MOST_PROBES:
                rate_per_s, seed = _RUNG**rung, probe_seed(number, rung)
                probe = Probe(len(points), "refine", rate_per_s, max(round(rate_per_s * seconds), 8), seed)
                answer = servers.answer(Turn(configuration, probe))
                if answer.point is not None and not answer.point.usable:  # the generator spoilt it
                    answer = servers.answer(Turn(configuration, probe))
                if answer.point is None:
                    return {"failure": answer.failure, "probes": len(points)}
                points[rung] = answer.point
                rung = next_rung({each: point.meets_slo for each, point in points.items()})
        finally:
            servers.stop(configuration)
        found = Objective((self._slo,)).standing(configuration, list(points.values()))
        if found is None:
            return {"failure": f"{self._slo} was met at no rate, or at every one", "probes": len(points)}
        figures = {"rate_per_s": found.value, "low_per_s": found.low, "high_per_s": found.high}
        return {"probes": len(points), **{name: round(value, 1) for name, value in figures.items()}}

    def _expected_per_s(self, row: dict[str, Any]) -> float:
        """What the prediction says, corrected by the median of what was measured so far."""
        rows = self.document["rows"]
        ratios = [
            each["rate_per_s"] / other["predicted_per_s"]
            for other in rows
            for each in other["passes"]
            if other["predicted_per_s"] and "rate_per_s" in each
        ]
        predicted = row["predicted_per_s"] or rows[0]["predicted_per_s"]
        return float(predicted) * (statistics.median(ratios) if ratios else 0.7)


def next_rung(met: Mapping[int, bool]) -> int | None:
    """Up or down in steps that double until some rate was met and some missed; then halfway between the highest that
    was met and the lowest missed above it; then one beyond either. None when all these are known."""
    held, missed = [rung for rung in met if met[rung]], [rung for rung in met if not met[rung]]
    step: int = _FIRST_STEP * 2 ** (len(met) - 1)
    if not held:
        return max(min(missed) - step, 0) if min(missed) > 0 else None
    if not missed:
        return max(held) + step
    low = max((rung for rung in held if rung < min(missed)), default=min(held))
    high = min((rung for rung in missed if rung > low), default=max(missed))
    wanted = [(low + high) // 2] if high - low > 1 else [low - 1, high + 1]
    return next((rung for rung in wanted if rung not in met), None)


def write_table(path: Path, document: dict[str, Any]) -> None:
    """A row a line; the file is replaced at once."""
    rows = ",\n".join(json.dumps(row) for row in document["rows"])
    head = json.dumps({**document, "rows": []}, indent=1).removesuffix("[]\n}")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(f"{head}[\n{rows}\n]}}\n")
    scratch.replace(path)


if __name__ == "__main__":
    raise SystemExit(main())
