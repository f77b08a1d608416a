"""The requests since the current rate began, over all generators, and the verdict on them, for the live panel."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from loadtests.generator.messages import Batch, unanswered
from loadtests.generator.pool import merge
from loadtests.judge.judge import evaluate
from loadtests.records.point import Point, Probe
from loadtests.records.record import Outcome, Record
from loadtests.slo import Slo, loosest_limit_ms

MOST_REQUESTS = 100_000
_CPU_BATCHES = 240
"""Of a quarter of a second: the generator's CPU is that of the last minute."""
_LONGEST_WAY_S = 3.0
"""A batch reaches the window sooner; one that seems to take longer comes from a machine whose clock differs."""


@dataclass
class _Source:
    """One generator. Times are those of its machine's clock, which is `behind_s` behind ours."""

    since_s: float = 0.0
    rate_per_s: float = 0.0
    records: list[Record] = field(default_factory=list)
    waiting: Record = field(default_factory=lambda: unanswered([]))
    at_s: float = 0.0
    final: bool = False
    behind_s: float = math.inf
    cpu: list[tuple[float, float]] = field(default_factory=list)

    def ours_s(self, when_s: float) -> float:
        """A time of its clock on our clock."""
        return when_s + (self.behind_s if abs(self.behind_s) > _LONGEST_WAY_S else 0.0)


class Window:
    """Filled with batches; a change of the rate empties it. The oldest requests beyond 100,000 are forgotten.

    A generator that has left keeps its requests: they were answered at this rate.
    """

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        self._messages: dict[str, str] = {}

    def add(self, batch: Batch, source: str = "1") -> None:
        """`source` names the generator."""
        known = self._sources.setdefault(source, _Source())
        if batch.since_s > known.since_s:
            self._sources[source] = known = _Source(batch.since_s, behind_s=known.behind_s)
            self._messages = {}
        known.rate_per_s = batch.rate_per_s
        fresh = batch.record.where(batch.record.intended_s >= known.since_s)
        if len(fresh):
            known.records.append(fresh)
        known.waiting = batch.waiting.where(batch.waiting.intended_s >= known.since_s)
        known.at_s, known.final = batch.at_s, batch.final
        known.behind_s = min(known.behind_s, time.time() - batch.at_s)
        known.cpu = [*known.cpu[-_CPU_BATCHES:], (batch.cpu_s, batch.wall_s)]
        self._messages = {**batch.messages, **self._messages}
        most = MOST_REQUESTS // len(self._sources)
        while sum(map(len, known.records)) > most and len(known.records) > 1:
            known.since_s = float(known.records.pop(0).intended_s[-1])

    def forget(self, source: str) -> None:
        """A generator that left before the rate changed."""
        self._sources.pop(source, None)

    def point(
        self, slos: Sequence[Slo], *, seed: int = 0, models: Sequence[str] = (), left: Mapping[str, str] | None = None
    ) -> Point | None:
        """The requests so far with their verdict; None without any. `models` are those of a mix.

        Of a request younger than the largest latency limit it is not yet known whether it is late. Those are left out,
        or only the quick ones would count. `left` are generators that are not here any more. Where it says how one was
        lost, requests went with it whose fate nobody knows: those it reported still count, but the verdict is invalid.
        """
        left = left or {}
        found = []
        began_s = min((source.ours_s(source.since_s) for source in self._sources.values()), default=0.0)
        for name, source in self._sources.items():
            ended = Record.merge(source.records) if source.records else unanswered([])
            overdue = source.waiting.known_at(source.at_s, loosest_limit_ms(slos) / 1e3)
            if not (source.final or left.get(name)):
                ended = ended.known_at(source.at_s, loosest_limit_ms(slos) / 1e3)
            known = Record.merge([ended, overdue])
            zero_s = source.since_s - (source.ours_s(source.since_s) - began_s)
            relative = known.since(zero_s)
            relative = relative.where(np.argsort(relative.intended_s, kind="stable"))
            cpu_s, wall_s = (sum(values) for values in zip(*source.cpu, strict=True))
            found.append((relative, Outcome(wall_s, cpu_s, "", source.since_s)))
        silent = [name for name, how in left.items() if how and name not in self._sources]
        found += [(unanswered([]), Outcome(0.0, 0.0, "", began_s)) for _ in silent]
        lost = {
            number: f"({name}) {left[name]}" for number, name in enumerate([*self._sources, *silent]) if left.get(name)
        }
        if not any(len(record) for record, _ in found):
            return None
        record, outcome = merge(found, lost=lost)
        now_s = max((source.ours_s(source.at_s) for source in self._sources.values()), default=began_s)
        outcome = replace(outcome, messages=self._messages, wall_s=now_s - began_s)
        probe = Probe(0, "double", self._rate_per_s(left), len(record), seed)
        return evaluate(probe, record, outcome, slos, models=models)

    def _rate_per_s(self, left: Mapping[str, str]) -> float:
        """Asked for: of the generators that are here, or of those that left last."""
        here = [source for name, source in self._sources.items() if name not in left]
        last_s = max(source.ours_s(source.at_s) for source in self._sources.values())
        late = [source for source in self._sources.values() if source.ours_s(source.at_s) > last_s - _LONGEST_WAY_S]
        return sum(source.rate_per_s for source in here or late)
