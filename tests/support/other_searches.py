"""Searches that others use, on the tables that a race is replayed on; each returns the capacity that it finds.

They are given more than they would have: a probe of theirs shows the capacity of a configuration, and not just the
throughput at one number of clients.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from tuning_replay import DRIFT, PROBES_A_CAPACITY, Table

from loadtests.tuning.space import COMMITTED, Configuration, Value

At = tuple[int, ...]
Search = Callable[[Table, int, np.random.Generator], float]


def random_search(table: Table, probes: int, rng: np.random.Generator) -> float:
    """The best of as many random configurations as these probes can measure."""
    names = list(table.capacity_per_s)
    chosen = [names[at] for at in rng.permutation(len(names))[: max(probes // PROBES_A_CAPACITY, 1)]]
    return table.capacity_per_s[max(chosen, key=lambda each: _seen(table, each, rng))]


_RADIUS, _LEAST_KNOWN = 3.0, 3
"""A step follows from the configurations within this distance, and from so many at least."""
_TRANSLATION = (0.09, 0.3, 1.0)
"""A step's share along an axis that moves by one, two and three places."""
_BEST = 3
"""Configurations that are measured closely in the end, besides the committed one."""


def quick_search(table: Table, probes: int, rng: np.random.Generator) -> float:
    """Model Analyzer's quick search (config_search.md of its 1.58): a hill climb from the smallest values over the
    largest batch in powers of two and the instances, one probe a configuration. The step is the sum of the directions
    to the neighbours, weighted by their gain. The best three and the committed configuration are then swept over the
    concurrency, which measures their capacity. All other knobs keep their committed values.
    """
    walk = _Walk(table, rng)
    left = probes - PROBES_A_CAPACITY * (_BEST + 1)
    home, visited = walk.start, set[At]()
    while home not in visited:
        visited.add(home)
        for at in walk.around(home):
            if len(walk.known) < left:
                walk.measure(at)
        home = walk.step(home)
        if len(walk.known) >= left:
            break
        walk.measure(home)
    best = sorted(walk.known, key=lambda at: -walk.known[at])[:_BEST]
    swept = {walk.named(at) for at in best} | {COMMITTED}
    return table.capacity_per_s[max(swept, key=lambda each: _seen(table, each, rng))]


class _Walk:
    """The places of a table that the walk can reach, by index along each axis, and what it has seen there."""

    def __init__(self, table: Table, rng: np.random.Generator) -> None:
        self._table, self._rng = table, rng
        self._axes: dict[tuple[str, str], list[Value]] = {}
        changes = {change for each in table.capacity_per_s for change in each.changes}
        for model, knobs in table.committed.items():
            for knob in ("instances", "preferred"):
                values = {value for m, k, value in changes if (m, k) == (model, knob)}
                if values:  # without a preferred size batches are as large as they may be
                    largest_last = sorted(values | {knobs[knob]}, key=lambda value: float(value) or math.inf)
                    self._axes[model, knob] = largest_last
        self.start: At = (0,) * len(self._axes)
        self.known: dict[At, float] = {}
        self.measure(self.start)

    def named(self, at: At) -> Configuration:
        values = [(*name, axis[index]) for (name, axis), index in zip(self._axes.items(), at, strict=True)]
        changes = [change for change in values if self._table.committed[change[0]][change[1]] != change[2]]
        return Configuration(tuple(sorted(changes, key=lambda change: change[:2])))

    def measure(self, at: At) -> None:
        self.known.setdefault(at, _seen(self._table, self.named(at), self._rng))

    def around(self, home: At) -> list[At]:
        """The nearest places that are not known, until enough near this one are."""
        near = [
            at
            for at in itertools.product(*(range(len(axis)) for axis in self._axes.values()))
            if 0 < math.dist(at, home) <= _RADIUS and self.named(at) in self._table.capacity_per_s
        ]
        missing = _LEAST_KNOWN - sum(at in self.known for at in near)
        unknown = sorted((at for at in near if at not in self.known), key=lambda at: math.dist(at, home))
        return unknown[: max(missing, 0)]

    def step(self, home: At) -> At:
        """Where the gains of the neighbours point."""
        vector = np.zeros(len(home))
        for at, value in self.known.items():
            if 0 < (distance := math.dist(at, home)) <= _RADIUS:
                gain = (value - self.known[home]) / (value + self.known[home])
                vector += gain * (np.array(at) - home) / distance
        length = float(np.linalg.norm(vector))
        if not length:
            return home
        moves = [int(np.sign(part)) * sum(abs(part) / length >= share for share in _TRANSLATION) for part in vector]
        found = tuple(
            min(max(index + move, 0), len(axis) - 1)
            for index, move, axis in zip(home, moves, self._axes.values(), strict=True)
        )
        return found if self.named(found) in self._table.capacity_per_s else home


def _seen(table: Table, configuration: Configuration, rng: np.random.Generator) -> float:
    return table.capacity_per_s[configuration] * math.exp(rng.normal(0, DRIFT))
