"""The requests since the present rate began, over all generators, and the verdict on them: what a live panel shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from loadtests.batch import Batch, unanswered
from loadtests.job import Outcome
from loadtests.judging import make_point
from loadtests.point import Point, Probe
from loadtests.record import Record
from loadtests.slo import Slo, loosest_limit_ms
from loadtests.split import merge

MOST_REQUESTS = 100_000
_CPU_BATCHES = 240
"""Of a quarter of a second: the generator's CPU is that of the last minute."""


@dataclass
class _Source:
    """One generator."""

    since_s: float = 0.0
    rate_per_s: float = 0.0
    records: list[Record] = field(default_factory=list)
    waiting: Record = field(default_factory=lambda: unanswered([]))
    at_s: float = 0.0
    cpu: list[tuple[float, float]] = field(default_factory=list)


class Window:
    """Filled with batches; a change of the rate empties it. The oldest requests beyond 100,000 are forgotten."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        self._messages: dict[str, str] = {}

    def add(self, batch: Batch, source: str = "1") -> None:
        """`source` names the generator."""
        known = self._sources.setdefault(source, _Source())
        if batch.since_s > known.since_s or batch.rate_per_s != known.rate_per_s:
            self._sources[source] = known = _Source(batch.since_s, batch.rate_per_s)
            self._messages = {}
        fresh = batch.record.where(batch.record.intended_s >= known.since_s)
        if len(fresh):
            known.records.append(fresh)
        known.waiting = batch.waiting.where(batch.waiting.intended_s >= known.since_s)
        known.at_s = batch.at_s
        known.cpu = [*known.cpu[-_CPU_BATCHES:], (batch.cpu_s, batch.wall_s)]
        self._messages = {**batch.messages, **self._messages}
        most = MOST_REQUESTS // len(self._sources)
        while sum(map(len, known.records)) > most and len(known.records) > 1:
            known.since_s = float(known.records.pop(0).intended_s[-1])

    def forget(self, source: str) -> None:
        """A generator that is gone."""
        self._sources.pop(source, None)

    @property
    def rate_per_s(self) -> float:
        """Asked for, over all generators."""
        return sum(source.rate_per_s for source in self._sources.values())

    @property
    def names(self) -> list[str]:
        """Of the generators, in the order of `Point.workers`."""
        return list(self._sources)

    def point(self, slos: Sequence[Slo], *, seed: int = 0, models: Sequence[str] = ()) -> Point | None:
        """What is known by now, with its verdict; None when nothing is known yet. `models` are those of a mix.

        Of a request younger than the largest latency limit it is not yet known whether it is late. Those are left out,
        or only the quick ones would count.
        """
        found = []
        for source in self._sources.values():
            everything = Record.merge([*source.records, source.waiting]) if source.records else source.waiting
            known = everything.known_at(source.at_s, loosest_limit_ms(slos) / 1e3)
            relative = Record(
                known.intended_s - source.since_s, known.sent_s - source.since_s, known.done_s - source.since_s,
                known.status, known.model,
            )  # fmt: skip
            relative = relative.where(np.argsort(relative.intended_s, kind="stable"))
            cpu_s, wall_s = (sum(values) for values in zip(*source.cpu, strict=True))
            found.append((relative, Outcome(wall_s, cpu_s, "", source.since_s)))
        if not found or not any(len(record) for record, _ in found):
            return None
        record, outcome = merge(found)
        outcome = Outcome(**{**vars(outcome), "messages": self._messages})
        probe = Probe(0, "double", self.rate_per_s, len(record), seed)
        return make_point(probe, record, outcome, slos, models=models)
