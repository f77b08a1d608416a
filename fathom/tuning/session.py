"""One tuning run: batch times, ranking, race; every answer is kept at once, so that a run can go on after Ctrl-C."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from clients import Client, InferenceError
from export.config.knobs import with_knobs
from fathom.console.output import Step, Steps
from fathom.tuning.batch_times import (
    Times,
    TimingServer,
    classes_of,
    infer,
    measure,
    timed,
    trace_all,
    upstream,
    variants,
)
from fathom.tuning.journal import kept_answers, line
from fathom.tuning.models import TunedModel
from fathom.tuning.servers import Servers
from loadtests.capacity import CapacityRequest
from loadtests.errors import ResultsError
from loadtests.search.budget import Plan
from loadtests.slo import format_rate
from loadtests.target.hardware import describe_hardware
from loadtests.target.steps import Infer
from loadtests.tuning.arm import Answer, Turn
from loadtests.tuning.objective import Objective
from loadtests.tuning.race import Race
from loadtests.tuning.ranking import Prediction, Ranking, rank
from loadtests.tuning.result import TuningResult, summarise
from loadtests.tuning.space import COMMITTED, Configuration, Space
from server import TritonServerError

_TABLES_SHARE, _RANKING_SHARE = 0.2, 0.2
"""Of the budget: by when the last table of batch times is begun, and how long configurations are simulated."""
_START_SHARE = 0.7
"""Of the predicted capacity: where the committed configuration is probed first."""
_CALL_S = 30.0
HEADER, TURNS = "tuning.json", "turns.jsonl"


@dataclass(frozen=True)
class TuneRequest:
    """What to tune, for how long, and where the results go."""

    tuned: TunedModel
    space: Space
    objective: Objective
    objective_text: str
    capacity: CapacityRequest
    """How to measure: model, SLOs, seed, generators. The server and the payloads are those of each configuration."""
    folder: Path
    tritonserver: Path | None = None
    inputs: Sequence[str] = ()
    """As of `--inputs`."""


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
            kept.predictions, kept.header = _predict(request, servers, scratch / "times", steps)
            _write(request.folder / HEADER, kept.header)
        header = kept.header
        committed = next(each.value for each in kept.predictions if each.configuration == COMMITTED)
        start_per_s = _START_SHARE * committed if committed > 0 else header["unloaded_per_s"] / 2
        plan = Plan(
            tuple(request.capacity.slos),
            start_per_s / request.objective.scaled(COMMITTED, 1.0),
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


def _predict(
    request: TuneRequest, servers: Servers, scratch: Path, steps: Steps
) -> tuple[list[Prediction], dict[str, Any]]:
    """The ranking, and what the folder keeps of it."""
    began_s = time.monotonic()
    until_s = began_s + _TABLES_SHARE * request.capacity.budget_s
    tuned, space = request.tuned, request.space
    times = Times(tuned, space)
    with steps.step("start the committed configuration") as step:
        lane = servers.lane(COMMITTED)
        step.update(f"one request takes {lane.unloaded.latency_ms:.3g} ms without load")
    with (
        steps.step("measure batch times") as step,
        Client(lane.server.grpc_url, timeout_s=_CALL_S) as client,
        TimingServer(tuned, scratch, request.tritonserver) as server,
    ):
        ask = functools.partial(infer, client)
        traced = trace_all(tuned, lane.traffic.pool, ask)
        times.shapes[()] = classes_of(traced)
        _trace_parameters(times, server, lane.traffic.pool, ask, traced)
        models = [each.model for each in tuned.steps]
        measure(times, server, models, traced, 0.0)  # the committed variants alone
        order = times.bottleneck_first()
        left_out = measure(times, server, order, traced, until_s)
        step.update(f"{len(times.tables)} tables; the bottleneck is {order[0]}")
    alone_s = sum(next(iter(table.values()))(1) for (_, changes), table in times.tables.items() if not changes)
    times.overhead_s = max(lane.unloaded.latency_ms / 1e3 - alone_s, 0.0)
    with steps.step("rank by simulation") as step:
        done, ranked_s = 0, time.monotonic() + _RANKING_SHARE * request.capacity.budget_s

        def predict(configuration: Configuration) -> float:
            nonlocal done
            if done and time.monotonic() > ranked_s:
                return math.nan
            done += 1
            step.update(f"{done} configurations")
            return times.predict(configuration, request.objective)

        predictions = rank(space, predict, order)
        step.update(f"{done} of {len(space)} configurations")
    if (late := len(predictions) - done) > 0:
        left_out.append((f"{late} configurations", "there was no time to simulate them"))
    failures = [
        (each.configuration.to_json(), reason)
        for each in predictions
        for (model, changes), reason in times.failures.items()
        if changes == timed(each.configuration, model)
    ]
    if len(predictions) < len(space):
        others = f"{len(space) - len(predictions)} combinations with {', '.join(order[1:])}"
        left_out.append((others, f"{order[0]} is the bottleneck, so the other steps vary on its best settings only"))
    header = {
        "model": tuned.model,
        "identity": _identity(request),
        "took_s": time.monotonic() - began_s,
        "unloaded_per_s": 1e3 / lane.unloaded.latency_ms,
        "bottleneck": order[0],
        "left_out": [*space.left_out, *left_out],
        "failures": failures,
        "predictions": [[each.configuration.to_json(), _finite(each.value)] for each in predictions],
        "tables": {
            f"{model} {dict(changes) or ''}".strip(): {number: table.to_json() for number, table in found.items()}
            for (model, changes), found in times.tables.items()
        },
        "settings": {
            **describe_hardware(),
            "configuration": tuned.config_name or "config.pbtxt",
            "unloaded_ms": lane.unloaded.latency_ms,
            "overhead_ms": 1e3 * times.overhead_s,
            "seed": request.capacity.seed,
            "budget_s": request.capacity.budget_s,
        },
    }
    return predictions, header


def _trace_parameters(
    times: Times, server: TimingServer, pool: Sequence[bytes], ask: Infer, traced: dict[str, list[Any]]
) -> None:
    """What the steps behind a python step are asked when its parameters change their shapes."""
    for step in times.tuned.steps:
        for configuration in variants(times.space, step.model):
            parameters = upstream(configuration)
            if not parameters or parameters in times.shapes:
                continue
            message = with_knobs(times.tuned.messages[step.model], configuration.models()[step.model])

            def varied(asked: Any, model: str = step.model) -> Any:
                return server.infer(asked) if asked.model_name == model else ask(asked)

            with contextlib.suppress(InferenceError, TritonServerError), server.loaded(step.model, message):
                found = trace_all(times.tuned, pool, varied)
                times.shapes[parameters] = classes_of(found)
                for model, requests in found.items():
                    if model != step.model:
                        traced[model] = [*traced[model], *requests]


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
    if kept.header.get("identity") != _identity(request):
        raise ResultsError(
            f"{request.folder} holds another run: resume it with the model, SLOs, objective, space, seed and budget "
            "that it was begun with",
            request.folder,
        )
    kept.predictions = [
        Prediction(Configuration.from_json(changes), math.nan if value is None else value)
        for changes, value in kept.header["predictions"]
    ]
    kept.answers = kept_answers(request.folder / TURNS)
    return kept


def _identity(request: TuneRequest) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    return {
        "model": request.tuned.model,
        "slos": [str(slo) for slo in request.capacity.slos],
        "objective": request.objective_text,
        "seed": request.capacity.seed,
        "budget_s": request.capacity.budget_s,
        "inputs": list(request.inputs),
        "space": [[each.name, list(each.values)] for each in request.space.dimensions],
        "committed": {step.model: dict(step.committed) for step in request.space.steps},
    }


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(json.dumps(document, indent=1, default=str))
    scratch.replace(path)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
