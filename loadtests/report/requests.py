"""Sentences about the requests that were sent, and how latency depends on their size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtests.records.point import Point, SizePoint
from loadtests.slo import about_ms, format_ms, format_rate, format_s
from loadtests.workload.arrivals import POISSON, describe_arrivals
from loadtests.workload.sizes import format_bytes
from loadtests.workload.variability import Variability

_DECIDES = 1.5
"""The median latency of the largest requests is so many times that of the smallest where their size decides."""


def describe_requests(settings: Mapping[str, Any]) -> str:
    """`248 different ones of up to 4.2 kB (median 48 B, p90 124 B), evaluation data; Poisson arrivals`."""
    models: Mapping[str, Mapping[str, int]] = settings.get("payload_sizes") or {}
    sequences: Mapping[str, Mapping[str, float]] = settings.get("sequences") or {}
    described = [
        (f"{model}: " if len(models) > 1 else "") + _sizes(sizes, sequences.get(model))
        for model, sizes in models.items()
    ]
    what = "; ".join(described) or _different(settings.get("payloads", 0))
    source = f", {settings['payload_source']}" if settings.get("payload_source") else ""
    return f"{what}{source}; {describe_arrivals(settings.get('arrivals', POISSON.name))}{_recorded(settings)}"


def _recorded(settings: Mapping[str, Any]) -> str:
    """How a trace varies, in brackets."""
    recorded = settings.get("arrivals_recorded")
    return f" ({Variability(**recorded).describe()})" if recorded else ""


def _different(requests: int) -> str:
    return "one" if requests == 1 else f"{requests:,} different ones"


def _sizes(sizes: Mapping[str, int], sequences: Mapping[str, float] | None) -> str:
    """`sequences` say how long those of a model that keeps state are."""
    count, largest = _different(sizes["requests"]), format_bytes(sizes["largest_bytes"])
    if sequences is not None:
        mean, longest = format_s(sequences["mean_s"]), format_s(sequences["longest_s"])
        lasting = mean if mean == longest else f"{mean} (longest {longest})"
        apart = format_ms(sequences["interval_s"] * 1e3)
        count = (
            f"{sizes['requests']:,} different sequences of {sequences['requests_mean']:.3g} requests, {apart} apart "
        )
        count += f"in {lasting},"
    if sizes["median_bytes"] == sizes["largest_bytes"]:
        return f"{count} of {largest}"
    median, p90 = format_bytes(sizes["median_bytes"]), format_bytes(sizes["p90_bytes"])
    return f"{count} of up to {largest} (median {median}, p90 {p90})"


def describe_sizes(point: Point) -> str:
    """The latency of small and large requests, where it differs; empty elsewhere."""
    sentences = []
    for model in dict.fromkeys(entry.model for entry in point.sizes):
        classes = [entry for entry in point.sizes if entry.model == model and entry.p50_ms is not None]
        if len(classes) > 1 and (classes[-1].p50_ms or 0) > _DECIDES * (classes[0].p50_ms or 0):
            named = f"{model} " if point.models else ""
            sentences.append(f"{named}requests take " + ", ".join(map(_latencies, classes)))
    return f"at {format_rate(point.rate_per_s)}, {'; '.join(sentences)}" if sentences else ""


def _latencies(entry: SizePoint) -> str:
    p99 = "more than was measured" if entry.p99_ms is None else about_ms(entry.p99_ms)
    return f"{about_ms(entry.p50_ms or 0)} up to {format_bytes(entry.up_to_bytes)} (p99 {p99})"
