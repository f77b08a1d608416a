"""A quick look at latency: one request again and again, a fixed number in flight (a closed loop, so no capacity)."""

from __future__ import annotations

import asyncio
import collections
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clients import AsyncClient, DeadlineExceededError, InferenceError, UnreachableError
from loadtests.records.record import percentile
from loadtests.slo import about_ms

SHOWN = (0.5, 0.9, 0.99)
_GONE = 3
"""After so many requests in a row without an answer, and as many as are in flight, the server counts as gone."""


@dataclass(frozen=True)
class Latencies:
    """The measured latencies; errors are counted by kind and have none."""

    latencies_ms: np.ndarray[Any, Any]
    elapsed_s: float
    concurrency: int
    errors: Mapping[str, int]
    first_error: str
    interrupted: bool = False
    """By Ctrl-C; the rest was not sent."""
    given_up: bool = False
    """After requests in a row that nobody answered; the rest was not sent."""

    @property
    def requests(self) -> int:
        """All that were sent."""
        return len(self.latencies_ms) + sum(self.errors.values())

    @property
    def slo(self) -> str:
        """The SLO that a search may begin with."""
        return generous_slo(percentile(self.latencies_ms, 0.5) if len(self.latencies_ms) else 0.0)

    def sentence(self) -> str:
        """`1,000 requests, 8 at a time: p50 1.24 ms, p90 1.9 ms, p99 3.11 ms, 5,120/s`."""
        text = f"{self.requests:,} requests, {self.concurrency} at a time: "
        if len(self.latencies_ms):
            ps = [f"p{share * 100:g} {about_ms(percentile(self.latencies_ms, share))}" for share in SHOWN]
            text += f"{', '.join(ps)}, {len(self.latencies_ms) / self.elapsed_s:,.0f}/s"
        if self.errors:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.errors.items())
            text += f"{'; ' if len(self.latencies_ms) else ''}failed: {kinds} ({self.first_error})"
        if self.interrupted:
            text += "; interrupted"
        if self.given_up:
            text += "; stopped, because the server no longer answers"
        return text

    def as_json(self) -> dict[str, Any]:
        """The result as JSON."""
        shown = {f"p{share * 100:g}_ms": round(percentile(self.latencies_ms, share), 4) for share in SHOWN}
        return {
            "requests": self.requests,
            "concurrency": self.concurrency,
            **(shown if len(self.latencies_ms) else dict.fromkeys(shown)),
            "rate_per_s": round(len(self.latencies_ms) / self.elapsed_s, 2),
            "errors": dict(self.errors),
            "given_up": self.given_up,
            "interrupted": self.interrupted,
            "loop": "closed",
        }


def measure(
    server: str, model: str, inputs: Mapping[str, Any], *, requests: int, concurrency: int, **options: Any
) -> Latencies:
    """Send `requests` of them, `concurrency` in flight, after one that does not count. `options` are AsyncClient's.

    Ctrl-C ends it with what was measured until then.
    """
    taken = _Taken(min(concurrency, requests))
    try:
        asyncio.run(_measure(server, model, inputs, requests, taken, options))
    except KeyboardInterrupt:
        if not (taken.latencies_ms or taken.errors):
            raise
        return taken.result(interrupted=True)
    return taken.result(given_up=taken.requests < requests)


def generous_slo(latency_ms: float) -> str:
    """An SLO to begin with: ten times the latency of one request, 50 ms at least, rounded up to 1, 2 or 5 times a power
    of ten."""
    wanted_ms = max(50.0, 10 * latency_ms)
    power = 10.0 ** math.floor(math.log10(wanted_ms))
    return f"p99={next(step * power for step in (1, 2, 5, 10) if step * power >= wanted_ms):g}ms"


@dataclass
class _Taken:
    """The measurements so far."""

    concurrency: int
    latencies_ms: list[float] = field(default_factory=list)
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    first_error: str = ""
    began_s: float = 0.0
    requests: int = 0
    """That were sent."""

    def result(self, **ending: bool) -> Latencies:
        elapsed_s = time.perf_counter() - self.began_s
        return Latencies(
            np.array(self.latencies_ms), elapsed_s, self.concurrency, self.errors, self.first_error, **ending
        )


async def _measure(
    server: str, name: str, inputs: Mapping[str, Any], requests: int, taken: _Taken, options: Mapping[str, Any]
) -> None:
    in_vain = 0
    async with AsyncClient(server, **options) as client:
        model = await client.model(name)
        await model(inputs)

        async def keep_sending() -> None:
            nonlocal in_vain
            while in_vain < max(taken.concurrency, _GONE) and taken.requests < requests:
                taken.requests += 1
                start = time.perf_counter()
                try:
                    await model(inputs)
                except InferenceError as error:
                    taken.errors[error.label] += 1
                    taken.first_error = taken.first_error or str(error)
                    in_vain = in_vain + 1 if isinstance(error, DeadlineExceededError | UnreachableError) else 0
                else:
                    in_vain = 0
                    taken.latencies_ms.append((time.perf_counter() - start) * 1e3)

        taken.began_s = time.perf_counter()
        await asyncio.gather(*(keep_sending() for _ in range(taken.concurrency)))
