"""One tuning run: batch times, ranking, race. Every measurement is kept at once, so that a run can continue."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fathom.console.output import Step, Steps
from fathom.tuning.journal import kept_answers, line
from fathom.tuning.prediction import predict
from fathom.tuning.request import TuneRequest
from fathom.tuning.servers import Servers
from loadtests.errors import ResultsError
from loadtests.search.budget import Plan
from loadtests.slo import format_rate
from loadtests.tuning.arm import Answer, Turn
from loadtests.tuning.race import Race
from loadtests.tuning.ranking import Prediction, Ranking
from loadtests.tuning.result import TuningResult, summarise
from loadtests.tuning.space import COMMITTED, Configuration

_START_SHARE = 0.7
"""Of the predicted capacity: where the committed configuration is probed first."""
HEADER, TURNS = "tuning.json", "turns.jsonl"


class Answering(Protocol):
    """What answers the turns of a race: `Servers`, or what stands for them."""

    def answer(self, turn: Turn) -> Answer:
        """Raises KeyboardInterrupt for Ctrl-C."""


@dataclass
class _Kept:
    """What an earlier part of the same run left in the folder."""

    predictions: list[Prediction] = field(default_factory=list)
    header: dict[str, Any] = field(default_factory=dict)
    answers: list[tuple[Configuration, Answer]] = field(default_factory=list)


def tune(request: TuneRequest, steps: Steps) -> TuningResult:
    """Raises BadRequestError, TargetError and TritonServerError where the committed configuration cannot be served.

    Ctrl-C ends it: the result then says so, and a second call with the same folder goes on.
    """
    kept = _read(request)
    budget_s = request.capacity.budget_s
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fathom-tune-")))
        servers = stack.enter_context(
            Servers(request.tuned, scratch / "race", request.capacity, request.tritonserver, request.inputs)
        )
        if not kept.header:
            kept.predictions, kept.header = predict(request, servers, scratch / "times", steps)
            _write(request.folder / HEADER, kept.header)
        header = kept.header
        committed = next(each.value for each in kept.predictions if each.configuration == COMMITTED)
        worth = request.objective.scaled(COMMITTED, 1.0)
        plan = Plan(
            tuple(request.capacity.slos),
            _START_SHARE * committed / worth if committed > 0 else header["unloaded_per_s"] / 2,
            request.capacity.seed,
            max(budget_s - header["took_s"], 0.3 * budget_s),
            timing=request.capacity.timing,
        )
        race = Race(request.objective, Ranking(kept.predictions), plan)
        with steps.step("race") as step:
            ended = drive(race, servers, kept.answers, request.folder / TURNS, step)
    failures = {Configuration.from_json(changes): reason for changes, reason in header["failures"]}
    result = summarise(
        race,
        model=request.tuned.model,
        objective=request.objective_text,
        bottleneck=header["bottleneck"],
        left_out=[tuple(each) for each in header["left_out"]],
        failures=failures,
        settings={**header["settings"], "batch times took": f"{header['took_s']:.0f} s"},
        ended=ended,
    )
    _write(request.folder / HEADER, {**header, "result": result.to_json()})
    return result


def drive(
    race: Race, servers: Answering, earlier: Sequence[tuple[Configuration, Answer]], path: Path, step: Step
) -> str:
    """Runs the race; returns why it ended early. Answers of an earlier part come first, as long as they fit."""
    running = race.run()
    known = list(earlier)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file, contextlib.suppress(StopIteration):
        turn = next(running)
        while True:
            if known and known[0][0] == turn.configuration:
                answer = known.pop(0)[1]
            else:
                known.clear()
                step.update(f"{turn.configuration} at {format_rate(turn.probe.rate_per_s)}; the best is {race.leader}")
                try:
                    answer = servers.answer(turn)
                except KeyboardInterrupt:
                    return "interrupted"
                file.write(json.dumps(line(turn.configuration, answer)) + "\n")
                file.flush()
            turn = running.send(answer)
    return ""


def _read(request: TuneRequest) -> _Kept:
    """Raises ResultsError for a folder of another run."""
    kept = _Kept()
    try:
        kept.header = json.loads((request.folder / HEADER).read_text())
    except FileNotFoundError:
        return kept
    except (OSError, ValueError) as error:
        raise ResultsError(f"{request.folder / HEADER} cannot be read: {error}", request.folder) from None
    if kept.header.get("identity") != request.identity():
        raise ResultsError(
            f"{request.folder} has another run: resume it with the same model, SLOs, objective, space, seed and budget",
            request.folder,
        )
    kept.predictions = [
        Prediction(Configuration.from_json(changes), math.nan if value is None else value)
        for changes, value in kept.header["predictions"]
    ]
    kept.answers = kept_answers(request.folder / TURNS)
    return kept


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(json.dumps(document, indent=1, default=str))
    scratch.replace(path)
