"""From a measured capacity to a deployment: replicas, queue limit and timeout, expected p99, cost per million.

Pure functions of a `CapacityResult`; nothing here is measured. A plan says which rate it rests on (`Basis`) and what it
assumes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from loadtests.errors import BadRequestError, ResultsError
from loadtests.records.point import Point
from loadtests.report.prose import doubts
from loadtests.results.result import CapacityResult
from loadtests.slo import describe_slos, format_rate, tightest_limit_ms
from loadtests.workload.arrivals import POISSON, describe_arrivals

Basis = Literal["proven", "interval", "estimate"]
"""The rate of one replica: what is proven at 99 %, the lower end of the estimate's 95 % interval, or the estimate."""
BASES: tuple[Basis, ...] = get_args(Basis)
BASIS_NAMES = {
    "proven": "proven at 99 % confidence",
    "interval": "the lower end of the estimate's 95 % interval, not proven",
    "estimate": "the estimate, not proven and as often too high as too low",
}
DEFAULT_HEADROOM = 0.2
DEFAULT_SPARE = 1
_MOST_REPLICAS = 1_000_000
_PER_MILLION, _S_PER_HOUR = 1e6, 3600


@dataclass(frozen=True)
class DeploymentPlan:
    """What to deploy for an arrival rate. Rates in requests/s; a replica is one server as it was measured."""

    model: str
    slo: str
    rate_per_s: float
    replica_per_s: float
    """What one replica sustains, by `basis`."""
    basis: Basis
    proven_per_s: float | None
    """What is proven of one replica."""
    headroom: float
    """Share of `replica_per_s` that is left free even when the spare replicas are gone."""
    spare: int
    replicas: int
    """With the spare ones."""
    load_per_s: float
    """On each replica when all are there."""
    load_without_spare_per_s: float
    expected_p99_ms: float | None
    """At `load_per_s`, from the measured points; None when none was measured whole."""
    expected_p99_without_spare_ms: float | None
    p99_of: Literal["latency", "ttft"]
    """What the expected p99s are of: whole answers or, of answers in parts, the time to first token."""
    p99_is_upper_bound: bool
    """The load lies below every measured rate."""
    max_queue_size: int | None
    """Requests that may wait at one replica (`dynamic_batching.default_queue_policy.max_queue_size`). None for answers
    in parts: those share a server instead of waiting for one another, and it has a queue of its own."""
    queue_timeout_us: int | None
    """`default_queue_policy.default_timeout_microseconds`: who waited longer misses the SLO anyway; None as above."""
    cost_per_hour: float | None
    cost_per_million: float | None
    """Of all replicas, spare ones included, per million requests at `rate_per_s`."""
    assumptions: tuple[str, ...]
    doubts: tuple[str, ...]
    """Why the measurement may not show what a replica holds; see `report.prose.doubts`."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"assumptions": list(self.assumptions), "doubts": list(self.doubts)}


def make_plan(
    result: CapacityResult,
    rate_per_s: float,
    *,
    headroom: float = DEFAULT_HEADROOM,
    spare: int = DEFAULT_SPARE,
    cost_per_hour: float | None = None,
    basis: Basis | None = None,
) -> DeploymentPlan:
    """`cost_per_hour` is that of one replica, in any currency. Without a `basis` the plan rests on the higher of the
    proven rate and the lower end of the interval.

    Raises BadRequestError for impossible numbers and ResultsError when the result has no such rate.
    """
    _check(rate_per_s, headroom, spare, cost_per_hour)
    basis, replica_per_s = _rate_of(result, basis)
    needed = math.ceil(rate_per_s / (replica_per_s * (1 - headroom)) - 1e-9)
    if needed > _MOST_REPLICAS:
        raise BadRequestError(
            f"{format_rate(rate_per_s)} would take {needed:,} replicas of {format_rate(replica_per_s)} each",
            field="rate_per_s",
        )
    replicas = needed + spare
    load_per_s, without_spare_per_s = rate_per_s / replicas, rate_per_s / needed
    streams = any(point.streaming for point in result.points)
    queue_size, timeout_us = (None, None) if streams else queue_policy(result, replica_per_s)
    curve = latency_curve(result.points)
    return DeploymentPlan(
        model=result.model,
        slo=describe_slos(result.slos),
        rate_per_s=rate_per_s,
        replica_per_s=replica_per_s,
        basis=basis,
        proven_per_s=result.capacity_per_s,
        headroom=headroom,
        spare=spare,
        replicas=replicas,
        load_per_s=load_per_s,
        load_without_spare_per_s=without_spare_per_s,
        expected_p99_ms=expected_p99_ms(curve, load_per_s),
        expected_p99_without_spare_ms=expected_p99_ms(curve, without_spare_per_s),
        p99_of="ttft" if streams else "latency",
        p99_is_upper_bound=bool(curve) and load_per_s < curve[0][0],
        max_queue_size=queue_size,
        queue_timeout_us=timeout_us,
        cost_per_hour=cost_per_hour,
        cost_per_million=(
            None if cost_per_hour is None else cost_per_hour * replicas / (rate_per_s * _S_PER_HOUR) * _PER_MILLION
        ),
        assumptions=_assumptions(result, basis, replica_per_s, rate_per_s, headroom, spare),
        doubts=tuple(doubts(result)),
    )


def _rate_of(result: CapacityResult, basis: Basis | None) -> tuple[Basis, float]:
    """What one replica sustains, and on what that rests."""
    interval = result.capacity_estimate_interval_per_s
    rates: dict[Basis, float | None] = {
        "proven": result.capacity_per_s,
        "interval": interval[0] if interval else None,
        "estimate": result.capacity_estimate_per_s,
    }
    wanted: tuple[Basis, ...] = ("proven", "interval") if basis is None else (basis,)
    found = [(rate_per_s, name) for name in wanted if (rate_per_s := rates[name])]
    if not found:
        advice = "" if "longer budget" in result.reason else "; measure again with a longer --budget"
        what = "rate is proven" if basis == "proven" else "capacity is known"
        raise ResultsError(f"there is no {what} for {result.model}: {result.reason}{advice}")
    rate_per_s, name = max(found, key=lambda pair: pair[0])
    return name, rate_per_s


def queue_policy(result: CapacityResult, replica_per_s: float) -> tuple[int, int]:
    """Longest queue and longest wait (us) at one replica with which an accepted request can still keep the SLO.

    At a rate of `replica_per_s`, `n` waiting requests take n / replica_per_s seconds; what the tightest limit leaves
    beyond the time of a request that meets an empty server may be spent waiting. At least one request may wait.
    """
    spare_ms = max(tightest_limit_ms(result.slos) - _alone_ms(result), 0.0)
    return max(math.floor(replica_per_s * spare_ms / 1e3), 1), max(round(spare_ms * 1e3), 1)


def latency_curve(points: Sequence[Point]) -> list[tuple[float, float]]:
    """(rate, p99 ms) of the probes that ran to their end, the p99 never falling with the rate; highest of each rate.
    It is that of the latency or, of answers in parts, of the time to first token."""
    whole = sorted(
        (point.rate_per_s, p99_ms)
        for point in points
        if (p99_ms := point.streaming.ttft_p99_ms if point.streaming else point.p99_ms) is not None
        and not point.stopped
        and point.verdict != "invalid"
    )
    highest: dict[float, float] = {}
    worst = 0.0
    for rate_per_s, p99_ms in whole:
        worst = max(worst, p99_ms)
        highest[rate_per_s] = worst
    return list(highest.items())


def expected_p99_ms(curve: Sequence[tuple[float, float]], rate_per_s: float) -> float | None:
    """Straight lines between the measured points; below the lowest rate its p99; None above the highest."""
    if not curve or rate_per_s > curve[-1][0] * (1 + 1e-9):
        return None
    rates, values = zip(*curve, strict=True)
    return float(np.interp(rate_per_s, rates, values))


def _alone_ms(result: CapacityResult) -> float:
    """What a request takes when it does not wait, at the proven rate."""
    unloaded_ms = float(result.settings.get("unloaded_ms") or 0.0)
    best = result.certificate.points[0] if result.certificate else None
    return max(unloaded_ms, (best.compute_ms or 0.0) if best else 0.0)


def _check(rate_per_s: float, headroom: float, spare: int, cost_per_hour: float | None) -> None:
    if not (math.isfinite(rate_per_s) and rate_per_s > 0):
        raise BadRequestError(f"rate {rate_per_s:g}/s must be above zero", field="rate_per_s")
    if not 0 <= headroom < 1:
        raise BadRequestError(f"headroom {headroom:.0%} must be below 100%, as in 20%", field="headroom")
    if spare < 0:
        raise BadRequestError(f"{spare} spare replicas are impossible: use 0 or more", field="spare")
    if cost_per_hour is not None and not (math.isfinite(cost_per_hour) and cost_per_hour >= 0):
        raise BadRequestError(f"cost per hour {cost_per_hour:g} must not be negative", field="cost_per_hour")


def _assumptions(
    result: CapacityResult, basis: Basis, replica_per_s: float, rate_per_s: float, headroom: float, spare: int
) -> tuple[str, ...]:
    slos = describe_slos(result.slos)
    notes = [
        f"One replica sustains {format_rate(replica_per_s)} under {slos}: {BASIS_NAMES[basis]}.",
        f"Each replica gets {describe_arrivals(result.settings.get('arrivals', POISSON.name))}, as measured; the mean "
        f"of all is {format_rate(rate_per_s)} at peak. Longer bursts than those measured need a higher --rate.",
        "The load balancer spreads requests evenly. Replicas do not share hardware, and their machines are like the "
        "measured one" + (f" ({result.hardware['cpu']})." if result.hardware.get("cpu") else "."),
        f"{spare} replica{'s' if spare != 1 else ''} may be down at any time. The others then still have "
        f"{headroom * 100:.0f} % of their rate free.",
        "The expected p99 is interpolated between measured probes. It is observed, not proven.",
        "The requests"
        + (" and each model's share" if result.points[0].models else "")
        + " are like the measured ones"
        + (f", which were {result.made_up}." if result.made_up else "."),
    ]
    if result.capacity_estimate_per_s and basis != "estimate":
        fewer = math.ceil(rate_per_s / (result.capacity_estimate_per_s * (1 - headroom)) - 1e-9) + spare
        notes.append(
            f"If the estimate of {format_rate(result.capacity_estimate_per_s)} is right, {fewer:,} replicas are enough."
        )
    if any(point.streaming for point in result.points):
        notes.append(
            "No queue limit is computed: streamed answers share the server instead of waiting for one another, so the "
            "capacity implies none."
        )
    if result.partial:
        notes.append(f"The measurement was partial ({result.ended_because}).")
    return tuple(notes)
