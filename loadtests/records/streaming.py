"""The streamed answers of a probe, as seen by the generator and by a server that generates text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StreamPoint:
    """What a probe showed of answers that come in parts (tokens); None where nothing was there to measure.

    The percentiles are over requests, one value each: the time to first token (TTFT) from the *intended* time of the
    request, the inter-token latency (ITL), (latency - TTFT) / (parts - 1), and the longest gap between two parts. TTFT
    is of all requests to models that stream, with the wait so far of those that never began; the others are of the
    answers that began and ended.
    """

    ttft_p50_ms: float | None
    ttft_p90_ms: float | None
    ttft_p99_ms: float | None
    itl_p50_ms: float | None
    itl_p90_ms: float | None
    itl_p99_ms: float | None
    gap_p50_ms: float | None
    gap_p90_ms: float | None
    gap_p99_ms: float | None
    gap_max_ms: float | None
    parts: int
    parts_per_s: float
    """Parts that came per second while requests were sent."""
    at_once: float
    """Answers that came in at the same time, on average meanwhile."""
    cancelled: int
    """Streams that ended as cancelled."""
    goodput_per_s: float
    """Requests per second that were inside the limits of all SLOs: their share, of the rate that was asked for."""
    attainment: float
    """That share."""


@dataclass(frozen=True)
class GenerationLoad:
    """A server that generates text, by its own account of the probe; None where it does not say."""

    slots_mean: float | None
    """Answers that were generated at once."""
    slots_max: float | None
    waiting_max: float | None
    """Requests without a slot."""
    batch_per_step: float | None
    """Answers that got a token in the mean step."""
    tokens_per_s: float | None
    cancelled: int | None
    """Answers that nobody waited for any more."""
