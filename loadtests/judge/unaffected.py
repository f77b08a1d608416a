"""The requests of a probe that depend on the server alone: those that no late send affected.

A generator that stands still for a moment (a virtual machine that is given no CPU) sends what was due meanwhile all at
once. These requests are late by the generator's fault, and the burst delays others behind them until the server has
worked it off. Which these are follows from when requests were sent and how many were unanswered. The *verdict* counts
all requests, because somebody's latency must never be left out of a promise. The *estimate* and the choice of the next
rate are about the server, not the generator, so they ignore the affected requests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadtests.judge.backlog import answered_s, backlog_at_arrivals
from loadtests.records.record import Record
from loadtests.slo import Measure


def unaffected_requests(record: Record, allowed_ms: float, measure: Measure = "") -> NDArray[np.bool_]:
    """One entry per attempted request: whether its latency or another measure of it is the server's alone.

    Affected are the requests sent later than allowed; those in flight when the first of them was due, because the
    generator read their answers as late; and those that follow, until one finds no more requests unanswered than the
    last one before, or than is usual in this probe. After the first part of a streamed answer a late reading is no part
    of its time to first token, and next to nothing of its inter-token latency, a mean.
    """
    late = record.send_lags_ms() > allowed_ms
    kept = ~late
    if not late.any():
        return kept
    read_s = answered_s(record) if measure in ("ttft", "itl") else record.done_s
    intended_s, sent_s, done_s = (times[record.attempted] for times in (record.intended_s, record.sent_s, read_s))
    backlog = backlog_at_arrivals(record)
    usual, end = float(np.median(backlog)), 0
    for first in np.flatnonzero(late).tolist():
        if first < end:
            continue
        level = max(usual, backlog[first - 1] if first else 0)
        over = ~late[first:] & (backlog[first:] <= level) & (intended_s[first:] >= sent_s[first])
        end = first + int(np.argmax(over)) if over.any() else len(late)
        kept[first:end] = False
        kept[:first] &= ~(done_s[:first] > intended_s[first])
    return kept
