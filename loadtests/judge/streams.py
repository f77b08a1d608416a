"""What a probe showed of answers that come in parts: their own latencies, parts per second, goodput."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from loadtests.judge.sample import requests_of
from loadtests.records.point import StreamPoint
from loadtests.records.record import CANCELLED, Record, percentile
from loadtests.slo import Measure, Slo

_PERCENTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}


def stream_point(
    record: Record, slos: Sequence[Slo], models: Sequence[str], *, rate_per_s: float, wall_s: float
) -> StreamPoint | None:
    """Of the requests that are known of a probe that ended at `wall_s`; None where no answer came in parts."""
    if not record.streamed:
        return None
    streams = record.where(np.greater(record.parts, 0))
    ended = streams.known_at(wall_s, 0.0, "itl")
    values_ms = {"ttft": streams.ttft_ms(), "itl": ended.itl_ms(), "gap": ended.gaps_ms()}
    figures = {
        f"{measure}_{name}": _finite(percentile(values, share))
        for measure, values in values_ms.items()
        for name, share in _PERCENTILES.items()
    }
    sent_s = max(min(float(record.intended_s[-1]), wall_s), 1e-3)
    running_s, share = _meanwhile(streams, sent_s, wall_s)
    kept = within_limits(record.known_at(wall_s, 0.0, "itl"), slos, models)
    attainment = float(kept.mean()) if len(kept) else 0.0
    return StreamPoint(
        **figures,
        gap_max_ms=_finite(float(values_ms["gap"].max())) if len(ended) else None,
        parts=int(streams.parts.sum()),
        parts_per_s=float(streams.parts @ share) / sent_s,
        at_once=float(running_s.sum()) / sent_s,
        cancelled=int(np.equal(record.status, CANCELLED).sum()),
        goodput_per_s=attainment * rate_per_s,
        attainment=attainment,
    )


def within_limits(record: Record, slos: Sequence[Slo], models: Sequence[str]) -> NDArray[np.bool_]:
    """Which of the attempted requests kept every limit that is for them; a failed one kept none."""
    kept = record.ok[record.attempted]
    values_ms = {measure: record.measured_ms(measure) for measure in get_args(Measure)}
    for slo in slos:
        if slo.limit_ms is not None:
            late = values_ms[slo.measure] > slo.limit_ms
            kept &= ~(late & requests_of(slo, models, record))
    return kept


def _meanwhile(streams: Record, sent_s: float, wall_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How long each answer was coming in until `sent_s`, and the share of its parts that had come by then."""
    ends_s = np.where(np.isnan(streams.done_s), wall_s, streams.done_s)
    took_s = np.maximum(ends_s - streams.first_s, 1e-9)
    running_s = np.clip(np.minimum(ends_s, sent_s) - streams.first_s, 0.0, None)
    return running_s, running_s / took_s


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
