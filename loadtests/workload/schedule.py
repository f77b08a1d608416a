"""When requests are meant to be sent: pure functions of a rate, a length and a seed to offsets in seconds.

The arrivals never depend on the answers (open loop), so a slow server cannot slow its own test down.

Seeds: probe number k of a run with base seed s uses `probe_seed(s, k)`. Two probes never share arrivals, and the
recorded seed alone repeats a probe.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import BadRequestError

Offsets = NDArray[np.float64]
RateAt = Callable[[NDArray[np.float64]], NDArray[np.float64]]
_GRID_STEPS = 100_000
_ARRIVALS, _CHOICES = 0, 1  # independent random streams of one seed


def probe_seed(base_seed: int, number: int) -> int:
    """The 32-bit seed of probe `number` (from 0): the first word of numpy's SeedSequence([base_seed, number])."""
    return int(np.random.SeedSequence([base_seed, number]).generate_state(1)[0])


def poisson(rate_per_s: float, *, seed: int, count: int | None = None, duration_s: float | None = None) -> Offsets:
    """Independent users: exponential gaps of mean 1/rate, `count` of them or as many as start before `duration_s`."""
    if count is not None:
        _check(rate_per_s, count, duration_s)
        gaps_s: Offsets = _rng(seed, _ARRIVALS).exponential(1 / rate_per_s, count)
        return np.asarray(np.cumsum(gaps_s), dtype=np.float64)
    length_s = _check(rate_per_s, count, duration_s)
    return varying(lambda at_s: np.full_like(at_s, rate_per_s), length_s, seed=seed)


def early_enough(offsets_s: Offsets, until_s: float, answer_s: float) -> int:
    """How many come so early that an answer which takes `answer_s` is there until then; those of the first half do."""
    return max(int(np.searchsorted(offsets_s, max(until_s - answer_s, until_s / 2))), 1)


def constant(rate_per_s: float, *, count: int | None = None, duration_s: float | None = None) -> Offsets:
    """A metronome: the i-th request at i / rate."""
    length_s = _check(rate_per_s, count, duration_s)
    total = count if count is not None else int(np.ceil(length_s * rate_per_s - 1e-9))
    return np.arange(total, dtype=np.float64) / rate_per_s


def ramp(from_per_s: float, to_per_s: float, duration_s: float, *, seed: int) -> Offsets:
    """Poisson arrivals whose rate changes linearly."""
    return varying(lambda at_s: from_per_s + (to_per_s - from_per_s) * at_s / duration_s, duration_s, seed=seed)


def step(rates_per_s: list[float], duration_s: float, *, seed: int) -> Offsets:
    """Poisson arrivals at each of the rates in turn, for equal shares of the duration."""
    levels = np.asarray(rates_per_s, dtype=np.float64)
    each_s = duration_s / max(len(levels), 1)
    return varying(lambda at_s: levels[np.minimum((at_s / each_s).astype(int), len(levels) - 1)], duration_s, seed=seed)


def spike(
    base_per_s: float, peak_per_s: float, duration_s: float, *, seed: int, start_s: float, spike_s: float
) -> Offsets:
    """Poisson arrivals at the base rate with one burst at the peak rate."""

    def rate_at(at_s: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where((at_s >= start_s) & (at_s < start_s + spike_s), peak_per_s, base_per_s)

    return varying(rate_at, duration_s, seed=seed)


def sine(low_per_s: float, high_per_s: float, duration_s: float, *, seed: int, period_s: float) -> Offsets:
    """A day and its night: Poisson arrivals between the low rate (at the start) and the high one."""

    def rate_at(at_s: NDArray[np.float64]) -> NDArray[np.float64]:
        wave: Offsets = (1 - np.cos(2 * np.pi * at_s / period_s)) / 2
        return low_per_s + (high_per_s - low_per_s) * wave

    return varying(rate_at, duration_s, seed=seed)


def varying(rate_at: RateAt, duration_s: float, *, seed: int) -> Offsets:
    """Poisson arrivals at a rate that is a function of time: unit-rate arrivals mapped through its running integral."""
    if not duration_s > 0:
        raise BadRequestError(f"duration {duration_s:g} s must be above zero", field="duration_s")
    grid_s = np.linspace(0, duration_s, _GRID_STEPS + 1)
    rates = rate_at((grid_s[:-1] + grid_s[1:]) / 2)
    if not np.all(np.isfinite(rates)) or np.any(rates < 0) or not np.any(rates > 0):
        raise BadRequestError("arrival rates must be finite, not negative, and somewhere above zero", field="rate_at")
    expected = np.concatenate([[0.0], np.cumsum(rates) * duration_s / _GRID_STEPS])
    rng = _rng(seed, _ARRIVALS)
    total = int(rng.poisson(expected[-1]))
    offsets: Offsets = np.interp(np.sort(rng.uniform(0, expected[-1], total)), expected, grid_s)
    return offsets


def payload_choices(count: int, pool_size: int, *, seed: int) -> NDArray[np.int32]:
    """Which payload of the pool each request carries: shuffled passes over the whole pool, so all are used equally."""
    if pool_size < 1:
        raise BadRequestError("the payload pool is empty; give at least one encoded request", field="payloads")
    rng = _rng(seed, _CHOICES)
    passes = -(-count // pool_size)
    order: NDArray[np.int32] = np.concatenate([rng.permutation(pool_size) for _ in range(max(passes, 1))]).astype(
        np.int32
    )
    return order[:count]


def _rng(seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream])


def _check(rate_per_s: float, count: int | None, duration_s: float | None) -> float:
    """The length in seconds, after refusing what cannot be scheduled."""
    if not (np.isfinite(rate_per_s) and rate_per_s > 0):
        raise BadRequestError(f"rate {rate_per_s:g}/s must be a number above zero", field="rate_per_s")
    if (count is None) == (duration_s is None):
        raise BadRequestError("give a schedule either a count or a duration", field="count")
    if count is not None:
        if count < 1:
            raise BadRequestError(f"count {count} must be at least 1", field="count")
        return count / rate_per_s
    if duration_s is None or not (np.isfinite(duration_s) and duration_s > 0):
        raise BadRequestError(f"duration {duration_s} s must be a number above zero", field="duration_s")
    return duration_s
