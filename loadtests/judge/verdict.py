"""Pass, fail or undecided: the binomial test of MLPerf LoadGen's early stopping, used in both directions.

A share of q of the requests may be over the limit (1 % for a p99). With k of n over, the SLO is *passed* when a server
that exceeds q would show so few with at most 1 % probability, *failed* when a server that keeps q would show so many
with at most 1 % probability, and *undecided* between the two. (LoadGen: `early_stopping.cc`, tolerance 0.)

That test takes requests for independent, and under load they are not: one slow moment delays a whole run of requests,
and the plain test then passes a queue at exactly its limit far too often (up to 80 % of the time instead of 1 %; see
`tests/loadtests/judge/test_verdict.py`). So n and k are first divided by `dependence(latencies)`: that many requests
together carry as much information as one independent request. It is 1 when they are independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtests.records.point import Verdict
from loadtests.slo import Slo

CONFIDENCE = 0.99
"""MLPerf LoadGen's: at most one verdict in a hundred is wrong."""
PARTS = 20
"""Of a probe, counted apart: short beside the time that a queue takes to fill."""
NEAR_LIMIT = 0.4
"""Of the limit: below it, slow requests are no sign of how late ones cluster (see `dependence`)."""
_FEWEST_SLOW = 25
"""Requests: how late ones cluster cannot be learned from fewer."""
_DOUBT = 4.0
"""How far lucky samples underrate their dependence: with less, simulated queues at their limit pass too often."""
_NOISE = 2.5
"""Standard errors: an autocorrelation below is no different from that of independent requests."""


@dataclass(frozen=True)
class SloJudgement:
    """One SLO against one probe."""

    slo: Slo
    verdict: Verdict
    requests: int
    over: int
    dependence: float
    requests_to_decide: int | None
    """About how many requests would pass it if the share over the limit stayed; None when more would not help."""
    over_by_part: tuple[int, ...] = ()
    """`over` in each twentieth of the probe."""

    @property
    def excess(self) -> float:
        """The share over the limit, as a multiple of what is allowed."""
        return self.over / self.requests / self.slo.allowed_share if self.requests else 0.0

    def describe(self) -> str:
        share = self.over / self.requests if self.requests else 0.0
        text = f"{self.over:,} of {self.requests:,} {self.slo.late} ({share * 100:.2f} %, {self.slo.metric} allows "
        text += f"{self.slo.allowed_share * 100:.10g} %)"
        if self.verdict == "undecided" and self.dependence > 1:
            independent = self.requests / self.dependence
            as_much = "less than one" if independent < 1 else f"{independent:,.0f}"
            text += f"; late requests come in runs, so these count as {as_much} independent request"
            text += "" if independent < 1.5 else "s"
        if self.verdict == "undecided" and self.requests_to_decide:
            text += f"; a verdict needs about {self.requests_to_decide:,}"
        return text


def at_most(over: float, requests: float, share: float) -> float:
    """P[Binomial(requests, share) <= over], continued to real arguments by the incomplete beta function."""
    from scipy.special import betainc

    return 1.0 if over >= requests else float(betainc(requests - over, over + 1, 1 - share))


def at_least(over: float, requests: float, share: float) -> float:
    """P[Binomial(requests, share) >= over], continued to real arguments."""
    from scipy.special import betainc

    return 1.0 if over <= 0 else float(betainc(over, max(requests - over, 0.0) + 1, share))


def required_requests(percentile: float, over: int, confidence: float = CONFIDENCE) -> int:
    """The fewest requests, `over` of them above the limit, that pass: 459 for a clean p99, 662 with one over."""
    share = 1 - percentile
    low, high = over, over + 1
    while at_most(over, high, share) > 1 - confidence:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if at_most(over, middle, share) <= 1 - confidence else (middle, high)
    return high


def most_over(requests: float, allowed_share: float, confidence: float = CONFIDENCE) -> int:
    """The most requests over the limit that still pass; -1 when even a clean sample is too small."""
    low, high = -1, 0
    while at_most(high, requests, allowed_share) <= 1 - confidence:
        low, high = high, high * 2 + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at_most(middle, requests, allowed_share) <= 1 - confidence else (low, middle)
    return low


def judge_counts(
    requests: float, over: float, allowed_share: float, *, dependence: float = 1.0, confidence: float = CONFIDENCE
) -> Verdict:
    """The test itself. `dependence` requests count as one."""
    effective, effective_over = requests / dependence, over / dependence
    if requests and at_most(effective_over, effective, allowed_share) <= 1 - confidence:
        return "pass"
    if requests and at_least(effective_over, effective, allowed_share) <= 1 - confidence:
        return "fail"
    return "undecided"


def judge(
    slo: Slo, latencies_ms: NDArray[np.float64], *, confidence: float = CONFIDENCE, least_dependence: float = 1.0
) -> SloJudgement:
    """One SLO against the latencies of a probe in the order of their schedule, infinite for a failed request.

    The latencies may be another measure of each request. `least_dependence` is what is known of it beforehand.
    """
    requests = len(latencies_ms)
    limit_ms = math.inf if slo.limit_ms is None else slo.limit_ms
    # An answer exactly at the limit is in time; a failure (infinite) is over every limit.
    late = (latencies_ms > limit_ms) | np.isinf(latencies_ms)
    over = int(late.sum())
    factor = _inefficiency(late) if slo.limit_ms is None else dependence(latencies_ms, slo, late)
    factor = max(factor, least_dependence)
    verdict = judge_counts(requests, over, slo.allowed_share, dependence=factor, confidence=confidence)
    needed = None
    if verdict == "undecided" and (not requests or over / requests < slo.allowed_share):
        needed = requests_to_pass(max(requests, 1), over, slo.allowed_share, factor, confidence)
    parts = tuple(int(part.sum()) for part in np.array_split(late, PARTS)) if requests >= PARTS else ()
    return SloJudgement(slo, verdict, requests, over, factor, needed, parts)


def dependence(latencies_ms: NDArray[np.float64], slo: Slo, late: NDArray[np.bool_]) -> float:
    """How many requests carry the information of one: 1 + 2 * sum of the autocorrelation of being among the slowest.

    The slowest are the requests over the limit. Where the SLO is kept, those may be too few to learn from, so the
    slowest 2 and 5 x `allowed_share` (2 % and 5 % for a p99), and at least 25, are tried as well. The largest of the
    three figures counts. The sum ends where the autocorrelation does. When neighbours are already within the noise of
    independent ones (2.5 / sqrt(n)), the answer is 1. A sample of few independent requests knows its own dependence
    badly, and the lucky ones that seem to pass underrate it: hence the last factor, found by simulation.

    It is 1, too, for those of the slowest that stay below 40 % of the limit: a server that is at its limit with 1 % of
    its requests has far more than 1 % above that, so what happens further down is no sign of how late ones cluster.
    """
    count = len(latencies_ms)
    if count < 2:
        return 1.0
    ordered = np.sort(latencies_ms)
    found = _inefficiency(late)
    for multiple in (2, 5):
        slowest = min(max(multiple * slo.allowed_share, _FEWEST_SLOW / count), 0.5)
        level = ordered[min(int(count * (1 - slowest)), count - 1)]
        if slo.limit_ms is not None:
            level = max(level, NEAR_LIMIT * slo.limit_ms)
        found = max(found, _inefficiency(latencies_ms > level if np.isfinite(level) else np.isinf(latencies_ms)))
    return found if found == 1.0 else found * (1 + _DOUBT * math.sqrt(found / count))


def _inefficiency(marks: NDArray[np.bool_]) -> float:
    count = len(marks)
    centred = marks - (marks.mean() if count else 0.0)
    variance = float(np.mean(centred**2)) if count else 0.0
    if variance == 0:
        return 1.0
    size = 1 << (2 * count - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    correlation = np.fft.irfft(spectrum * np.conj(spectrum), size)[: count // 2 + 1] / (count * variance)
    if len(correlation) < 2 or correlation[1] < _NOISE / math.sqrt(count):
        return 1.0
    ended = correlation < 0
    end = int(np.argmax(ended)) if ended.any() else len(correlation)
    return max(1.0, 1.0 + 2.0 * float(correlation[1:end].sum()))


def requests_to_pass(requests: int, over: int, share: float, factor: float, confidence: float) -> int | None:
    """The count at which the same share over the limit would pass, to within 5 %; None when none below 1000-fold."""
    scale = 1.0
    while scale < 1e3:
        if at_most(over * scale / factor, requests * scale / factor, share) <= 1 - confidence:
            return math.ceil(requests * scale)
        scale *= 1.05
    return None
