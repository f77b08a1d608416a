"""What a capacity result means, in sentences: both numbers, what more time would buy, what to mind; report and terminal
say the same."""

from __future__ import annotations

from collections import Counter

from loadtests.attempt import HIGHER, likely_to_pass
from loadtests.bearing import late_at_any_rate
from loadtests.result import CapacityResult, lowest_judged
from loadtests.slo import about_ms, as_asked, describe_slos, format_rate
from loadtests.verdict import required_requests

_CALM_SHARE = 0.1
_MINUTES = (1, 2, 5, 10, 30)
_WORTH = 1.02
"""How much higher than the certificate there is another must be to be spoken of."""
_SPOILED_SHARE = 0.3


def explain(result: CapacityResult) -> str:
    """All of it, in the order a reader needs it."""
    return " ".join(filter(None, (certified(result), estimated(result), more_time(result))))


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
        for slo in as_asked(result.slos)
        if slo.limit_ms is not None and not slo.model
        if (value_ms := seen_ms.get(slo.percentile)) is not None and value_ms > slo.limit_ms
    )


def estimated(result: CapacityResult) -> str:
    """What the estimate means, and why it differs from the certified rate; empty where there is nothing to say."""
    best, interval = result.capacity_estimate_per_s, result.capacity_estimate_interval_per_s
    if contradicted := late_at_any_rate(result.points):  # without a certificate it has been said
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
        rate_per_s, chance = likely_to_pass(result.points, result.slos, minutes * 60.0, best_per_s, HIGHER)
        if chance >= HIGHER.likely and rate_per_s > best_per_s * _WORTH:
            return minutes, rate_per_s
    return None


def warn(result: CapacityResult) -> str:
    """What the reader must know before trusting the figures; empty where nothing is amiss."""
    return " ".join(doubts(result))


def doubts(result: CapacityResult) -> list[str]:
    """The same, a reason each: reports, comparisons and plans of this result repeat them."""
    said = []
    busy = result.settings.get("busy_before_share")
    if busy is not None and busy > _CALM_SHARE:
        said.append(
            f"This machine's CPUs were {busy * 100:.0f} % busy before the test began. Where server or generator run on "
            "it, they shared it with something else, and a quiet machine would hold more."
        )
    spoiled = [point for point in result.points if point.verdict == "invalid"]
    if result.verdict != "invalid" and len(spoiled) > _SPOILED_SHARE * len(result.points):
        (why, _), *_ = Counter(point.reason.partition(";")[2].strip() for point in spoiled).most_common()
        listened = any(point.punctual for point in spoiled) and result.capacity_estimate_per_s is not None
        said.append(
            f"{len(spoiled)} of {len(result.points)} probes certify nothing, because the generator could not keep up: "
            f"{why or 'see the table of all probes'}."
            + " The estimate rests on the requests that were sent in time."
            * listened
        )
    if resumed := result.settings.get("resumed"):
        said.append(f"The search was resumed where something else was measured ({', '.join(resumed)}).")
    return said
