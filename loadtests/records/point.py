"""One point of the latency-against-rate curve: what a probe asked for, what it found, and the verdict on it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from loadtests.records.documents import read, stored_name
from loadtests.records.sequences import SequencePoint
from loadtests.records.streaming import GenerationLoad, StreamPoint
from loadtests.slo import Measure, Slo

Phase = Literal["double", "bisect", "confirm", "refine", "load"]


Verdict = Literal["pass", "fail", "undecided", "invalid"]

SATURATED = 0.9


@dataclass(frozen=True)
class ServerStats:
    """All of a pipeline: one step for a plain model, one per composing model for an ensemble, all of them for a mix.

    The times are those of the mean request, which in a mix passes each step only with the step's share.
    """

    steps: tuple[StepPoint, ...]

    @property
    def queue_ms(self) -> float:
        """Time a request waited, summed over the steps."""
        return sum(step.share * step.queue_ms for step in self.steps)

    @property
    def compute_ms(self) -> float:
        """Time a request was worked on, summed over the steps."""
        return sum(step.share * step.compute_ms for step in self.steps)

    @property
    def slowest(self) -> StepPoint:
        """The step that works longest per request."""
        return max(self.steps, key=lambda step: step.share * step.compute_ms)

    @property
    def mean_batch(self) -> float:
        """The mean batch of the slowest step, where batching matters most."""
        return self.slowest.mean_batch


@dataclass(frozen=True)
class ServerLoad:
    """Utilisations are means over the probe (and over GPUs) between 0 and 1, memory is the highest seen, all GPUs
    together; None where the server has no such metric."""

    cpu_share: float | None
    memory_mib: float | None
    gpu_share: float | None
    gpu_memory_mib: float | None
    gpu_power_w: float | None
    """Mean, all GPUs together."""
    rejected: int | None
    """Requests that a full queue or its timeout refused, all models together."""
    generation: GenerationLoad | None = None
    """Of a server that generates text in slots and says so."""


@dataclass(frozen=True)
class GeneratorStats:
    """One generator's account of itself; all lags are 0 where it sent nothing."""

    name: str
    requests: int
    send_lag_p50_ms: float
    send_lag_p99_ms: float
    send_lag_max_ms: float
    late_share: float
    """Requests sent more than 1 ms after their intended time."""
    cpu_share: float
    """Of one core, user and system time."""

    @property
    def saturated(self) -> bool:
        """Whether it measured itself."""
        return self.cpu_share > SATURATED


@dataclass(frozen=True)
class Probe:
    """What to measure next."""

    number: int
    phase: Phase
    rate_per_s: float
    requests: int
    seed: int
    until_s: float = math.inf
    """Seconds after which it ends, whatever is then unanswered: the budget is spent."""


@dataclass(frozen=True)
class SloCount:
    """How one SLO fared in a probe; `dependence` requests count as one independent request (see `judge.verdict`)."""

    slo: str
    verdict: Verdict
    over: int
    requests: int
    dependence: float
    over_by_part: tuple[int, ...] = ()
    """`over` in each of equally long parts of the probe, in the order of the schedule."""

    @property
    def within(self) -> bool:
        """Whether no larger share was over than the SLO allows."""
        return self.over <= Slo.parse(self.slo).allowed_share * self.requests


@dataclass(frozen=True)
class StepPoint:
    """One model of a pipeline during a probe, by the server's account: times are means per request, the batch one per
    execution."""

    model: str
    queue_ms: float
    compute_input_ms: float
    compute_infer_ms: float
    compute_output_ms: float
    compute_ms: float
    mean_batch: float
    executions: int
    requests: int
    failed: int
    batch_sizes: Mapping[str, int]
    """Executions per batch size (keys are text, as in JSON)."""
    execution_ms: float | None = None
    """Mean of an execution, whatever its batch: an instance works on nothing else meanwhile."""
    share: float = 1.0
    """Of the requests of a mix, how many come here; the times are those of a request that does."""
    cached: int = 0
    """Requests that the response cache answered: among `requests`, in none of the means but the queue's."""


@dataclass(frozen=True)
class ModelPoint:
    """One model of a mix during a probe."""

    model: str
    requests: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None
    verdict: Verdict
    """The strictest of the SLOs that are for this model."""


@dataclass(frozen=True)
class SizePoint:
    """The requests of one model with inputs up to this size, and larger than those of the entry before."""

    model: str
    up_to_bytes: int
    requests: int
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class Point:
    """A row of the result. Latencies run from the intended send time; None means that nothing was there to measure."""

    number: int
    phase: Phase
    rate_per_s: float
    """Asked for: the mean of the arrival process."""
    offered_per_s: float
    """What this seed's schedule came to."""
    achieved_per_s: float
    verdict: Verdict
    reason: str
    passes: bool
    """The point estimate, by which the search goes on unless the verdict is pass; of `unaffected` where it has any."""
    requests: int
    scheduled: int
    errors: int
    error_messages: Mapping[str, int]
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float | None
    mean_ms: float | None
    slos: tuple[SloCount, ...]
    seed: int
    send_lag_p50_ms: float
    send_lag_p99_ms: float
    send_lag_max_ms: float
    late_share: float
    """Requests sent more than 1 ms after their intended time."""
    cpu_per_request_us: float
    generator_cpu_share: float
    stopped: str
    duration_s: float
    took_s: float
    """Of the budget: connecting, sending, draining, evaluating."""
    started_unix_s: float
    host_cpu_share: float | None
    queue_ms: float | None
    compute_ms: float | None
    mean_batch: float | None
    steps: tuple[StepPoint, ...]
    raw: str
    """File of the raw record, relative to the results folder."""
    workers: tuple[GeneratorStats, ...] = ()
    """One entry per generator."""
    generator_priority: str = ""
    """How the operating system scheduled the generators: `real-time`, `nice -10` or `normal`."""
    models: tuple[ModelPoint, ...] = ()
    """One entry per model of a mix; none where only one model is asked."""

    sizes: tuple[SizePoint, ...] = ()
    """Of each model, from the smallest requests to the largest; none where all are about equally large, or the probe
    was stopped."""
    load: ServerLoad | None = None
    """Of the server's machine, where it has metrics."""
    streaming: StreamPoint | None = None
    """Of answers that come in parts."""
    sequences: SequencePoint | None = None
    """Of sequences of requests; each counts as one among `requests`, and its latency is that of its last."""
    unaffected: tuple[SloCount, ...] = field(default=(), metadata={"stored_as": "punctual"})
    """As `slos`, of the requests that no late send affected (see `judge.unaffected`); empty where these are all of
    them, too few, or not known."""

    @property
    def usable(self) -> bool:
        """Whether it is about the server, not the generator."""
        return self.verdict != "invalid" or bool(self.unaffected)

    @property
    def meets_slo(self) -> bool:
        """Whether the server met the SLOs, as far as this point shows."""
        return self.passes and self.usable

    @property
    def unit(self) -> str:
        """What it counts: `requests`, or `sequences` of them to a model that keeps state."""
        return "sequences" if self.sequences and not self.models else "requests"

    @property
    def counts(self) -> tuple[SloCount, ...]:
        """The unaffected requests where there are any, which show most of the server; all otherwise."""
        return self.unaffected or self.slos

    def seen_ms(self, slo: Slo) -> float | None:
        """The percentile that an SLO limits, for all requests of the probe; None where it was not kept."""
        name = f"p{slo.percentile * 100:g}".replace(".", "")
        return None if slo.model else self.percentile_ms(slo.measure, name)

    def percentile_ms(self, measure: Measure, name: str = "p99") -> float | None:
        """A percentile of the latency, or of a measure of streams or sequences; None if there is none."""
        holder = (self.streaming or self.sequences) if measure else self
        return getattr(holder, f"{measure}_{name}_ms".removeprefix("_"), None)

    def to_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return {stored_name(field): values[field.name] for field in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, document: Any) -> Point:
        """ValueError that says what is wrong with it."""
        point = read(cls, document)
        if not point.rate_per_s > 0:
            raise ValueError(f"rate_per_s is {point.rate_per_s:g}, not above 0")
        for count in (*point.slos, *point.unaffected):
            Slo.parse(count.slo)
            if not 0 <= count.over <= count.requests or count.dependence <= 0:
                raise ValueError(f"{count.over} of {count.requests} requests with a dependence of {count.dependence:g}")
        return point
