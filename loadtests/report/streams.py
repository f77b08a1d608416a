"""What a probe showed of answers that come in parts, in a sentence."""

from __future__ import annotations

from loadtests.records.point import Point
from loadtests.slo import about_ms, format_rate


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
    told = [", ".join(busy)]
    for measure in ("ttft", "itl", "gap"):
        values_ms = ((name, getattr(streaming, f"{measure}_{name}_ms")) for name in ("p50", "p99"))
        if values := [f"{name} {about_ms(value_ms)}" for name, value_ms in values_ms if value_ms is not None]:
            told.append(f"{measure} {', '.join(values)}")
    told.append(f"{streaming.goodput_per_s:.3g}/s inside all limits ({streaming.attainment * 100:.1f} %)")
    if streaming.cancelled:
        told.append(f"{streaming.cancelled:,} cancelled")
    return "; ".join(told)
