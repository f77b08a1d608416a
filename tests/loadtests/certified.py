"""What searches of simulated queues certify, as a share of the capacity.

`python tests/loadtests/certified.py [SEARCHES [QUEUE]]`, by default 100 of each. A search that certifies nothing counts
as 0; one that certifies more than the capacity is false. `certified.py forced [SEARCHES [QUEUE]]` tries nothing but
exactly the capacity, in runs of 3, 6, 15 and 40 s, of more queues.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from queueing import md1_capacity_per_s, mm1_capacity_per_s
from simulated import Stalls, run_search, simulate

from loadtests.records.point import Probe
from loadtests.search.certificate import certificates, proven_rate_per_s
from loadtests.search.estimate import estimate
from loadtests.slo import Slo
from loadtests.workload.arrivals import POISSON, Arrivals, parse_arrivals


@dataclass(frozen=True)
class Queue:
    """One row of the table."""

    slo: Slo
    service_s: float
    budget_s: float
    exponential: bool = False
    stalls: Stalls | None = None
    arrivals: Arrivals = POISSON
    simulated_per_s: float | None = None
    """The capacity, where no formula gives it."""

    @cached_property
    def capacity_per_s(self) -> float:
        if self.simulated_per_s:
            return self.simulated_per_s
        formula = mm1_capacity_per_s if self.exponential else md1_capacity_per_s
        return formula(self.service_s, self.slo.limit_ms / 1e3, self.slo.percentile)


SEED = 1000
"""Of the first search: the rule was chosen by looking at searches with small seeds."""
BURSTS = {
    f"gamma:cv={cv:g}, D, {capacity:g}/s, p99=60ms, 180 s": Queue(
        Slo.parse("p99=60ms"), 0.01, 180, arrivals=parse_arrivals(f"gamma:cv={cv:g}"), simulated_per_s=capacity
    )
    for cv, capacity in ((1.5, 33.3), (2, 11.9))
}
"""Capacities of 2,000,000 simulated requests."""
QUEUES = {
    "M/D/1 63/s, p99=60ms, 180 s": Queue(Slo.parse("p99=60ms"), 0.01, 180),
    "M/M/1 108/s, p99=50ms, 180 s": Queue(Slo.parse("p99=50ms"), 0.005, 180, exponential=True),
    "M/D/1 77/s, p99=100ms, 50 s": Queue(Slo.parse("p99=100ms"), 0.010035, 50),
    "M/D/1 886/s, p99=20ms, 180 s": Queue(Slo.parse("p99=20ms"), 0.001, 180),
    "M/D/1 227/s, p99=100ms, 50 s, stalls": Queue(Slo.parse("p99=100ms"), 0.0040014, 50, stalls=Stalls()),
}
FORCED = (
    QUEUES
    | BURSTS
    | {
        "M/D/1 227/s, p99=100ms, 180 s": Queue(Slo.parse("p99=100ms"), 0.0040014, 180),
        "M/M/1 385/s, p90=20ms, 60 s": Queue(Slo.parse("p90=20ms"), 0.002, 60, exponential=True),
        "M/D/1 195/s, p99.9=60ms, 180 s": Queue(Slo.parse("p99.9=60ms"), 0.004, 180),
    }
)
"""Stalls lower the capacity, so a search forced to the formula's is above it."""


def searched(name: str, seed: int) -> tuple[float, float, bool]:
    """What one search certifies and estimates, as shares of the capacity, and whether the interval contains it."""
    queue = FORCED[name]
    points = run_search(
        queue.slo,
        queue.service_s,
        budget_s=queue.budget_s,
        seed=seed,
        exponential=queue.exponential,
        stalls=queue.stalls,
        arrivals=queue.arrivals,
    )
    fitted = estimate(points, [queue.slo])
    estimated_per_s = fitted.rate_per_s if fitted else np.nan
    held = fitted is not None and fitted.low_per_s <= queue.capacity_per_s <= fitted.high_per_s
    return proven_rate_per_s(points) / queue.capacity_per_s, estimated_per_s / queue.capacity_per_s, held


def forced(name: str, seconds: float, seed: int) -> bool:
    """Whether a search is certified that spends its budget on runs at the capacity, of so many seconds each."""
    queue = FORCED[name]
    rng = np.random.default_rng([seed, 9]) if queue.exponential else None
    requests, runs = round(queue.capacity_per_s * seconds), round(queue.budget_s / seconds)
    probes = (Probe(n, "confirm", queue.capacity_per_s, requests, 1000 * seed + n) for n in range(runs))
    points = [
        simulate(probe, queue.slo, queue.service_s, rng, stalls=queue.stalls, arrivals=queue.arrivals)
        for probe in probes
    ]
    return bool(certificates(points))


def print_forced(searches: int = 400, chosen: str = "") -> None:
    print("| at exactly the capacity | searches | runs of 3 s | 6 s | 15 s | 40 s |")
    print("|---|---|---|---|---|---|")
    with ProcessPoolExecutor() as pool:
        for name in (name for name in FORCED if chosen in name):
            lengths_s, seeds = (3, 6, 15, 40), range(searches)
            found = [sum(pool.map(forced, repeat(name), repeat(s), seeds, chunksize=20)) for s in lengths_s]
            print(f"| {name} | {searches} | {' | '.join(map(str, found))} |", flush=True)


def main(searches: int = 100, chosen: str = "") -> None:
    print(
        "| simulated | searches | certified, mean | least of those with one | without one | false | estimated "
        "| interval contains it |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor() as pool:
        for name in (name for name in QUEUES | BURSTS if chosen in name):
            shares = np.array(list(pool.map(searched, repeat(name), range(SEED, SEED + searches), chunksize=4)))
            certified, estimated, held = shares.T
            some = certified[certified > 0]
            print(
                f"| {name} | {searches} | {certified.mean():.2f} | {some.min(initial=1.0):.2f} "
                f"| {np.mean(certified == 0):.1%} | {np.sum(certified > 1)} "
                f"| {np.nanmean(estimated):.3f} +- {np.nanstd(estimated):.3f} | {np.mean(held):.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    words = [int(argument) if argument.isdigit() else argument for argument in sys.argv[1:]]
    if words[:1] == ["forced"]:
        print_forced(*words[1:])
    else:
        main(*words)
