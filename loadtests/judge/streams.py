"""The measures of streamed answers in a probe: their latencies, parts per second, goodput."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loadtests.judge.sample import at_least_ms, requests_of
from loadtests.records.point import Point
from loadtests.records.record import CANCELLED, UNANSWERED, Record, finite, percentile
from loadtests.records.streaming import StreamPoint
from loadtests.slo import Slo, about, about_ms, format_rate

_PERCENTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}


def stream_point(
    record: Record, slos: Sequence[Slo], models: Sequence[str], *, rate_per_s: float, wall_s: float
) -> StreamPoint | None:
    """The measures of the known requests of a probe that ended at `wall_s`; None without streamed answers."""
    if not record.streamed:
        return None
    streams = record.where(np.greater(record.parts, 0))
    ended = streams.ended_at(wall_s)
    ttft_ms = at_least_ms(record.of_streaming_models(), "ttft", wall_s)
    values_ms = {"ttft": ttft_ms, "itl": ended.itl_ms(), "gap": ended.gaps_ms()}
    figures = {
        f"{measure}_{name}": finite(percentile(values, share))
        for measure, values in values_ms.items()
        for name, share in _PERCENTILES.items()
    }
    sent_s = max(min(float(record.intended_s[-1]), wall_s), 1e-3)
    running_s, share = _meanwhile(streams, sent_s, wall_s)
    kept = _within_limits(record, slos, models, wall_s)
    attainment = float(kept.mean()) if len(kept) else 0.0
    return StreamPoint(
        **figures,
        gap_max_ms=finite(float(values_ms["gap"].max())) if len(ended) else None,
        parts=int(streams.parts.sum()),
        parts_per_s=float(streams.parts @ share) / sent_s,
        at_once=float(running_s.sum()) / sent_s,
        cancelled=int(np.equal(record.status, CANCELLED).sum()),
        goodput_per_s=attainment * rate_per_s,
        attainment=attainment,
    )


def describe_streams(point: Point) -> str:
    """`148/s at 1.9/s, 5.2 streams a step; ttft p50 210 ms, p99 0.9 s; ...`; empty where answers come at once."""
    streaming, generation = point.streaming, point.load.generation if point.load else None
    if streaming is None:
        return ""
    busy = [f"{streaming.parts_per_s:,.0f}/s at {format_rate(point.rate_per_s)}"]
    if generation and generation.batch_per_step is not None:
        busy.append(f"{generation.batch_per_step:.1f} streams a step")
    else:
        busy.append(f"{streaming.at_once:.1f} streams at once")
    if generation and generation.waiting_max is not None:
        busy.append(f"at most {generation.waiting_max:,.0f} waiting")
    phrases = [", ".join(busy)]
    for measure in ("ttft", "itl", "gap"):
        values_ms = ((name, getattr(streaming, f"{measure}_{name}_ms")) for name in ("p50", "p99"))
        if values := [f"{name} {about_ms(value_ms)}" for name, value_ms in values_ms if value_ms is not None]:
            phrases.append(f"{measure} {', '.join(values)}")
    phrases.append(f"{about(streaming.goodput_per_s)}/s within all limits ({streaming.attainment * 100:.1f} %)")
    if streaming.cancelled:
        phrases.append(f"{streaming.cancelled:,} cancelled")
    return "; ".join(phrases)


def _within_limits(record: Record, slos: Sequence[Slo], models: Sequence[str], wall_s: float) -> NDArray[np.bool_]:
    """Which of the requests that had ended by `wall_s`, or were late by then, kept every limit that is for them; a
    failed one kept none."""
    ended = np.not_equal(record.status[record.attempted], UNANSWERED)
    late = np.zeros(len(ended), np.bool_)
    for slo in slos:
        if slo.limit_ms is not None:
            over = at_least_ms(record, slo.measure, wall_s) > slo.limit_ms
            late |= over & requests_of(slo, models, record) & (ended | bool(slo.request_limit_ms))
    return (record.ok[record.attempted] & ~late)[ended | late]


def _meanwhile(streams: Record, sent_s: float, wall_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How long each answer was coming in until `sent_s`, and the share of its parts that had come by then."""
    ends_s = np.where(np.isnan(streams.done_s), wall_s, streams.done_s)
    took_s = np.maximum(ends_s - streams.first_s, 1e-9)
    running_s = np.clip(np.minimum(ends_s, sent_s) - streams.first_s, 0.0, None)
    return running_s, running_s / took_s
