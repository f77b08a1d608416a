"""A capacity result in sentences, for report and terminal: both numbers, what more time can prove, and warnings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from loadtests.records.point import Point, StepPoint, Verdict
from loadtests.results.result import CapacityResult, lowest_judged
from loadtests.search.budget import most_clean_requests
from loadtests.search.certificate import Certificate
from loadtests.search.confirmation import most_promising
from loadtests.search.monotonicity import monotonicity_violation
from loadtests.slo import about, about_ms, as_requested, describe_slos, format_rate
from loadtests.workload.arrivals import POISSON, describe_arrivals

_CALM_SHARE = 0.1
_MINUTES = (1, 2, 5, 10, 30)
_WORTH = 1.02
"""How much higher than the proven rate another must be to be spoken of."""
_LIKELY = 0.5
_CACHED_SHARE = 0.01
_INVALID_SHARE = 0.3
_BUSY = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
_NEAR = 0.25
"""Of a capacity, as a logarithm: a longer probe there tells more than a nearer one."""


def headline(result: CapacityResult) -> str:
    """The estimated capacity with its interval and the proven rate; without an estimate the proven rate alone."""
    slos = conditions(result)
    if result.verdict == "fail":
        return f"{result.model} misses {slos} at every tested rate"
    if estimate := capacity(result):
        rate, interval = estimate
        decides = f"; {result.decided_by} is missed first" if len(result.slos) > 1 else ""
        proof = f"proven at 99 %: {proven(result)}"
        return f"{result.model}: about {rate} {result.unit}/s under {slos} ({interval}{decides}); {proof}"
    if result.capacity_per_s is None:
        return f"no rate is proven for {result.model} under {slos}"
    return f"{result.model}: at least {about(result.capacity_per_s)} {result.unit}/s under {slos}, proven at 99 %"


def in_short(result: CapacityResult) -> str:
    """The same two numbers in short: `about 108/s (95 % interval 80 to 157); proven 33/s`."""
    if result.verdict == "fail":
        return "no tested rate meets the SLO"
    if estimate := capacity(result):
        rate, interval = estimate
        return f"about {rate}/s ({interval}); proven {proven(result)}"
    return f"no estimate; proven {proven(result)}"


def capacity(result: CapacityResult) -> tuple[str, str] | None:
    """The estimate and its interval, such as `108` and `95 % interval 80 to 157`; None without an estimate."""
    best, interval = result.capacity_estimate_per_s, result.capacity_estimate_interval_per_s
    if best is None or interval is None:
        return None
    rate, low, high = map(about, (best, *interval))
    return rate, f"95 % interval {low} to {high}"


def proven(result: CapacityResult) -> str:
    """The proven rate, or `none`."""
    return "none" if result.capacity_per_s is None else format_rate(result.capacity_per_s)


def conditions(result: CapacityResult) -> str:
    """The conditions of the rates: `p99=50ms with Poisson arrivals`."""
    arrivals = result.settings.get("arrivals", POISSON.name)
    return f"{describe_slos(result.slos)} with {describe_arrivals(arrivals)}"


def explain(result: CapacityResult) -> str:
    """What both numbers mean, in the order in which they are shown."""
    return " ".join(filter(None, (about_estimate(result), about_proof(result), more_time(result))))


def about_proof(result: CapacityResult) -> str:
    """What the proven rate is based on, or why there is none."""
    slos, best = describe_slos(result.slos), result.certificate
    if best is not None:
        rates = format_rate(best.rate_per_s) + (" and above" if best.runs != best.points else "")
        return (
            f"The proven rate passed confirmation runs with fresh seeds: {best.requests:,} {result.unit} at {rates} "
            f"over {best.seconds:,.0f} s. A server that misses {slos} passes such runs at most one time in a hundred."
        )
    if result.verdict == "fail":
        return f"No rate is proven: {result.reason}{missed_by(result)}."
    least = most_clean_requests(result.slos)
    return (
        f"No rate is proven: {result.reason}. A proof of {slos} needs at least {least:,} independent {result.unit}, "
        "none of them over the limit."
    )


def missed_by(result: CapacityResult) -> str:
    """How far the lowest tested rate is from each limit: `; its p99 was 12 ms, 7 ms over the limit`."""
    if result.verdict != "fail":
        return ""
    point = lowest_judged(result.points)
    return "".join(
        f"; its {slo.metric} was {about_ms(value_ms)}, {about_ms(value_ms - slo.limit_ms)} over the limit"
        for slo in as_requested(result.slos)
        if slo.limit_ms is not None
        if (value_ms := point.seen_ms(slo)) is not None and value_ms > slo.limit_ms
    )


def about_estimate(result: CapacityResult) -> str:
    """What the estimate is based on, and why it differs from the proven rate; may be empty."""
    best = result.capacity_estimate_per_s
    if contradicted := monotonicity_violation(result.points):  # without a proven rate it has been said
        return f"There is no estimate: {contradicted}." if result.capacity_per_s is not None else ""
    if best is None:
        known = result.capacity_per_s is not None
        return "No tested rate was too high, so the capacity may be higher." if known else ""
    text = "The capacity is estimated from all probes together."
    if result.capacity_per_s is not None and result.capacity_per_s < best:
        text += (
            f" The proven rate is {(1 - result.capacity_per_s / best) * 100:.0f} % lower, because a limited number of "
            f"{result.unit} cannot prove a rate close to the capacity."
        )
    return text


def more_time(result: CapacityResult) -> str:
    """What a longer search can prove at most; empty without an estimate."""
    if result.capacity_estimate_per_s is None:
        return ""
    if (room := worth_more(result)) is None:
        return f"Another {_MINUTES[-1]} minutes would not prove a noticeably higher rate."
    minutes, rate_per_s = room
    most = f"at most about {about(rate_per_s)}/s (--resume with a longer --budget)."
    return f"Another {'minute' if minutes == 1 else f'{minutes} minutes'} can prove {most}"


def worth_more(result: CapacityResult) -> tuple[int, float] | None:
    """How many more minutes can prove a higher rate, and which at most, by the curve of the estimate; None where half
    an hour is not enough. In simulated searches one in twenty goes beyond it, and on a
    machine that stalls most end well below it: a short search does not know how long runs of slow requests may be."""
    best_per_s = result.capacity_per_s or 0.0
    if result.capacity_estimate_per_s is None:
        return None
    for minutes in _MINUTES:
        promising = most_promising(result.points, result.slos, minutes * 60.0, best_per_s)
        if promising is not None and promising[1] >= _LIKELY and promising[0] > best_per_s * _WORTH:
            return minutes, promising[0]
    return None


def warn(result: CapacityResult) -> str:
    """What a reader must know before trusting the figures; empty where there is nothing."""
    return " ".join(doubts(result))


def doubts(result: CapacityResult) -> list[str]:
    """The same as a list; reports, comparisons and plans of this result repeat them."""
    reasons = busy_machine(result.settings.get("busy_before_share"))
    invalid = [point for point in result.points if point.verdict == "invalid"]
    if result.verdict != "invalid" and len(invalid) > _INVALID_SHARE * len(result.points):
        (why, _), *_ = Counter(point.reason.partition(";")[2].strip() for point in invalid).most_common()
        some_unaffected = any(point.unaffected for point in invalid) and result.capacity_estimate_per_s is not None
        reasons.append(
            f"{len(invalid)} of {len(result.points)} probes are invalid because the generator could not keep up: "
            f"{why or 'see the table of all probes'}."
            + " The estimate uses only requests sent in time."
            * some_unaffected
        )
    reasons += from_cache(result.points) + from_failures(result.points)
    if resumed := result.settings.get("resumed"):
        reasons.append(f"The search was resumed under different conditions ({', '.join(resumed)}).")
    return reasons


def from_cache(points: Sequence[Point]) -> list[str]:
    """The warning about answers from Triton's response cache; empty where there were hardly any."""
    steps = [step for point in points for step in point.steps]
    cached, requests = sum(step.cached for step in steps), sum(step.requests for step in steps)
    if cached <= _CACHED_SHARE * requests:
        return []
    return [
        f"Triton's response cache answered {cached:,} of {requests:,} requests, because inputs were repeated. The "
        "result is valid only for traffic with as many repetitions: use more different inputs, or disable the cache."
    ]


def from_failures(points: Sequence[Point]) -> list[str]:
    """The warning about the first probe in which requests failed for another reason than a busy server."""
    return [
        f"At {format_rate(point.rate_per_s)}, {count:,} of {point.requests:,} {point.unit} failed: "
        f"{message.removesuffix('.')}."
        for point in points
        for message, count in point.error_messages.items()
        if not message.startswith(_BUSY)
    ][:1]


def busy_machine(share: float | None) -> list[str]:
    """The warning about a machine whose CPUs were this busy before the first request; empty for a quiet one."""
    if share is None or share <= _CALM_SHARE:
        return []
    return [
        f"The CPUs of this machine were {share * 100:.0f} % busy before the test began. If the server or the generator "
        "runs here, a quiet machine would reach a higher rate."
    ]


# Where a request's time goes, in a sentence: generator, network and protocol, queue, or the work of one model.

_BUSY_GENERATOR = 0.7
_CALM_QUEUE = 0.15


def deciding_point(result: CapacityResult) -> Point | None:
    """A probe of the confirmation that passed; without one, the longest that met the SLO."""
    if result.certificate is not None:
        return result.certificate.points[0]
    met = [point for point in result.points if point.passes and point.verdict != "invalid"]
    return max(met, key=lambda point: (point.requests, point.rate_per_s), default=None)


def edge_point(result: CapacityResult) -> Point | None:
    """The longest probe near the estimated capacity that has the server's figures; without an estimate the deciding
    one. What limits the server shows there."""
    edge_per_s = result.capacity_estimate_per_s
    loaded = [p for p in result.points if p.steps and p.usable and p.stopped in ("", "hopeless", "backlog")]
    if edge_per_s is None or not loaded:
        return deciding_point(result)

    def distance(point: Point) -> float:
        return max(abs(math.log(point.rate_per_s / edge_per_s)), _NEAR)

    return min(loaded, key=lambda point: (distance(point), -point.requests))


def shown_verdict(point: Point, confirmed: Sequence[Certificate]) -> Verdict:
    """The verdict of the point's confirmation: two undecided runs may pass together."""
    return "pass" if any(point in found.points for found in confirmed) else point.verdict


def sized_point(result: CapacityResult) -> Point | None:
    """The probe whose latencies are shown by size: near the capacity, or the lowest rate where none was met."""
    lowest = lowest_judged(result.points) if result.verdict == "fail" else None
    candidates = (edge_point(result), deciding_point(result), lowest)
    return next((point for point in candidates if point and point.sizes), None)


@dataclass(frozen=True)
class Bottleneck:
    """The largest part of the mean latency."""

    kind: Literal["generator", "queue", "compute", "outside"]
    """The generator's own core, waiting in front of `step`, the work of `step`, or what is outside the models."""
    step: StepPoint | None
    part_ms: float
    share: float
    """Of the mean latency; of a core where it is the generator's."""


def find_bottleneck(point: Point) -> Bottleneck | None:
    """None without the server's figures."""
    if point.generator_cpu_share > _BUSY_GENERATOR:
        return Bottleneck("generator", None, 0.0, point.generator_cpu_share)
    if not point.steps or point.mean_ms is None or point.queue_ms is None or point.compute_ms is None:
        return None
    slowest = max(point.steps, key=lambda step: step.share * step.compute_ms)
    crowded = max(point.steps, key=lambda step: step.share * step.queue_ms)
    outside_ms = max(point.mean_ms - point.queue_ms - point.compute_ms, 0.0)
    share_of_mean = 1 / point.mean_ms if point.mean_ms > 0 else 0.0
    parts = (
        Bottleneck("queue", crowded, ms := crowded.share * crowded.queue_ms, ms * share_of_mean),
        Bottleneck("compute", slowest, ms := slowest.share * slowest.compute_ms, ms * share_of_mean),
        Bottleneck("outside", None, outside_ms, outside_ms * share_of_mean),
    )
    return max(parts, key=lambda part: part.part_ms)


def describe_bottleneck(point: Point) -> str:
    """The largest part of the mean latency and what would shorten it; empty without the server's figures."""
    found = find_bottleneck(point)
    if found is None:
        return ""
    percent = f"{found.share * 100:.0f} %"
    if found.kind == "generator":
        return f"The generator used {percent} of a core and may be the bottleneck: use more workers (--workers)."
    mean_ms = point.mean_ms or 0.0
    begin = f"At {format_rate(point.rate_per_s)}, a request takes {about_ms(mean_ms)} on average. The largest part, "
    begin += f"{about_ms(found.part_ms)} ({percent}), is "
    if found.step is None:
        return f"{begin}spent outside the models: network, protocol, and the server's own scheduling."
    named = _named(found.step, point)
    if found.kind == "queue":
        return f"{begin}waiting in the queue of {named}: more instances or a faster model would help."
    calm = (point.queue_ms or 0.0) < _CALM_QUEUE * mean_ms
    tail = "Queues are short, so only a faster model would help." if calm else "Its queue adds to that."
    return f"{begin}the computation of {named}. {tail}"


def _named(step: StepPoint, point: Point) -> str:
    """With its place in the pipeline, or in the mix."""
    steps = point.steps
    if point.models:
        return f"{step.model}, which gets {step.share * 100:.0f} % of the requests"
    if len(steps) == 1:
        return f"the model {step.model}"
    return f"{step.model}, step {steps.index(step) + 1} of {len(steps)}"
