"""What queueing theory says about a single first-come-first-served server, to hold measurements against."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np


def sojourn_s(arrivals_s: np.ndarray, service_s: np.ndarray) -> np.ndarray:
    """Exact time in the system of each request: departure i = max(arrival i, departure i-1) + service i."""
    total = np.cumsum(service_s)
    return total + np.maximum.accumulate(arrivals_s - (total - service_s)) - arrivals_s


def two_servers_s(arrivals_s: np.ndarray, service_s: float) -> np.ndarray:
    """Time in the system of each request where two servers take from one queue."""
    free_s, latencies_s = [0.0, 0.0], np.empty(len(arrivals_s))
    for index, arrival_s in enumerate(arrivals_s.tolist()):
        first = 0 if free_s[0] <= free_s[1] else 1
        free_s[first] = max(arrival_s, free_s[first]) + service_s
        latencies_s[index] = free_s[first] - arrival_s
    return latencies_s


def in_batches_s(arrivals_s: np.ndarray, fixed_s: float, per_request_s: float, most: int) -> np.ndarray:
    """Time in the system where whatever waits, up to `most`, is served as one batch."""
    latencies_s, now_s, first = np.empty(len(arrivals_s)), 0.0, 0
    while first < len(arrivals_s):
        now_s = max(now_s, arrivals_s[first])
        end = min(int(np.searchsorted(arrivals_s, now_s, side="right")), first + most)
        now_s += fixed_s + per_request_s * (end - first)
        latencies_s[first:end] = now_s - arrivals_s[first:end]
        first = end
    return latencies_s


def freezing_s(arrivals_s: np.ndarray, service_s: float, every_s: float, freeze_s: float) -> np.ndarray:
    """Time in the system where the server stands still for `freeze_s` in every `every_s`, from a moment that differs
    from schedule to schedule."""
    phase_s = float(np.random.default_rng(int(arrivals_s[-1] * 1e9)).uniform(0, every_s))
    works_s = every_s - freeze_s
    periods, within_s = np.divmod(arrivals_s + phase_s, every_s)
    came_s = periods * works_s + np.minimum(within_s, works_s)  # by a clock that runs while the server works
    done_s = came_s + sojourn_s(came_s, np.full(len(arrivals_s), service_s))
    return done_s + np.ceil(done_s / works_s - 1) * freeze_s - phase_s - arrivals_s


def simulated_capacity_per_s(
    server: Callable[[np.ndarray], np.ndarray], limit_s: float, share: float, low: float, high: float
) -> float:
    """The arrival rate at which `share` of 300,000 requests take at most the limit, to within 1 %."""
    unit_s = np.cumsum(np.random.default_rng(11).exponential(1.0, 300_000))
    while high / low > 1.005:
        middle = math.sqrt(low * high)
        holds = np.mean(server(unit_s / middle) <= limit_s) >= share
        low, high = (middle, high) if holds else (low, middle)
    return math.sqrt(low * high)


def mm1_percentile_s(rate_per_s: float, service_s: float, share: float) -> float:
    """M/M/1: the time in the system is exponential with rate 1/service - arrival rate."""
    return -math.log(1 - share) / (1 / service_s - rate_per_s)


def mm1_capacity_per_s(service_s: float, limit_s: float, share: float) -> float:
    """The arrival rate at which `share` of the requests take at most the limit."""
    return 1 / service_s + math.log(1 - share) / limit_s


def mmc_waits_longer(wait_s: float, rate_per_s: float, service_s: float, servers: int) -> float:
    """M/M/c: P[waiting time > t], by Erlang's C formula (1917)."""
    load = rate_per_s * service_s
    blocked = 1.0  # Erlang B, by its recursion
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    all_busy = blocked / (1 - load / servers * (1 - blocked))
    return all_busy * math.exp(-(servers / service_s - rate_per_s) * wait_s)


def mmc_capacity_per_s(service_s: float, servers: int, wait_s: float, share: float) -> float:
    """The arrival rate at which `share` of the requests wait at most so long."""
    low, high = 0.0, servers / service_s
    for _ in range(40):
        middle = (low + high) / 2
        within = mmc_waits_longer(wait_s, middle, service_s, servers) <= 1 - share
        low, high = (middle, high) if within else (low, middle)
    return low


def md1_wait_at_most(wait_s: float, rate_per_s: float, service_s: float) -> float:
    """M/D/1: P[waiting time <= t] (Erlang 1909). The terms of the alternating sum cancel: hence the 200 digits."""
    with localcontext(prec=200):
        wait, rate, service = Decimal(wait_s), Decimal(rate_per_s), Decimal(service_s)
        total, factorial = Decimal(0), Decimal(1)
        for k in range(int(wait / service) + 1):
            factorial *= k or 1
            power = rate * (k * service - wait)
            total += (power**k if k else 1) / factorial * (-power).exp()
        return float((1 - rate * service) * total)


def md1_percentile_s(rate_per_s: float, service_s: float, share: float) -> float:
    """The time in the system that `share` of the requests do not exceed."""
    low, high = 0.0, 100 * service_s
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if md1_wait_at_most(middle, rate_per_s, service_s) >= share else (middle, high)
    return high + service_s


def md1_capacity_per_s(service_s: float, limit_s: float, share: float) -> float:
    """The arrival rate at which `share` of the requests take at most the limit."""
    low, high = 0.0, 1 / service_s
    for _ in range(40):
        middle = (low + high) / 2
        within = md1_wait_at_most(limit_s - service_s, middle, service_s) >= share
        low, high = (middle, high) if within else (low, middle)
    return low
