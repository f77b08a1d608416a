"""From a probe's raw record to its point: the figures of the report, and the verdict with its reason."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from loadtests.judge.backlog import judge_backlog
from loadtests.judge.generator_health import LATE_MS, allowed_lag_ms, generator_stats, invalid_reason
from loadtests.judge.sample import Sample, at_least_ms
from loadtests.judge.sequences import sequence_point
from loadtests.judge.streams import stream_point
from loadtests.judge.unaffected import unaffected_requests
from loadtests.judge.verdict import SloJudgement, judge_counts
from loadtests.records.point import ModelPoint, Point, Probe, ServerLoad, ServerStats, SloCount, Verdict
from loadtests.records.record import (
    EMPTY_RESPONSE,
    NOT_SENT,
    OK,
    UNANSWERED,
    Floats,
    Outcome,
    Record,
    finite,
    percentile,
)
from loadtests.slo import Slo, loosest_limit_ms

DEFAULT_ERROR_SHARE = 0.001
"""Of the requests may fail or stay unanswered where no SLO bounds errors: one in a thousand."""
_NAMES = {EMPTY_RESPONSE: "EMPTY_RESPONSE"}


def evaluate(
    probe: Probe,
    record: Record,
    outcome: Outcome,
    slos: Sequence[Slo],
    *,
    server: ServerStats | None = None,
    load: ServerLoad | None = None,
    host_cpu_share: float | None = None,
    took_s: float = 0.0,
    raw: str = "",
    models: Sequence[str] = (),
) -> Point:
    """The verdict is that of the strictest rule; an invalid probe keeps its figures but proves nothing."""
    known, limit_ms = record, loosest_limit_ms(slos)
    cut_off = outcome.stopped in ("hopeless", "asked", "budget")
    if cut_off:
        known = record.known_at(outcome.wall_s, limit_ms / 1e3)
        if count_errors(record, outcome) != count_errors(known, outcome):
            known = record.known_at(outcome.wall_s, 0.0)  # younger ones were refused: at least these are late
    lags_ms = record.send_lags_ms()
    errors = count_errors(known, outcome)
    shown_ms = at_least_ms(known, "", outcome.wall_s)
    of_model = known.model[known.attempted]
    known_until_s = outcome.wall_s if cut_off or known.streamed else None  # streams that run are no late ones
    samples = [Sample.of(slo, known, slos, models, known_until_s) for slo in slos]
    judgements = [sample.judged() for sample in samples]
    verdict, reason = _verdict(known, outcome, judgements, slos)
    if verdict != "pass" and outcome.stopped not in ("asked", "connection lost"):
        reason += "".join(f"; {message}" for message in _server_messages(outcome)[:1])
    if outcome.stopped == "budget" and verdict == "fail":
        outcome = replace(outcome, stopped="hopeless")  # what is known by then decides
    passes = _point_estimate_passes(record, judgements, verdict) and not outcome.stopped
    generators, whole = generator_stats(record, outcome), outcome.stopped in ("", "hopeless")
    counts = tuple(map(_count, judgements))
    unaffected: tuple[SloCount, ...] = ()
    if whole and not (errors or outcome.lost or any(stats.saturated for stats in generators)):
        unaffected = _unaffected_counts(samples, slos)
    if unaffected and verdict != "pass":
        passes = all(count.within for count in unaffected) and not judge_backlog(record).growing
    if why := invalid_reason(record, outcome, slos):
        verdict, reason = "invalid", why
        passes = passes or bool(outcome.lost)  # a generator that died says nothing against the rate
    known_ms = shown_ms[np.isfinite(shown_ms)]
    attempted, sent = len(shown_ms), int(np.maximum(record.requests, 1)[record.attempted].sum())
    return Point(
        number=probe.number,
        phase=probe.phase,
        rate_per_s=probe.rate_per_s,
        offered_per_s=offered_per_s(record),
        achieved_per_s=record.achieved_per_s(),
        verdict=verdict,
        reason=reason,
        passes=passes,
        requests=attempted,
        scheduled=len(record),
        errors=sum(errors.values()),
        error_messages=errors,
        p50_ms=finite(percentile(shown_ms, 0.5)),
        p90_ms=finite(percentile(shown_ms, 0.9)),
        p99_ms=finite(percentile(shown_ms, 0.99)),
        p999_ms=finite(percentile(shown_ms, 0.999)),
        max_ms=finite(float(shown_ms.max())) if attempted else None,
        mean_ms=float(known_ms.mean()) if len(known_ms) else None,
        slos=counts,
        unaffected=unaffected,
        seed=probe.seed,
        send_lag_p50_ms=_zero_if_empty(percentile(lags_ms, 0.5)),
        send_lag_p99_ms=_zero_if_empty(percentile(lags_ms, 0.99)),
        send_lag_max_ms=float(lags_ms.max()) if len(lags_ms) else 0.0,
        late_share=float(np.mean(lags_ms > LATE_MS)) if len(lags_ms) else 0.0,
        cpu_per_request_us=outcome.cpu_s / sent * 1e6 if sent else 0.0,
        generator_cpu_share=max(stats.cpu_share for stats in generators),
        stopped=outcome.stopped,
        duration_s=outcome.wall_s,
        took_s=took_s,
        started_unix_s=outcome.started_unix_s,
        host_cpu_share=host_cpu_share,
        queue_ms=server.queue_ms if server else None,
        compute_ms=server.compute_ms if server else None,
        mean_batch=server.mean_batch if server else None,
        steps=server.steps if server else (),
        load=load,
        streaming=stream_point(known, slos, models, rate_per_s=probe.rate_per_s, wall_s=outcome.wall_s),
        sequences=sequence_point(known, probe.rate_per_s),
        raw=raw,
        workers=generators,
        generator_priority=outcome.priority,
        models=tuple(
            _model_point(name, shown_ms[of_model == number], known.where(known.model == number), judgements)
            for number, name in enumerate(models)
            if len(models) > 1
        ),
    )


def count_errors(record: Record, outcome: Outcome) -> dict[str, int]:
    """How many requests failed, by `STATUS: first message`; those cut off by an early stop did not."""
    counts = Counter(record.status[_failed(record)].tolist())
    return {describe_status(status, outcome.messages): count for status, count in counts.most_common()}


def _failed(record: Record) -> NDArray[np.bool_]:
    failed: NDArray[np.bool_] = (record.status != OK) & (record.status != NOT_SENT) & (record.status != UNANSWERED)
    return failed


def _server_messages(outcome: Outcome) -> list[str]:
    """Each failure with its message, also of requests too young to be counted at an early stop."""
    return [describe_status(int(status), outcome.messages) for status in outcome.messages]


def describe_status(status: int, messages: Mapping[str, str]) -> str:
    """`UNAVAILABLE: first message of the server with this status`."""
    return f"{status_name(status)}: {messages.get(str(status), '')}".removesuffix(": ")


def status_name(status: int) -> str:
    """`UNAVAILABLE` for 14; the names of gRPC and our own."""
    if status in _NAMES:
        return _NAMES[status]
    import grpc

    return next((code.name for code in grpc.StatusCode if code.value[0] == status), f"STATUS_{status}")


def offered_per_s(record: Record) -> float:
    """The rate this schedule really had (a Poisson sample is never exactly its mean)."""
    span_s = float(record.intended_s[-1] - record.intended_s[0]) if len(record) > 1 else 0.0
    return (len(record) - 1) / span_s if span_s > 0 else 0.0


def _verdict(
    record: Record, outcome: Outcome, judgements: Sequence[SloJudgement], slos: Sequence[Slo]
) -> tuple[Verdict, str]:
    if outcome.stopped == "asked":
        return "undecided", "interrupted"
    if outcome.stopped == "connection lost":
        return "fail", f"lost the server: {next(iter(outcome.messages.values()), 'connection lost')}"
    if outcome.stopped == "backlog":
        waiting = int((record.status == UNANSWERED).sum())
        return "fail", f"stopped early: {waiting} {record.unit} were unanswered, so the server does not keep up"
    failed = next((found for found in judgements if found.verdict == "fail"), None)
    if failed is not None or outcome.stopped == "hopeless":
        worst = failed or max(judgements, key=lambda found: found.excess)
        return "fail", worst.describe()
    if outcome.stopped == "budget":
        return "undecided", f"the budget ended after {len(record):,} {record.unit}"
    if not any(slo.limit_ms is None for slo in slos):
        running = np.equal(record.status, UNANSWERED) & np.greater(record.parts, 0)
        bound = _error_bound(int((~record.ok & ~running).sum()), len(record), record.unit)
        if bound is not None:
            return bound
    undecided = next((found for found in judgements if found.verdict == "undecided"), None)
    if undecided is not None:
        return "undecided", undecided.describe()
    backlog = judge_backlog(record)
    if backlog.growing:
        return "undecided", f"{backlog.describe()}, so latency was still rising"
    return "pass", "; ".join(found.describe() for found in judgements)


def _error_bound(errors: int, requests: int, unit: str) -> tuple[Verdict, str] | None:
    """The bound where no SLO names one; `errors` counts unanswered requests as well."""
    share = errors / requests if requests else 0.0
    if share <= DEFAULT_ERROR_SHARE:
        return None
    text = (
        f"{errors} of {requests} {unit} failed ({share * 100:.2f} %; at most {DEFAULT_ERROR_SHARE * 100:g} % allowed)"
    )
    return judge_counts(requests, errors, DEFAULT_ERROR_SHARE) if errors > 1 else "undecided", text


def _point_estimate_passes(record: Record, judgements: Sequence[SloJudgement], verdict: Verdict) -> bool:
    if verdict != "undecided":
        return verdict == "pass"
    within = all(found.over <= found.slo.allowed_share * found.requests for found in judgements)
    return within and not judge_backlog(record).growing


def _unaffected_counts(samples: Sequence[Sample], slos: Sequence[Slo]) -> tuple[SloCount, ...]:
    """The counts of the requests that no late send affected; none where these are all, or less than half."""
    allowed_ms = allowed_lag_ms(slos)
    kept = [unaffected_requests(sample.known, allowed_ms, sample.slo.measure) for sample in samples]
    if all(each.all() for each in kept) or any(2 * each.sum() < len(each) for each in kept):
        return ()
    return tuple(_count(sample.judged(each)) for sample, each in zip(samples, kept, strict=True))


def _count(found: SloJudgement) -> SloCount:
    return SloCount(str(found.slo), found.verdict, found.over, found.requests, found.dependence, found.over_by_part)


def _model_point(model: str, shown_ms: Floats, known: Record, judgements: Sequence[SloJudgement]) -> ModelPoint:
    verdicts = {found.verdict for found in judgements if found.slo.model == model}
    strictest: Sequence[Verdict] = ("fail", "undecided", "pass")
    return ModelPoint(
        model=model,
        requests=len(shown_ms),
        errors=int(_failed(known).sum()),
        p50_ms=finite(percentile(shown_ms, 0.5)),
        p99_ms=finite(percentile(shown_ms, 0.99)),
        verdict=next((verdict for verdict in strictest if verdict in verdicts), "undecided"),
    )


def _zero_if_empty(value: float) -> float:
    return 0.0 if math.isnan(value) else value
