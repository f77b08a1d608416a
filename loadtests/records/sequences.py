"""What a probe shows of sequences of requests, to models that keep state."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SequencePoint:
    """The gap percentiles are over sequences, of the slowest request of each: from when it was due until its answer."""

    requests_mean: float
    """Of each sequence."""
    requests_per_s: float
    """Of all sequences together, at the rate that was asked for."""
    length_s: float
    """From the first request to the last when they are due, in the mean."""
    at_once: float
    """Sequences that run at the same time at this rate: from when the first request of each is due until its last is
    answered; without a good answer until it is due."""
    gap_p50_ms: float | None
    gap_p90_ms: float | None
    gap_p99_ms: float | None
    gap_max_ms: float | None
