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

from loadtests import payloads as made_payloads
from loadtests.attempt import hopeless_count
from loadtests.errors import BadRequestError, SloUnreachableError, TargetError, TargetLostError
from loadtests.fleet import Fleet, Generators
from loadtests.hardware import CpuMeter, describe_hardware
from loadtests.job import Limits, TransportName
from loadtests.judging import make_point
from loadtests.point import Point, Probe
from loadtests.result import CapacityResult, summarise
from loadtests.schedule import payload_choices, poisson
from loadtests.search import Plan, search
from loadtests.server_stats import difference
from loadtests.slo import Slo, format_ms, loosest_limit_ms, tightest_limit_ms
from loadtests.store import Run, Store
from loadtests.target import Target
from loadtests.worker import Worker, WorkerTarget

_WARM_REQUESTS = 5
_UNLOADED_REQUESTS = 15
_START_SHARE = 0.5
_BACKLOG_S = 1.5
_FEWEST_OUTSTANDING, _MOST_OUTSTANDING = 64, 20_000
_MOST_OUTSTANDING_BYTES = 512 << 20
_SETTLE_S = 15.0
_COOLDOWN_S = 1.0
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
    folder: Path | None = None
    """Where raw results go, in a folder named after the model; none are kept without it."""
    manifest: Mapping[str, Any] | None = None
    channels: int = 2
    """Connections of each generator."""
    workers: int = 1
    """Generator processes that share each probe's schedule."""
    locust_master: str | None = None
    """"[host:]port" where a Locust master listens for that many workers, which then are the generators."""
    transport: TransportName = "http2"

    def __post_init__(self) -> None:
        tightest_limit_ms(self.slos)
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise BadRequestError(f"timeout {self.timeout_s:g} s must be above zero")
        if self.payloads is not None and not self.payloads:
            raise BadRequestError("the payload pool is empty; give at least one encoded request")
        for name, rate_per_s in (("start", self.start_per_s), ("maximum", self.max_per_s)):
            if rate_per_s is not None and not (math.isfinite(rate_per_s) and rate_per_s > 0):
                raise BadRequestError(f"{name} rate {rate_per_s:g}/s must be above zero")


def find(request: CapacityRequest, on_point: OnPoint | None = None) -> CapacityResult:
    """Searches within the budget; `on_point` sees every point as it is measured.

    Ctrl-C ends the search, and a server that dies ends it too: the result is then marked partial and keeps its points.
    Raises TargetError (server, model or warm request) and SloUnreachableError before measuring, GeneratorError when
    our own process fails.
    """
    with Target(request.server, request.model) as target:
        target.check()
        pool = list(request.payloads or _make_payloads(target, request.seed))
        unloaded_ms = _unloaded_ms(target, pool, request)
        busy_before_share = _busy_share()
        plan = Plan(
            slos=tuple(request.slos),
            start_per_s=request.start_per_s or _START_SHARE * 1e3 / unloaded_ms,
            seed=request.seed,
            budget_s=request.budget_s,
            tolerance=request.tolerance,
            max_per_s=request.max_per_s or math.inf,
        )
        run = _describe(request, plan, pool, unloaded_ms, busy_before_share, target.server_name())
        store = Store(request.folder, run) if request.folder is not None else None
        points: list[Point] = []
        partial = _measure(request, target, pool, plan, store, unloaded_ms, points, on_point)
        result = summarise(
            points,
            plan.slos,
            model=request.model,
            server=request.server,
            base_seed=request.seed,
            partial=partial,
            manifest=request.manifest,
            hardware=run.hardware,
            settings=run.settings,
            folder=str(store.folder) if store else None,
        )
        if store is not None:
            store.finish(result)
        return result


def _measure(
    request: CapacityRequest,
    target: Target,
    pool: Sequence[bytes],
    plan: Plan,
    store: Store | None,
    unloaded_ms: float,
    points: list[Point],
    on_point: OnPoint | None,
) -> str:
    """Fills `points`; returns why the search ended early, or nothing."""
    fires_at = WorkerTarget(request.server, pool, _timeout_s(request), request.channels, request.transport)
    searching = search(plan)
    try:
        with _generators(request, fires_at) as generators:
            probe = next(searching)
            while True:
                point = _fire(generators, target, pool, plan, probe, store)
                points.append(point)
                if store is not None:
                    store.add(point)
                if on_point is not None:
                    on_point(point)
                if point.stopped == "asked":
                    return "interrupted"
                if point.stopped == "connection lost":
                    return f"the server went away at {probe.rate_per_s:.4g}/s"
                if point.stopped:
                    _settle(target, pool[0], unloaded_ms, request)
                probe = searching.send(point)
    except StopIteration:
        return ""
    except KeyboardInterrupt:
        return "interrupted"
    except (TargetLostError, TargetError) as error:
        if not points:
            raise
        return str(error)


def _generators(request: CapacityRequest, target: WorkerTarget) -> Generators:
    if request.locust_master is None:
        return Fleet(target, request.workers)
    host, _, port = request.locust_master.rpartition(":")
    if not port.isdigit():
        raise BadRequestError(f"Locust master {request.locust_master!r} is not [HOST:]PORT")
    options = (host or "127.0.0.1", port, str(request.workers))
    return Worker(target, module="loadtests.locust_master", options=options)


def _fire(
    generators: Generators, target: Target, pool: Sequence[bytes], plan: Plan, probe: Probe, store: Store | None
) -> Point:
    began_s = time.monotonic()
    limits = _limits(probe, plan.slos, pool)
    count = probe.requests + limits.cooldown
    intended_s = poisson(probe.rate_per_s, seed=probe.seed, count=count)
    choices = payload_choices(count, len(pool), seed=probe.seed)
    before: list[Any] = []
    meter = CpuMeter()

    def ready() -> None:
        nonlocal before
        before = target.statistics()
        meter.read()

    record, outcome = generators.fire(intended_s, choices, limits, seed=probe.seed, on_ready=ready)
    host_cpu_share = meter.read()
    after: list[Any] = [] if outcome.stopped == "connection lost" else target.statistics()
    raw = store.save_record(probe.number, record) if store is not None else ""
    return make_point(
        probe,
        record,
        outcome,
        plan.slos,
        server=difference(before, after),
        host_cpu_share=host_cpu_share,
        took_s=time.monotonic() - began_s,
        raw=raw,
    )


def _limits(probe: Probe, slos: Sequence[Slo], pool: Sequence[bytes]) -> Limits:
    """Enough room for a stall of a second and a half beyond what the SLO tolerates, within the memory there is."""
    span_s = _BACKLOG_S + 4 * loosest_limit_ms(slos) / 1e3
    outstanding = max(_FEWEST_OUTSTANDING, math.ceil(probe.rate_per_s * span_s))
    by_memory = max(_FEWEST_OUTSTANDING, _MOST_OUTSTANDING_BYTES // max(max(map(len, pool)), 1))
    hopeless = tuple((slo.limit_ms, hopeless_count(probe, slo)) for slo in slos if slo.limit_ms is not None)
    cooldown = math.ceil(probe.rate_per_s * (_COOLDOWN_S + loosest_limit_ms(slos) / 1e3))
    return Limits(min(outstanding, by_memory, _MOST_OUTSTANDING), hopeless, cooldown)


def _make_payloads(target: Target, seed: int) -> list[bytes]:
    return made_payloads.from_metadata(target.metadata(), target.config(), seed=seed)


def _unloaded_ms(target: Target, pool: Sequence[bytes], request: CapacityRequest) -> float:
    """The median latency of one request at a time, after a few to warm up; refuses an SLO that it already misses."""
    for index in range(_WARM_REQUESTS):
        target.infer(pool[index % len(pool)], _timeout_s(request))
    measured = [target.infer(pool[index % len(pool)], _timeout_s(request)) for index in range(_UNLOADED_REQUESTS)]
    median_ms = statistics.median(measured)
    for slo in request.slos:
        # The median is at most any higher percentile, so this is never a false alarm.
        if slo.limit_ms is not None and slo.percentile >= 0.5 and median_ms > slo.limit_ms:
            raise SloUnreachableError(
                f"{request.model} takes {median_ms:.4g} ms without any load (median of {_UNLOADED_REQUESTS} requests, "
                f"one at a time): {slo} is missed by {median_ms - slo.limit_ms:.3g} ms at every rate; allow more than "
                f"{format_ms(math.ceil(median_ms))} or make the model faster"
            )
    return median_ms


def _settle(target: Target, payload: bytes, unloaded_ms: float, request: CapacityRequest) -> None:
    """Waits until what an early stop left at the server is worked off, so that it cannot spoil the next probe."""
    until_s = time.monotonic() + _SETTLE_S
    while time.monotonic() < until_s:
        try:
            if target.infer(payload, _timeout_s(request)) < 2 * unloaded_ms + 2:
                return
        except TargetError:
            time.sleep(0.2)  # a full queue refuses; a dead server shows at the next probe


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
    pool: Sequence[bytes],
    unloaded_ms: float,
    busy_before_share: float | None,
    server_name: str,
) -> Run:
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
        "transport": request.transport,
        "arrivals": "poisson",
        "payloads": len(pool),
        "payload_bytes_mean": sum(map(len, pool)) / len(pool),
        "payload_source": "given" if request.payloads is not None else "made from the server's metadata",
        "unloaded_ms": unloaded_ms,
        "busy_before_share": busy_before_share,
        "server_name": server_name,
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
