"""How many requests a second a served model holds under its SLOs: the search, run against a real server.

result = find(CapacityRequest(server="localhost:8001", model="rain_forecast", slos=(Slo.parse("p99=20ms"),)))
"""

from __future__ import annotations

import datetime
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.errors import BadRequestError, SloUnreachableError, TargetError, TargetLostError
from loadtests.fleet import Fleet, Generators
from loadtests.hardware import CpuMeter, describe_hardware
from loadtests.metrics import MetricsMeter, default_url
from loadtests.point import Point
from loadtests.probing import Prober
from loadtests.result import CUT_OFF, INTERRUPTED, CapacityResult
from loadtests.resume import earlier_run, usable_points
from loadtests.search import Plan, search
from loadtests.settling import settled
from loadtests.slo import Slo, format_ms, format_rate, loosest_limit_ms, tightest_limit_ms
from loadtests.store import Run, Store, Stored
from loadtests.traffic import ModelShare, Traffic, scoped
from loadtests.worker import Worker, WorkerTarget

_WARM_REQUESTS = 5
_UNLOADED_REQUESTS = 15
_START_SHARE = 0.5
_LISTEN_S = 0.4

OnPoint = Callable[[Point], None]


@dataclass(frozen=True)
class CapacityRequest:
    """What to find out. Without `payloads`, inputs are made from the server's metadata."""

    server: str
    """"host:port" of the gRPC endpoint."""
    model: str
    slos: Sequence[Slo]
    budget_s: float = 180.0
    tolerance: float = 0.03
    seed: int = 0
    payloads: Sequence[bytes] | None = None
    """Serialised `ModelInferRequest`s, used in turn in an order shuffled by the seed."""
    start_per_s: float | None = None
    """First rate; by default half of what one request at a time reaches."""
    max_per_s: float | None = None
    timeout_s: float = 10.0
    """Deadline of each request, raised to four times the largest latency limit."""
    mix: Sequence[ModelShare] = ()
    """Several models asked at once, each with its weight and payloads; `model` is then only a name."""
    folder: Path | None = None
    """Where raw results go, in a folder named after the model; none are kept without it."""
    resume: bool = False
    """Go on with the search in `folder`, whose seed and start are then used; its time counts."""
    manifest: Mapping[str, Any] | None = None
    metrics_url: str | None = None
    """The server's Prometheus endpoint; by default port 8002 of its host, if that answers."""
    channels: int = 2
    """Connections of each generator."""
    workers: int = 1
    """Generator processes that share each probe's schedule."""
    locust_master: str | None = None
    """"[host:]port" where a Locust master listens for that many workers, which then are the generators."""

    @property
    def shares(self) -> tuple[ModelShare, ...]:
        """What is asked."""
        return tuple(self.mix) or (ModelShare(self.model, 1.0, self.payloads),)

    def __post_init__(self) -> None:
        tightest_limit_ms(self.slos)
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise BadRequestError(f"timeout {self.timeout_s:g} s must be above zero")
        for name, rate_per_s in (("start", self.start_per_s), ("maximum", self.max_per_s)):
            if rate_per_s is not None and not (math.isfinite(rate_per_s) and rate_per_s > 0):
                raise BadRequestError(f"{name} rate {rate_per_s:g}/s must be above zero")


def find(request: CapacityRequest, on_point: OnPoint | None = None) -> CapacityResult:
    """Searches within the budget; `on_point` sees every point as it is measured.

    Ctrl-C ends the search, and a server that dies ends it too: the result is then marked partial and keeps its points.
    Raises TargetError (server, model or warm request) and SloUnreachableError before measuring, GeneratorError when
    our own process fails.
    """
    with Traffic(request.server, request.shares, seed=request.seed) as traffic:
        slos = scoped(request.slos, traffic.models)
        earlier = _earlier(request, slos)
        points = usable_points(earlier) if earlier else []
        traffic.check()
        unloaded_ms = _unloaded_ms(traffic, slos, request)
        busy_before_share = _busy_share()
        plan = Plan(
            slos=slos,
            start_per_s=request.start_per_s or _START_SHARE * 1e3 / unloaded_ms,
            seed=earlier.run.seed if earlier else request.seed,
            budget_s=request.budget_s,
            tolerance=request.tolerance,
            max_per_s=request.max_per_s or math.inf,
        )
        run = _describe(request, plan, traffic, unloaded_ms, busy_before_share)
        store = Store(request.folder, run, kept=points) if request.folder is not None else None
        partial = _measure(request, traffic, plan, store, unloaded_ms, points, on_point)
        result = run.result(points, partial=partial, folder=store.folder if store else None)
        if store is not None:
            store.finish(result)
        return result


def _measure(
    request: CapacityRequest,
    traffic: Traffic,
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
            prober = Prober(generators, traffic, plan.slos, store, metrics)
            probe = next(searching)
            while True:
                point = prober.at_rate(probe)
                if point.stopped and point.stopped not in CUT_OFF:
                    point = settled(point, traffic, unloaded_ms, _timeout_s(request))
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
        raise BadRequestError("there is no folder to resume from")
    return earlier_run(request.folder, request.model, slos, request.manifest, request.budget_s)


def start_generators(request: CapacityRequest, pool: Sequence[bytes]) -> Generators:
    """What fires, to be entered: processes of this machine, or the workers of a Locust master."""
    target = WorkerTarget(request.server, pool, _timeout_s(request), request.channels)
    if request.locust_master is None:
        return Fleet(target, request.workers)
    host, _, port = request.locust_master.rpartition(":")
    if not port.isdigit():
        raise BadRequestError(f"Locust master {request.locust_master!r} is not [HOST:]PORT")
    options = (host or "127.0.0.1", port, str(request.workers))
    return Worker(target, module="loadtests.locust_master", options=options)


def _unloaded_ms(traffic: Traffic, slos: Sequence[Slo], request: CapacityRequest) -> float:
    """The median latency of one request at a time, averaged over the mix, after a few requests to warm up.

    SloUnreachableError: a model already misses an SLO without any load.
    """
    medians_ms = []
    for target, pool in traffic.first_payloads:
        for index in range(_WARM_REQUESTS):
            target.infer(pool[index % len(pool)], _timeout_s(request))
        measured = [target.infer(pool[index % len(pool)], _timeout_s(request)) for index in range(_UNLOADED_REQUESTS)]
        median_ms = statistics.median(measured)
        medians_ms.append(median_ms)
        for slo in slos:
            if slo.model != (target.model if len(traffic.models) > 1 else ""):
                continue
            # The median is at most any higher percentile, so this is never a false alarm.
            if slo.limit_ms is not None and slo.percentile >= 0.5 and median_ms > slo.limit_ms:
                raise SloUnreachableError(
                    f"{target.model} takes {median_ms:.4g} ms without any load (median of {_UNLOADED_REQUESTS} "
                    f"requests, one at a time): {slo} is missed by {median_ms - slo.limit_ms:.3g} ms at every rate; "
                    f"allow more than {format_ms(math.ceil(median_ms))} or make the model faster"
                )
    return float(traffic.weights @ medians_ms)


def _timeout_s(request: CapacityRequest) -> float:
    return max(request.timeout_s, 4 * loosest_limit_ms(request.slos) / 1e3)


def _busy_share() -> float | None:
    """How busy this machine is with other things."""
    meter = CpuMeter()
    time.sleep(_LISTEN_S)
    return meter.read()


def _describe(
    request: CapacityRequest,
    plan: Plan,
    traffic: Traffic,
    unloaded_ms: float,
    busy_before_share: float | None,
) -> Run:
    pool = traffic.pool
    settings = {
        "budget_s": plan.budget_s,
        "tolerance": plan.tolerance,
        "seed": plan.seed,
        "start_per_s": plan.start_per_s,
        "max_per_s": request.max_per_s,
        "timeout_s": _timeout_s(request),
        "channels": request.channels,
        "workers": request.workers,
        "locust_master": request.locust_master,
        "arrivals": "poisson",
        "payloads": len(pool),
        "payload_bytes_mean": sum(map(len, pool)) / len(pool),
        "payload_source": "given"
        if all(share.payloads for share in request.shares)
        else "; ".join(["made from the server's metadata", *traffic.assumed]),
        "mix": {model: float(weight) for model, weight in zip(traffic.models, traffic.weights, strict=True)},
        "unloaded_ms": unloaded_ms,
        "busy_before_share": busy_before_share,
        "server_name": traffic.targets[0].server_name(),
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
