"""Predict every configuration: measure batch times and what requests cost besides, then simulate."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clients import Client, InferenceError
from export.config.knobs import with_knobs
from fathom.console.output import Steps
from fathom.tuning.batch_times import TimingServer, classes_of, infer, measure, trace_all
from fathom.tuning.request import TuneRequest
from fathom.tuning.servers import Servers
from fathom.tuning.times import Times, timed, upstream, variants
from loadtests.records.point import Probe
from loadtests.records.record import finite
from loadtests.slo import about_ms
from loadtests.target.hardware import describe_hardware, process_cpu_s
from loadtests.target.steps import Infer
from loadtests.tuning.arm import Turn
from loadtests.tuning.objective import Objective
from loadtests.tuning.ranking import Prediction, rank
from loadtests.tuning.space import COMMITTED, Configuration
from server import TritonServerError

_TABLES_SHARE, _RANKING_SHARE = 0.2, 0.2
"""Of the budget: by when the last table of batch times is begun, and how long configurations are simulated."""
_HANDLING_LOAD, _HANDLING_S = 0.3, 3.0
"""Of the capacity predicted without it, and for how long: the probe that shows what requests cost besides batches."""
_CALL_S = 30.0


def predict(
    request: TuneRequest, servers: Servers, scratch: Path, steps: Steps
) -> tuple[list[Prediction], dict[str, Any]]:
    """The ranking, and what the folder keeps of it."""
    began_s = time.monotonic()
    until_s = began_s + _TABLES_SHARE * request.capacity.budget_s
    tuned, space = request.tuned, request.space
    times = Times(tuned, space)
    with steps.step("start the committed configuration") as step:
        lane = servers.lane(COMMITTED)
        step.update(f"one request takes {about_ms(lane.unloaded.latency_ms)} without load")
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
        _measure_handling(times, servers, request)
        order = times.bottleneck_first()
        left_out = measure(times, server, order, traced, until_s)
        step.update(f"{len(times.tables)} tables; the bottleneck is {order[0]}")
    alone_s = sum(next(iter(table.values()))(1) for (_, changes), table in times.tables.items() if not changes)
    times.overhead_s = max(lane.unloaded.latency_ms / 1e3 - alone_s, 0.0)
    with steps.step("rank by simulation") as step:
        done, ranked_s = 0, time.monotonic() + _RANKING_SHARE * request.capacity.budget_s

        def simulated(configuration: Configuration) -> float:
            nonlocal done
            if done and time.monotonic() > ranked_s:
                return math.nan
            done += 1
            step.update(f"{done} configurations")
            return times.predict(configuration, request.objective)

        predictions = rank(space, simulated, order)
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
        "identity": request.identity(),
        "took_s": time.monotonic() - began_s,
        "unloaded_per_s": 1e3 / lane.unloaded.latency_ms,
        "bottleneck": order[0],
        "left_out": [*space.left_out, *left_out],
        "failures": failures,
        "predictions": [[each.configuration.to_json(), finite(each.value)] for each in predictions],
        "tables": {
            f"{model} {dict(changes) or ''}".strip(): {number: table.to_json() for number, table in found.items()}
            for (model, changes), found in times.tables.items()
        },
        "settings": {
            **describe_hardware(),
            "configuration": tuned.config_name or "config.pbtxt",
            "unloaded_ms": lane.unloaded.latency_ms,
            "overhead_ms": 1e3 * times.overhead_s,
            "handling_ms": 1e3 * times.handling_s,
            "seed": request.capacity.seed,
            "budget_s": request.capacity.budget_s,
        },
    }
    return predictions, header


def _measure_handling(times: Times, servers: Servers, request: TuneRequest) -> None:
    """By a probe of the committed configuration at about half of its load."""
    predicted_per_s = times.predict(COMMITTED, Objective(tuple(request.capacity.slos)))
    if not predicted_per_s > 0:
        return  # it is left out of the predictions, which the race corrects
    rate_per_s, seed = _HANDLING_LOAD * predicted_per_s, request.capacity.seed
    probe = Probe(0, "refine", rate_per_s, max(round(rate_per_s * _HANDLING_S), 8), seed)
    lane = servers.lane(COMMITTED)
    before_s = process_cpu_s(lane.server.pid)
    answer = servers.answer(Turn(COMMITTED, probe))
    if answer.point is not None:
        times.learn_handling(answer.point, process_cpu_s(lane.server.pid) - before_s)


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
