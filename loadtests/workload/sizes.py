"""The sizes of requests, and how latency depends on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtests.records.point import SizePoint
from loadtests.records.record import Floats, percentile
from loadtests.target.parameters import Payload, requests_in

_UNEQUAL = 2.0
"""The largest request has at least so many times the bytes of the median one where sizes are worth a table."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a pool of requests, in bytes of input."""

    requests: int
    median_bytes: int
    p90_bytes: int
    largest_bytes: int

    @classmethod
    def of(cls, sizes: NDArray[np.int64]) -> Sizes:
        """Nearest-rank percentiles."""
        median, p90, largest = (int(percentile(sizes.astype(np.float64), share)) for share in (0.5, 0.9, 1.0))
        return cls(len(sizes), median, p90, largest)


def input_bytes(payloads: Sequence[Payload]) -> NDArray[np.int64]:
    """The bytes of all inputs of each encoded ModelInferRequest, or of each sequence, without names and shapes."""
    from tritonclient.grpc import service_pb2

    parse = service_pb2.ModelInferRequest.FromString
    return np.array(
        [
            sum(len(raw) for each in requests_in(payload) for raw in parse(each).raw_input_contents)
            for payload in payloads
        ],
        np.int64,
    )


def by_size(model: str, latencies_ms: Floats, sizes: NDArray[np.int64], pool: Sizes) -> tuple[SizePoint, ...]:
    """Latencies of the requests up to the median size of the pool, up to its p90, and above; empty where all are about
    equally large."""
    if pool.largest_bytes < _UNEQUAL * pool.median_bytes:
        return ()
    classes, above = [], -1
    for up_to in sorted({pool.median_bytes, pool.p90_bytes, pool.largest_bytes}):
        own_ms = latencies_ms[(sizes > above) & (sizes <= up_to)]
        p50_ms, p99_ms = (percentile(own_ms, share) for share in (0.5, 0.99))
        shown = (value if math.isfinite(value) else None for value in (p50_ms, p99_ms))
        classes.append(SizePoint(model, up_to, len(own_ms), *shown))
        above = up_to
    return tuple(classes)


def format_bytes(size: int) -> str:
    """`48 B`, `4.2 kB`, `1.3 MB`."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e3:.3g} kB" if size < 999_500 else f"{size / 1e6:.3g} MB"
