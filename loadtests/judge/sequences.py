"""What a probe showed of sequences: how many ran at once, and the slowest request of each."""

from __future__ import annotations

import numpy as np

from loadtests.records.point import Point
from loadtests.records.record import Record, finite, percentile
from loadtests.records.sequences import SequencePoint
from loadtests.slo import about, about_ms, format_rate


def sequence_point(record: Record, rate_per_s: float) -> SequencePoint | None:
    """Of those that are known; None where each request is one by itself."""
    own = record.where(record.attempted & np.greater(record.requests, 0))
    if not len(own):
        return None
    share_per_s = rate_per_s * len(own) / int(record.attempted.sum())
    slowest_ms = own.gaps_ms()
    p50, p90, p99, most = (finite(percentile(slowest_ms, share)) for share in (0.5, 0.9, 0.99, 1.0))
    requests, length_s = float(own.requests.mean()), float((own.intended_s - own.begun_s).mean())
    ends_s = np.where(own.ok, own.done_s, own.intended_s)
    at_once = share_per_s * float((ends_s - own.begun_s).mean())
    return SequencePoint(requests, share_per_s * requests, length_s, at_once, p50, p90, p99, most)


def describe_sequences(point: Point) -> str:
    """`at 12/s, 36 run at once and send 150 requests/s, 12.5 each in 3 s; slowest request of each: p50 9 ms`;
    empty where requests are single ones."""
    found = point.sequences
    if found is None:
        return ""
    text = f"at {format_rate(point.rate_per_s)}, {about(found.at_once)} run at once and send "
    text += f"{about(found.requests_per_s)} requests/s, {about(found.requests_mean)} each in {found.length_s:.2g} s"
    values = (("p50", found.gap_p50_ms), ("p99", found.gap_p99_ms))
    slowest = ", ".join(f"{name} {about_ms(value_ms)}" for name, value_ms in values if value_ms is not None)
    return text + (f"; slowest request of each: {slowest}" if slowest else "")
