"""A histogram of a client's requests for Prometheus; rates, errors and percentiles follow from it.

Triton's own metrics have no latency distribution, and none could see the network or a refused connection.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from .errors import InferenceError

T = TypeVar("T")
NAME = "fathom_client_request_duration_seconds"
# 0.5 ms to 10 s in steps of 1.3 to 2, with the round numbers that objectives use.
BUCKETS_S = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0),
)


class Metrics:
    """The histogram, in `registry` (prometheus_client's own by default). Make one per process.

    Its labels are `model` and `status`: OK, or the error's `label`. Raises ImportError with what to install
    where prometheus-client is missing.
    """

    def __init__(self, registry: Any = None) -> None:
        try:
            import prometheus_client
        except ImportError:
            raise ImportError("client metrics need prometheus-client: pip install prometheus-client") from None
        registry = prometheus_client.REGISTRY if registry is None else registry
        self._histogram = prometheus_client.Histogram(
            NAME,
            "From the call to its answer or error, retries included.",
            ("model", "status"),
            buckets=BUCKETS_S,
            registry=registry,
        )

    def observe(self, model: str, status: str, seconds: float) -> None:
        """Count one request."""
        self._histogram.labels(model, status).observe(seconds)

    async def counted(self, model: str, request: Coroutine[Any, Any, T]) -> T:
        """Make a request, and count it by its time and the error it ends with."""
        with self.counting(model):
            return await request

    @contextlib.contextmanager
    def counting(self, model: str) -> Iterator[None]:
        """Count what happens in the block as one request."""
        start = time.perf_counter()
        status = "OK"
        try:
            yield
        except BaseException as error:
            status = error.label if isinstance(error, InferenceError) else "Cancelled"
            raise
        finally:
            self.observe(model, status, time.perf_counter() - start)
