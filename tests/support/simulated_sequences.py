"""A search against a server that keeps state, computed instead of run: sequences at a fixed interval, one request at a
time, each for the same time, first come first served."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from simulated import OVERHEAD_S, drive

from loadtests.judge.judge import evaluate
from loadtests.records.point import Point, Probe
from loadtests.records.record import NOT_SENT, UNANSWERED, Outcome, Record
from loadtests.search.budget import Plan
from loadtests.search.confirmation import early_stop_threshold
from loadtests.slo import Slo
from loadtests.workload.arrivals import POISSON
from loadtests.workload.schedule import early_enough, payload_choices
from loadtests.workload.sequences import Sequences


@dataclass(frozen=True)
class StatefulServer:
    """What is asked of it, and how long each request takes."""

    sequences: Sequences
    service_s: float

    def record(self, rate_per_s: float, count: int, seed: int) -> Record:
        """As many sequences, ordered by their last requests, all answered."""
        starts_s = POISSON.at_rate(rate_per_s, seed=seed, count=count)
        choices = payload_choices(count, len(self.sequences.lengths), seed=seed)
        intended_s, choices = self.sequences.ends(starts_s, choices)
        lengths = np.asarray(self.sequences.lengths)[choices]
        rows = np.repeat(np.arange(count), lengths)
        left = np.repeat(np.cumsum(lengths), lengths) - np.arange(1, len(rows) + 1)
        due_s = intended_s[rows] - left * np.asarray(self.sequences.intervals_s)[choices][rows]
        order = np.argsort(due_s, kind="stable")
        turns_s = np.arange(len(rows)) * self.service_s
        done_s = np.empty(len(rows))
        done_s[order] = np.maximum.accumulate(due_s[order] - turns_s) + turns_s + self.service_s
        last, first = np.cumsum(lengths) - 1, np.cumsum(lengths) - lengths
        record = Record(
            intended_s,
            intended_s,
            done_s[last],
            np.zeros(count, np.uint8),
            gap_s=np.maximum.reduceat(done_s - due_s, first),
        )
        return self.sequences.marked(record, choices)

    def probe(self, probe: Probe, slo: Slo) -> Point:
        """As `search.probe` sends and stops it."""
        longest_s, mean_s = float(self.sequences.lengths_s.max()), float(self.sequences.lengths_s.mean())
        assert slo.limit_ms is not None
        filling = int(np.ceil(2 * probe.rate_per_s * longest_s)) + 10
        record = self.record(probe.rate_per_s, probe.requests + filling, probe.seed)
        begin = int(np.searchsorted(record.intended_s, longest_s))
        wanted = record.intended_s[begin : begin + probe.requests]
        end = begin + early_enough(wanted, probe.until_s, slo.limit_ms / 1e3)
        record = record.where(np.arange(begin, end))
        most = early_stop_threshold(probe, slo, probe.rate_per_s * mean_s)
        late = np.sort(record.done_s[record.measured_ms(slo.measure) > slo.limit_ms])
        wall_s, stopped = float(record.done_s.max()), ""
        if len(late) >= most or wall_s > probe.until_s:
            stopped = "hopeless" if len(late) >= most and late[most - 1] < probe.until_s else "budget"
            wall_s = float(late[most - 1]) if stopped == "hopeless" else probe.until_s
            status = np.where(record.done_s > wall_s, UNANSWERED, 0)
            status[record.intended_s > wall_s] = NOT_SENT
            done_s = np.where(status == 0, record.done_s, np.nan)
            record = Record(
                record.intended_s, record.sent_s, done_s, status.astype(np.uint8), gap_s=record.gap_s,
                begun_s=record.begun_s, requests=record.requests,
            )  # fmt: skip
        return evaluate(probe, record, Outcome(wall_s, 0.0, stopped, 0.0), [slo], took_s=wall_s + OVERHEAD_S)

    def search(self, slo: Slo, budget_s: float, seed: int) -> list[Point]:
        """All points of one search, started at half of what one sequence after the other reaches."""
        start_per_s = 0.5 / self.service_s / float(np.mean(self.sequences.lengths))
        plan = Plan(
            (slo,),
            start_per_s,
            seed,
            budget_s,
            unloaded_s=self.service_s,
            sequence_s=float(self.sequences.lengths_s.mean()),
        )
        return drive(plan, lambda probe: self.probe(probe, slo))
