"""The request for a capacity search, the description of its run, and a load without a search."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.errors import BadRequestError
from loadtests.generator.messages import Limits
from loadtests.generator.pool import GeneratorPool, Generators
from loadtests.generator.process import GeneratorProcess, GeneratorSettings
from loadtests.records.point import Point, Probe
from loadtests.results.store import Run
from loadtests.search.budget import Plan, Timing
from loadtests.search.probe import Prober
from loadtests.search.unloaded import Unloaded, busy_share
from loadtests.slo import Slo, check_limited, check_measures, loosest_limit_ms
from loadtests.target.access import Access
from loadtests.target.batching import batching_of
from loadtests.target.hardware import describe_hardware
from loadtests.target.metrics import MetricsMeter, default_url
from loadtests.target.parameters import Payload
from loadtests.workload.arrivals import POISSON, Arrivals
from loadtests.workload.shape import Shape
from loadtests.workload.trace import Trace
from loadtests.workload.workload import ModelWeight, Workload, digest, scoped

_START_SHARE, _STREAMS_AT_ONCE = 0.5, 2.0
"""The first rate, as a multiple of what one request at a time reaches; servers that stream batch answers in flight."""
UNKNOWN_ANSWER_S = 15.0
"""What an answer in parts may take under load, unless it was measured to take longer."""

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
    payloads: Sequence[Payload] | None = None
    """Serialised `ModelInferRequest`s, used in turn in an order shuffled by the seed; of a model that keeps state
    sequences of them, and rates are then sequences a second."""
    interval_s: float | None = None
    """Between two requests of a sequence."""
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
    side: str = ""
    """What this one is called where two are measured in turns."""
    turns: str = ""
    """What both sides of such a measurement have in common."""
    locust_master: str | None = None
    """"[host:]port" where a Locust master listens for that many workers, which then are the generators."""

    @property
    def shares(self) -> tuple[ModelWeight, ...]:
        """The models and their weights."""
        return tuple(self.mix) or (ModelWeight(self.model, 1.0, self.payloads),)

    def __post_init__(self) -> None:
        check_limited(self.slos)
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise BadRequestError(f"timeout {self.timeout_s:g} s must be above zero", field="timeout_s")
        for limit, name in (("start_per_s", "start"), ("max_per_s", "maximum")):
            rate_per_s = getattr(self, limit)
            if rate_per_s is not None and not (math.isfinite(rate_per_s) and rate_per_s > 0):
                raise BadRequestError(f"{name} rate {rate_per_s:g}/s must be above zero", field=limit)


def plan_of(request: CapacityRequest, slos: tuple[Slo, ...], traffic: Workload, unloaded: Unloaded) -> Plan:
    at_once = _STREAMS_AT_ONCE if unloaded.answer_s else _START_SHARE
    return Plan(
        slos=slos,
        start_per_s=request.start_per_s or at_once * 1e3 / unloaded.latency_ms / traffic.requests_each,
        seed=request.seed,
        budget_s=request.budget_s,
        gap=request.gap,
        tolerance=request.tolerance,
        max_per_s=request.max_per_s or math.inf,
        unloaded_s=unloaded.latency_ms / 1e3,
        answer_s=unloaded.answer_s,
        sequence_s=traffic.mean_s,
        unloaded_took_s=unloaded.took_s,
        timing=request.timing,
    )


def start_generators(request: CapacityRequest, traffic: Workload, answer_s: float) -> Generators:
    """What fires, to be entered: processes of this machine, or the workers of a Locust master. `answer_s` is about what
    an answer in parts takes under load."""
    target = GeneratorSettings(
        request.server,
        traffic.pool,
        timeout_s(request, traffic, answer_s),
        request.channels,
        request.access,
        request.real_time,
        traffic.streamed,
        traffic.sequences,
    )
    if request.locust_master is None:
        return GeneratorPool(target, request.workers)
    host, _, port = request.locust_master.rpartition(":")
    if not port.isdigit():
        raise BadRequestError(f"Locust master {request.locust_master!r} is not [HOST:]PORT", field="locust_master")
    options = (host or "127.0.0.1", port, str(request.workers))
    return GeneratorProcess(target, module="loadtests.locust_ui.master", options=options)


def timeout_s(request: CapacityRequest, traffic: Workload, answer_s: float = 0.0) -> float:
    """The deadline of each request, of its whole answer also where that comes in parts."""
    longest_s = max(answer_s, UNKNOWN_ANSWER_S) if traffic.streamed else 0.0
    return max(request.timeout_s, 4 * loosest_limit_ms(request.slos) / 1e3, 4 * longest_s)


def describe(request: CapacityRequest, plan: Plan, traffic: Workload, unloaded: Unloaded) -> Run:
    configs = traffic.configs()
    settings: dict[str, Any] = {
        "budget_s": plan.budget_s,
        "gap": plan.gap,
        "tolerance": plan.tolerance,
        "seed": plan.seed,
        "start_per_s": plan.start_per_s,
        "max_per_s": request.max_per_s,
        "timeout_s": timeout_s(request, traffic, plan.answer_s),
        "channels": request.channels,
        "workers": request.workers,
        "real_time": request.real_time,
        **request.access.described(),
        "locust_master": request.locust_master,
        **request.arrivals.described(),
        **traffic.described(),
        **({"side": request.side, "turns": request.turns} if request.side else {}),
        "unloaded_ms": unloaded.latency_ms,
        **({"unloaded_ttft_ms": unloaded.ttft_ms, "unloaded_itl_ms": unloaded.alone.itl_ms} if plan.answer_s else {}),
        "filled_s": plan.filled_s,
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
        interval_s=request.interval_s,
        frozen_s=request.timing.frozen_s,
    ) as traffic:
        slos: tuple[Slo, ...] = scoped(request.slos, traffic.models)
        traffic.check()
        check_measures(slos, traffic.measures)
        if isinstance(plan, Trace):
            arrivals, offsets_s = Arrivals.recorded(plan), plan.offsets_s
            choices = traffic.choices_of(plan, seed=request.seed)
        else:
            arrivals, offsets_s = plan.arrivals, plan.offsets_s(request.seed)
            choices = traffic.choices(len(offsets_s), seed=request.seed)
        most_per_s = peak(offsets_s) * traffic.requests_each
        offsets_s, choices = traffic.ends(offsets_s, choices)
        on_workload({**arrivals.described(), **traffic.described()})
        for target, pool in traffic.first_payloads:
            target.infer(pool[0], timeout_s(request, traffic))
        mean_per_s = len(offsets_s) / max(float(offsets_s[-1]), 1e-3)
        probe = Probe(0, "load", mean_per_s, len(offsets_s), request.seed)
        answer_s = UNKNOWN_ANSWER_S if traffic.streamed else 0.0
        with start_generators(request, traffic, answer_s) as generators:
            metrics = MetricsMeter(request.metrics_url or default_url(request.server))
            prober = Prober(generators, traffic, slos, metrics=metrics, answer_s=answer_s)
            return prober.run_schedule(probe, offsets_s, choices, Limits(prober.max_outstanding(most_per_s)))


def peak(offsets_s: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """The most requests in any second."""
    return float((np.searchsorted(offsets_s, offsets_s + _WINDOW_S) - np.arange(len(offsets_s))).max())
