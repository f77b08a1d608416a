"""How many requests a second a served model holds under its SLOs: the search, run against a real server.

result = find(CapacityRequest(server="localhost:8001", model="rain_forecast", slos=(Slo.parse("p99=20ms"),)))
"""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.errors import BadRequestError, TargetError, TargetLostError
from loadtests.generator.messages import Limits
from loadtests.generator.pool import GeneratorPool, Generators
from loadtests.generator.process import GeneratorProcess, GeneratorSettings
from loadtests.records.point import Point, Probe
from loadtests.results.folders import home_of, model_folder
from loadtests.results.lock import writing
from loadtests.results.result import CUT_OFF, INTERRUPTED, CapacityResult, too_short
from loadtests.results.resume import earlier_run, resumed, usable_points
from loadtests.results.store import Run, Store, Stored
from loadtests.search.budget import Plan, Timing
from loadtests.search.probe import Prober, drained
from loadtests.search.search import gap_reached, search
from loadtests.search.unloaded import Unloaded, busy_share, measure_unloaded
from loadtests.slo import Slo, format_rate, loosest_limit_ms, tightest_limit_ms
from loadtests.target.access import Access
from loadtests.target.batching import batching_of
from loadtests.target.hardware import describe_hardware
from loadtests.target.metrics import MetricsMeter, default_url
from loadtests.workload.arrivals import POISSON, Arrivals
from loadtests.workload.shape import Shape
from loadtests.workload.trace import Trace
from loadtests.workload.workload import ModelWeight, Workload, digest, scoped

_START_SHARE = 0.5

OnPoint = Callable[[Point], None]
OnNote = Callable[[str], None]
OnWorkload = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class CapacityRequest:
    """What to find out. Without `payloads`, inputs are made from the server's metadata."""

    server: str
    """The gRPC endpoint: "host:port", or another address as `clients.Client` takes it."""
    model: str
    slos: Sequence[Slo]
    budget_s: float = 180.0
    gap: float | None = None
    """End before `budget_s` as soon as the proven rate lies within this share of the estimate (see `Plan.gap`)."""
    tolerance: float = 0.03
    seed: int = 0
    payloads: Sequence[bytes] | None = None
    """Serialised `ModelInferRequest`s, used in turn in an order shuffled by the seed."""
    start_per_s: float | None = None
    """First rate; by default half of what one request at a time reaches."""
    max_per_s: float | None = None
    timeout_s: float = 10.0
    """Deadline of each request, raised to four times the largest latency limit."""
    mix: Sequence[ModelWeight] = ()
    """Several models asked at once, each with its weight and payloads; `model` is then only a name."""
    folder: Path | None = None
    """Where raw results go, in a folder named after the model and the time; none are kept without it."""
    resume: bool = False
    """Go on with the latest search in `folder`, whose seed and start are then used; its time counts."""
    manifest: Mapping[str, Any] | None = None
    metrics_url: str | None = None
    """The server's Prometheus endpoint; by default port 8002 of its host, if that answers."""
    channels: int = 2
    """Connections of each generator."""
    workers: int = 1
    """Generator processes that share each probe's schedule."""
    timing: Timing = field(default_factory=Timing)
    """How long it probes at least, and waits."""
    arrivals: Arrivals = POISSON
    """How requests arrive at each rate that a search tries."""
    access: Access = field(default_factory=Access)
    """TLS and headers of the server."""
    real_time: bool = True
    """Whether the generators take real-time priority, where that is allowed."""
    locust_master: str | None = None
    """"[host:]port" where a Locust master listens for that many workers, which then are the generators."""

    @property
    def shares(self) -> tuple[ModelWeight, ...]:
        """What is asked."""
        return tuple(self.mix) or (ModelWeight(self.model, 1.0, self.payloads),)

    def __post_init__(self) -> None:
        tightest_limit_ms(self.slos)
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise BadRequestError(f"timeout {self.timeout_s:g} s must be above zero", field="timeout_s")
        for limit, name in (("start_per_s", "start"), ("max_per_s", "maximum")):
            rate_per_s = getattr(self, limit)
            if rate_per_s is not None and not (math.isfinite(rate_per_s) and rate_per_s > 0):
                raise BadRequestError(f"{name} rate {rate_per_s:g}/s must be above zero", field=limit)


def find(request: CapacityRequest, on_point: OnPoint | None = None, on_note: OnNote | None = None) -> CapacityResult:
    """Searches within the budget; `on_point` sees every point as it is measured, `on_note` what to know beforehand.

    Ctrl-C ends the search, and a server that dies ends it too: the result is then marked partial and keeps its points.
    Raises TargetError (server, model or warm request) and SloUnreachableError before measuring, GeneratorError when
    our own process fails. What cannot be written while it measures is said in the result (`unsaved`).
    """
    slos = scoped(request.slos, [share.model for share in request.shares])
    if (earlier := _earlier(request, slos)) is not None:  # refuses before anything is made or asked
        request = replace(request, seed=earlier.run.seed)
    with contextlib.ExitStack() as stack:
        traffic = stack.enter_context(
            Workload(
                request.server,
                request.shares,
                access=request.access,
                seed=request.seed,
                frozen_s=request.timing.frozen_s,
            )
        )
        traffic.check()
        if request.folder is not None:
            new = model_folder(request.folder, request.model)
            stack.enter_context(writing(home_of(earlier.folder, request.model) if earlier else new))
        earlier = _earlier(request, slos)
        points = usable_points(earlier) if earlier else []
        unloaded = measure_unloaded(traffic, slos, timeout_s=timeout_s(request), budget_s=request.budget_s)
        plan = _plan(request, slos, unloaded)
        run = _describe(request, plan, traffic, unloaded)
        if earlier:
            run = resumed(earlier, run)
        if on_note is not None and not points and (warning := too_short(run.model, run.slos, run.settings)):
            on_note(warning)
        reached = plan.gap is not None and gap_reached(points, slos, plan.gap)
        if reached or next(search(plan, tuple(points)), None) is None:  # an earlier result stays where it is
            return run.result(points, partial="", folder=earlier.folder if earlier else None)
        at = earlier.folder if earlier else None
        store = Store(request.folder, run, points, at=at) if request.folder is not None else None
        partial = _measure(request, traffic, plan, store, unloaded.latency_ms, points, on_point)
        result = run.result(points, partial=partial, folder=store.folder if store else None)
        if store is None:
            return result
        store.finish(result)
        return replace(result, unsaved=store.trouble)


def _plan(request: CapacityRequest, slos: tuple[Slo, ...], unloaded: Unloaded) -> Plan:
    return Plan(
        slos=slos,
        start_per_s=request.start_per_s or _START_SHARE * 1e3 / unloaded.latency_ms,
        seed=request.seed,
        budget_s=request.budget_s,
        gap=request.gap,
        tolerance=request.tolerance,
        max_per_s=request.max_per_s or math.inf,
        unloaded_s=unloaded.latency_ms / 1e3,
        unloaded_took_s=unloaded.took_s,
        timing=request.timing,
    )


def _measure(
    request: CapacityRequest,
    traffic: Workload,
    plan: Plan,
    store: Store | None,
    unloaded_ms: float,
    points: list[Point],
    on_point: OnPoint | None,
) -> str:
    """Goes on from `points` and adds to them; returns why the search ended early, or nothing."""
    searching = search(plan, tuple(points))
    try:
        with start_generators(request, traffic.pool) as generators:
            given = request.metrics_url
            metrics = MetricsMeter(given or default_url(request.server), required=given is not None)
            prober = Prober(
                generators,
                traffic,
                plan.slos,
                store.save_record if store else None,
                metrics,
                plan.timing,
                request.arrivals,
            )
            probe = next(searching)
            while True:
                point = prober.at_rate(probe)
                if point.stopped and point.stopped not in CUT_OFF:
                    left_s = plan.left_s([*points, point])
                    point = drained(
                        point,
                        traffic,
                        unloaded_ms,
                        timeout_s=timeout_s(request),
                        drain_s=request.timing.drain_s,
                        left_s=left_s,
                    )
                points.append(point)
                if store is not None:
                    store.add(point)
                if on_point is not None:
                    on_point(point)
                if point.stopped == "asked":
                    return INTERRUPTED
                if point.stopped == "connection lost":
                    return f"at {format_rate(probe.rate_per_s)} {point.reason}"
                probe = searching.send(point)
    except StopIteration:
        return ""
    except KeyboardInterrupt:
        return INTERRUPTED
    except (TargetLostError, TargetError) as error:
        if not points:
            raise
        return str(error)


def _earlier(request: CapacityRequest, slos: Sequence[Slo]) -> Stored | None:
    if not request.resume:
        return None
    if request.folder is None:
        raise BadRequestError("there is no folder to resume from", field="folder")
    return earlier_run(request.folder, request.model, slos, request.manifest, request.budget_s)


def start_generators(request: CapacityRequest, pool: Sequence[bytes]) -> Generators:
    """What fires, to be entered: processes of this machine, or the workers of a Locust master."""
    target = GeneratorSettings(
        request.server, pool, timeout_s(request), request.channels, request.access, request.real_time
    )
    if request.locust_master is None:
        return GeneratorPool(target, request.workers)
    host, _, port = request.locust_master.rpartition(":")
    if not port.isdigit():
        raise BadRequestError(f"Locust master {request.locust_master!r} is not [HOST:]PORT", field="locust_master")
    options = (host or "127.0.0.1", port, str(request.workers))
    return GeneratorProcess(target, module="loadtests.locust_ui.master", options=options)


def timeout_s(request: CapacityRequest) -> float:
    """The deadline of each request."""
    return max(request.timeout_s, 4 * loosest_limit_ms(request.slos) / 1e3)


def _describe(request: CapacityRequest, plan: Plan, traffic: Workload, unloaded: Unloaded) -> Run:
    configs = traffic.configs()
    settings: dict[str, Any] = {
        "budget_s": plan.budget_s,
        "gap": plan.gap,
        "tolerance": plan.tolerance,
        "seed": plan.seed,
        "start_per_s": plan.start_per_s,
        "max_per_s": request.max_per_s,
        "timeout_s": timeout_s(request),
        "channels": request.channels,
        "workers": request.workers,
        "real_time": request.real_time,
        **request.access.described(),
        "locust_master": request.locust_master,
        **request.arrivals.described(),
        **traffic.described(),
        "unloaded_ms": unloaded.latency_ms,
        "least_s": plan.least_s,
        "busy_before_share": busy_share(plan.timing.cpu_sample_s),
        "server_name": traffic.targets[0].server_name(),
        "model_config_sha256": digest([c.SerializeToString(deterministic=True) for c in configs]) if configs else None,
        "batching": {c.name: batching_of(c).to_json() for c in configs if not c.HasField("ensemble_scheduling")},
    }
    return Run(
        model=request.model,
        server=request.server,
        slos=plan.slos,
        seed=plan.seed,
        settings=settings,
        manifest=request.manifest,
        hardware=describe_hardware(),
        started_at=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    )


# One schedule, fired once and judged: a rate, a shape, or a recorded trace. No search.
#
# point = load(CapacityRequest("localhost:8001", "rain_forecast", slos), parse_shape("ramp:50-400", 30))

_WINDOW_S = 1.0


def load(request: CapacityRequest, plan: Shape | Trace, on_workload: OnWorkload = lambda described: None) -> Point:
    """Raises what `capacity.find` raises before it measures. A server that dies ends it: the point says so.

    `on_workload` is given beforehand what is sent, as the settings of a search have it.
    """
    with Workload(
        request.server,
        request.shares,
        access=request.access,
        seed=request.seed,
        frozen_s=request.timing.frozen_s,
    ) as traffic:
        slos: tuple[Slo, ...] = scoped(request.slos, traffic.models)
        traffic.check()
        if isinstance(plan, Trace):
            arrivals, offsets_s = Arrivals.recorded(plan), plan.offsets_s
            choices = traffic.choices_of(plan, seed=request.seed)
        else:
            arrivals, offsets_s = plan.arrivals, plan.offsets_s(request.seed)
            choices = traffic.choices(len(offsets_s), seed=request.seed)
        on_workload({**arrivals.described(), **traffic.described()})
        for target, pool in traffic.first_payloads:
            target.infer(pool[0], timeout_s(request))
        mean_per_s = len(offsets_s) / max(float(offsets_s[-1]), 1e-3)
        probe = Probe(0, "load", mean_per_s, len(offsets_s), request.seed)
        with start_generators(request, traffic.pool) as generators:
            prober = Prober(generators, traffic, slos)
            return prober.run_schedule(probe, offsets_s, choices, Limits(prober.max_outstanding(peak(offsets_s))))


def peak(offsets_s: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """The most requests in any second."""
    return float((np.searchsorted(offsets_s, offsets_s + _WINDOW_S) - np.arange(len(offsets_s))).max())
