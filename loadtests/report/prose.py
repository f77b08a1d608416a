"""What a capacity result means, in sentences: both numbers, what more time would buy, what to mind; report and terminal
say the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from loadtests.judge.verdict import required_requests
from loadtests.records.point import Point, StepPoint
from loadtests.results.result import CapacityResult, lowest_judged
from loadtests.search.confirmation import most_promising
from loadtests.search.monotonicity import monotonicity_violation
from loadtests.slo import about_ms, as_requested, describe_slos, format_rate
from loadtests.workload.arrivals import POISSON, describe_arrivals

_CALM_SHARE = 0.1
_MINUTES = (1, 2, 5, 10, 30)
_WORTH = 1.02
"""How much higher than the certificate there is another must be to be spoken of."""
_LIKELY = 0.5
_INVALID_SHARE = 0.3


def headline(result: CapacityResult) -> str:
    """The capacity with its interval, and beside it what is proven; without an estimate what is proven alone."""
    slos, best = conditions(result), result.capacity_estimate_per_s
    if result.verdict == "fail":
        return f"{result.model} misses {slos} at every rate that was tried"
    proven = "none" if result.capacity_per_s is None else format_rate(result.capacity_per_s)
    interval = result.capacity_estimate_interval_per_s
    if best is None or interval is None:
        if result.capacity_per_s is None:
            return f"no rate is proven for {result.model} under {slos}"
        return f"{result.model}: at least {result.capacity_per_s:,.3g} requests/s under {slos}, proven at 99 %"
    low, high = (f"{end:,.0f}" if end >= 100 else f"{end:.3g}" for end in interval)
    rate = f"{best:,.0f}" if best >= 100 else f"{best:.3g}"
    return f"{result.model}: about {rate} requests/s under {slos} (95 %: {low} to {high}); proven at 99 %: {proven}"


def conditions(result: CapacityResult) -> str:
    """What the rates hold for: `p99=50ms with Poisson arrivals`."""
    arrivals = result.settings.get("arrivals", POISSON.name)
    return f"{describe_slos(result.slos)} with {describe_arrivals(arrivals)}"


def explain(result: CapacityResult) -> str:
    """All of it, in the order a reader needs it."""
    return " ".join(filter(None, (estimated(result), certified(result), more_time(result))))


def certified(result: CapacityResult) -> str:
    """What the certified rate means, or why there is none."""
    slos, best = describe_slos(result.slos), result.certificate
    if best is not None:
        return (
            f"Certified means: {best.requests:,} requests at {format_rate(best.rate_per_s)} over {best.seconds:,.0f} "
            f"s, with a seed of their own, kept {slos} so clearly that a server which does not keep it would look "
            "this good at most one time in a hundred."
        )
    if result.verdict == "fail":
        return f"No rate is certified: {result.reason}{missed_by(result)}."
    least = max(required_requests(slo.percentile, 0) for slo in result.slos)
    return (
        f"No rate is certified: {result.reason}. A certificate for {slos} takes at least {least:,} independent "
        "requests without a single one over the limit."
    )


def missed_by(result: CapacityResult) -> str:
    """How far the lowest rate that was tried is from each limit: `; its p99 was 12 ms, 7 ms too long`."""
    if result.verdict != "fail":
        return ""
    point = lowest_judged(result.points)
    seen_ms = {0.5: point.p50_ms, 0.9: point.p90_ms, 0.99: point.p99_ms, 0.999: point.p999_ms}
    return "".join(
        f"; its {slo.metric} was {about_ms(value_ms)}, {about_ms(value_ms - slo.limit_ms)} too long"
        for slo in as_requested(result.slos)
        if slo.limit_ms is not None and not slo.model
        if (value_ms := seen_ms.get(slo.percentile)) is not None and value_ms > slo.limit_ms
    )


def estimated(result: CapacityResult) -> str:
    """What the estimate means, and why it differs from the certified rate; empty where there is nothing to say."""
    best, interval = result.capacity_estimate_per_s, result.capacity_estimate_interval_per_s
    if contradicted := monotonicity_violation(result.points):  # without a certificate it has been said
        return f"There is no estimate: {contradicted}." if result.capacity_per_s is not None else ""
    if best is None or interval is None:
        known = result.capacity_per_s is not None
        return "No tested rate was too high, so how much more it holds is not known." if known else ""
    text = (
        f"The estimate is where all probes together put the edge: {format_rate(best)}, with 95 % probability between "
        f"{format_rate(interval[0])} and {format_rate(interval[1])}."
    )
    if result.capacity_per_s is not None and result.capacity_per_s < best:
        text += (
            f" The certified rate is {(1 - result.capacity_per_s / best) * 100:.0f} % lower because a finite number of "
            "requests cannot prove a rate right at the edge."
        )
    return text


def more_time(result: CapacityResult) -> str:
    """What another minute would buy; empty without an estimate."""
    if result.capacity_estimate_per_s is None:
        return ""
    if (room := worth_more(result)) is None:
        return f"Not even another {_MINUTES[-1]} minutes would certify noticeably more."
    minutes, rate_per_s = room
    may = f"may certify up to about {format_rate(rate_per_s)} (--resume with a longer --budget)."
    if minutes == 1:
        return f"Another minute {may}"
    return f"Another minute would not certify more; {minutes} minutes {may}"


def worth_more(result: CapacityResult) -> tuple[int, float] | None:
    """After how many more minutes a higher rate may be certified, and about which at most, by the curve the estimate
    rests on; None where half an hour is not enough. In simulated searches one in twenty goes beyond it, and on a
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
    """What the reader must know before trusting the figures; empty where nothing is amiss."""
    return " ".join(doubts(result))


def doubts(result: CapacityResult) -> list[str]:
    """The same, a reason each: reports, comparisons and plans of this result repeat them."""
    reasons = busy_machine(result.settings.get("busy_before_share"))
    invalid = [point for point in result.points if point.verdict == "invalid"]
    if result.verdict != "invalid" and len(invalid) > _INVALID_SHARE * len(result.points):
        (why, _), *_ = Counter(point.reason.partition(";")[2].strip() for point in invalid).most_common()
        some_unaffected = any(point.unaffected for point in invalid) and result.capacity_estimate_per_s is not None
        reasons.append(
            f"{len(invalid)} of {len(result.points)} probes certify nothing, because the generator could not keep up: "
            f"{why or 'see the table of all probes'}."
            + " The estimate rests on the requests that were sent in time."
            * some_unaffected
        )
    if resumed := result.settings.get("resumed"):
        reasons.append(f"The search was resumed where something else was measured ({', '.join(resumed)}).")
    return reasons


def busy_machine(share: float | None) -> list[str]:
    """The doubt about a machine whose CPUs had this much to do before the first request; empty for a quiet one."""
    if share is None or share <= _CALM_SHARE:
        return []
    return [
        f"This machine's CPUs were {share * 100:.0f} % busy before the test began. Where server or generator run on "
        "it, they shared it with something else, and a quiet machine would hold more."
    ]


# Where a request's time goes, in a sentence: generator, network and protocol, queue, or the work of one model.

_BUSY_GENERATOR = 0.7
_CALM_QUEUE = 0.15


def deciding_point(result: CapacityResult) -> Point | None:
    """The certified probe; without one, the highest rate that was met, with the server's figures."""
    if result.certificate is not None:
        return result.certificate.points[0]
    met = [point for point in result.points if point.passes and point.verdict != "invalid"]
    return max(met, key=lambda point: point.rate_per_s, default=None)


def shown_point(result: CapacityResult) -> Point | None:
    """The deciding point, or the lowest rate where none was met."""
    return deciding_point(result) or (lowest_judged(result.points) if result.verdict == "fail" else None)


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
    """Names the largest part of the mean latency and what would shorten it; empty without the server's figures."""
    found = find_bottleneck(point)
    if found is None:
        return ""
    percent = f"{found.share * 100:.0f} %"
    if found.kind == "generator":
        return f"The generator itself used {percent} of a core: it needs another one before this is a limit."
    mean_ms = point.mean_ms or 0.0
    begin = f"At {format_rate(point.rate_per_s)} a request takes {about_ms(mean_ms)} on average; the largest part, "
    begin += f"{about_ms(found.part_ms)} ({percent}), is "
    if found.step is None:
        return f"{begin}outside the models: network, protocol, and the server's own scheduling."
    named = _named(found.step, point)
    if found.kind == "queue":
        return f"{begin}waiting in front of {named}: more instances or a faster model there would help."
    calm = (point.queue_ms or 0.0) < _CALM_QUEUE * mean_ms
    tail = "the queues are short, so this is mostly its own speed" if calm else "its queue adds to it"
    return f"{begin}the work of {named}; {tail}."


def _named(step: StepPoint, point: Point) -> str:
    """With its place in the pipeline, or in the mix."""
    steps = point.steps
    if point.models:
        return f"{step.model}, where {step.share * 100:.0f} % of the requests go"
    if len(steps) == 1:
        return f"the model {step.model}"
    if step is steps[0]:
        return f"the pre-processing step {step.model}"
    return f"{step.model}, step {steps.index(step) + 1} of {len(steps)}"
