"""When requests are meant to be sent, and what each carries: pure functions of a rate, a length and a seed.

The arrivals never depend on the answers (open loop), so a slow server cannot slow its own test down.

Seeds: probe number k of a run with base seed s uses `probe_seed(s, k)`. Two probes never share arrivals, and the
recorded seed alone repeats a probe.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import BadRequestError

Offsets = NDArray[np.float64]
_ARRIVALS, _CHOICES = 0, 1  # independent random streams of one seed


def probe_seed(base_seed: int, number: int) -> int:
    """The 32-bit seed of probe `number` (from 0): the first word of numpy's SeedSequence([base_seed, number])."""
    return int(np.random.SeedSequence([base_seed, number]).generate_state(1)[0])


def poisson(rate_per_s: float, *, seed: int, count: int | None = None, duration_s: float | None = None) -> Offsets:
    """Independent users: exponential gaps of mean 1/rate, `count` of them or as many as start before `duration_s`."""
    if count is not None:
        _check(rate_per_s, count, duration_s)
        gaps_s: Offsets = seeded(seed).exponential(1 / rate_per_s, count)
        return np.asarray(np.cumsum(gaps_s), dtype=np.float64)
    length_s = _check(rate_per_s, count, duration_s)
    rng = seeded(seed)
    return np.sort(rng.uniform(0, length_s, int(rng.poisson(length_s * rate_per_s))))


def constant(rate_per_s: float, *, count: int | None = None, duration_s: float | None = None) -> Offsets:
    """A metronome: the i-th request at i / rate."""
    length_s = _check(rate_per_s, count, duration_s)
    total = count if count is not None else int(np.ceil(length_s * rate_per_s - 1e-9))
    return np.arange(total, dtype=np.float64) / rate_per_s


def early_enough(offsets_s: Offsets, until_s: float, answer_s: float) -> int:
    """How many come so early that an answer which takes `answer_s` is there until then; those of the first half do."""
    return max(int(np.searchsorted(offsets_s, max(until_s - answer_s, until_s / 2))), 1)


def payload_choices(count: int, pool_size: int, *, seed: int) -> NDArray[np.int32]:
    """Which payload of the pool each request carries: shuffled passes over the whole pool, so all are used equally."""
    if pool_size < 1:
        raise BadRequestError("the payload pool is empty; give at least one encoded request", field="payloads")
    rng = seeded(seed, _CHOICES)
    passes = -(-count // pool_size)
    order: NDArray[np.int32] = np.concatenate([rng.permutation(pool_size) for _ in range(max(passes, 1))]).astype(
        np.int32
    )
    return order[:count]


def seeded(seed: int, stream: int = _ARRIVALS) -> np.random.Generator:
    """An independent random stream of a seed."""
    return np.random.default_rng([seed, stream])


def check_rate(rate_per_s: float) -> None:
    """BadRequestError unless it is a number above zero."""
    if not (np.isfinite(rate_per_s) and rate_per_s > 0):
        raise BadRequestError(f"rate {rate_per_s:g}/s must be a number above zero", field="rate_per_s")


def _check(rate_per_s: float, count: int | None, duration_s: float | None) -> float:
    """The length in seconds, after refusing what cannot be scheduled."""
    check_rate(rate_per_s)
    if (count is None) == (duration_s is None):
        raise BadRequestError("give a schedule either a count or a duration", field="count")
    if count is not None:
        if count < 1:
            raise BadRequestError(f"count {count} must be at least 1", field="count")
        return count / rate_per_s
    if duration_s is None or not (np.isfinite(duration_s) and duration_s > 0):
        raise BadRequestError(f"duration {duration_s} s must be a number above zero", field="duration_s")
    return duration_s
