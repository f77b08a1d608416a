"""A server without load: the latency of one request at a time, and how busy this machine is."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from loadtests.errors import SloUnreachableError
from loadtests.search.budget import PROBE_SHARE
from loadtests.slo import Slo, about_ms, format_ms
from loadtests.target.client import StreamTimes, Target
from loadtests.target.hardware import CpuMeter
from loadtests.target.parameters import Payload
from loadtests.workload.workload import Workload

_REQUESTS = 20
"""To each model, one at a time; the first half warms it up. A slow one gets as many as PROBE_SHARE allows, but two."""
_UNDER_LOAD = 3.0
"""Times as long as alone an answer in parts takes beside others, in servers that batch them."""
_TAKES = {
    "": "takes {}",
    "ttft": "takes {} to its first token",
    "itl": "takes {} from one token to the next",
    "gap": "pauses for {} between two tokens",
}
_TAKES_IN_SEQUENCE = {
    "": "takes {} for the last request of a sequence",
    "gap": "takes {} for the slowest request of a sequence",
}


class Alone(NamedTuple):
    """The median of each measure of requests that were sent one at a time, or of sequences (see `StreamTimes`)."""

    latency_ms: float
    ttft_ms: float
    """To the first part; the latency of a model that answers at once."""
    itl_ms: float
    """From part to part; 0 for a model that answers at once."""
    gap_ms: float

    @classmethod
    def of(cls, answers: Sequence[StreamTimes]) -> Alone:
        each = ((answer.latency_ms, answer.ttft_ms, answer.itl_ms, answer.gap_ms) for answer in answers)
        return cls(*map(statistics.median, zip(*each, strict=True)))


@dataclass(frozen=True)
class Unloaded:
    """What one request at a time takes."""

    alone: Alone
    """Averaged over the mix."""
    took_s: float
    """Of the budget."""
    answer_s: float = 0.0
    """About what an answer in parts takes under load; 0 where none comes in parts."""

    @property
    def latency_ms(self) -> float:
        return self.alone.latency_ms

    @property
    def ttft_ms(self) -> float:
        return self.alone.ttft_ms


def measure_unloaded(traffic: Workload, slos: Sequence[Slo], *, timeout_s: float, budget_s: float) -> Unloaded:
    """Asks each model one request at a time. Raises SloUnreachableError when one already misses an SLO like that."""
    began_s = time.monotonic()
    allowed_s = PROBE_SHARE * budget_s / len(traffic.models)
    medians, answers_s = [], [0.0]
    for name, (target, pool) in zip(traffic.models, traffic.first_payloads, strict=True):
        answers = _ask(target, pool, timeout_s, allowed_s, budget_s)
        warm = answers[len(answers) // 2 :]
        medians.append(Alone.of(warm))
        if target.streams:
            answers_s.append(_UNDER_LOAD * statistics.mean(answer.latency_ms for answer in answers) / 1e3)
        if len(answers) > 1:  # the first alone may have waited for the model to warm up
            own = name if len(traffic.models) > 1 else ""
            own_slos = [slo for slo in slos if slo.model == own]
            _check(name, own_slos, medians[-1], len(warm), in_sequences=target.keeps_state)
    together = Alone(*map(float, traffic.weights @ medians))
    return Unloaded(together, time.monotonic() - began_s, max(answers_s))


def busy_share(sample_s: float) -> float | None:
    """How busy this machine is."""
    meter = CpuMeter()
    time.sleep(sample_s)
    return meter.read()


def _ask(
    target: Target, pool: Sequence[Payload], timeout_s: float, allowed_s: float, budget_s: float
) -> list[StreamTimes]:
    began_s = time.monotonic()
    answers: list[StreamTimes] = []
    while len(answers) < _REQUESTS:
        if answers and time.monotonic() - began_s > (allowed_s if len(answers) > 1 else budget_s):
            break
        answers.append(target.stream(pool[len(answers) % len(pool)], timeout_s))
    return answers


def _check(model: str, slos: Sequence[Slo], alone: Alone, requests: int, *, in_sequences: bool = False) -> None:
    takes, what = (_TAKES_IN_SEQUENCE, "sequences") if in_sequences else (_TAKES, "requests")
    for slo in slos:
        median_ms = getattr(alone, f"{slo.measure or 'latency'}_ms")
        # The median is at most any higher percentile, so this is never a false alarm.
        if slo.limit_ms is not None and slo.percentile >= 0.5 and median_ms > slo.limit_ms:
            raise SloUnreachableError(
                f"{model} {takes[slo.measure].format(about_ms(median_ms))} without load (median of {requests} "
                f"{what}, one at a time): {slo} is missed by {about_ms(median_ms - slo.limit_ms)} at every rate; "
                f"raise the limit above {format_ms(math.ceil(median_ms))} or make the model faster",
                slo=str(slo),
                unloaded_ms=median_ms,
            )
