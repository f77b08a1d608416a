"""Hand the caller's trace (OpenTelemetry) on, so that Triton's spans hang below it: `Client(headers=trace_context)`."""

from __future__ import annotations

from collections.abc import Mapping


def trace_context() -> Mapping[str, str]:
    """The W3C headers of the span that is current when a request is made; empty where there is none.

    Raises ImportError with what to install where opentelemetry-api is missing.
    """
    try:
        from opentelemetry import propagate
    except ImportError:
        raise ImportError("trace context needs opentelemetry-api: pip install opentelemetry-api") from None
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers
