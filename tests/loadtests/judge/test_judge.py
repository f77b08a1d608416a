"""A record's verdict where requests fail or stay unanswered."""

import numpy as np
import pytest

from loadtests.judge.judge import evaluate
from loadtests.records.point import Probe
from loadtests.records.record import NOT_SENT, UNANSWERED, Outcome, Record
from loadtests.slo import Slo

UNAVAILABLE = 14


@pytest.mark.parametrize(
    ("slo", "status", "bad", "verdict", "why"),
    [
        ("p50=50ms", UNANSWERED, 0, "pass", "all were answered"),
        ("p50=50ms", UNANSWERED, 5, "pass", "one in a thousand may stay unanswered"),
        ("p50=50ms", UNANSWERED, 25, "fail", "more stay unanswered, whatever the p50 is"),
        ("p50=50ms", UNAVAILABLE, 25, "fail", "failing counts as staying unanswered does"),
        ("p50=50ms", UNANSWERED, 6, "undecided", "slightly more, which chance explains"),
    ],
)
def test_failed_and_unanswered_requests_have_one_bound(slo, status, bad, verdict, why):
    count = 5000
    intended_s = np.arange(count) * 0.01
    statuses = np.zeros(count, np.uint8)
    statuses[: bad * 100 : 100] = status
    done_s = np.where(statuses == UNANSWERED, np.nan, intended_s + 0.001)
    record = Record(intended_s, intended_s, done_s, statuses)
    point = evaluate(Probe(0, "bisect", 100.0, count, 1), record, Outcome(50.0, 1.0, "", 0.0), [Slo.parse(slo)])
    assert point.verdict == verdict, why


@pytest.mark.parametrize(
    ("slos", "stopped", "verdict", "why"),
    [
        ("p50=50ms", "", "fail", "too many failed, though the SLO says nothing of them"),
        ("p99=50ms", "", "fail", "failed ones are late"),
        ("p80=50ms", "budget", "undecided", "the budget ended first"),
        ("p50=50ms errors=10%", "", "undecided", "about as many failed as may"),
    ],
)
def test_the_reason_has_the_servers_own_words(slos, stopped, verdict, why):
    intended_s = np.arange(200) * 0.01
    statuses = np.where(np.arange(200) % 10 == 0, 13, 0).astype(np.uint8)
    record = Record(intended_s, intended_s, intended_s + 0.001, statuses)
    outcome = Outcome(2.0, 0.1, stopped, 0.0, {"13": "Stub process is not healthy"})
    point = evaluate(Probe(0, "double", 100.0, 200, 1), record, outcome, [Slo.parse(slo) for slo in slos.split()])
    assert point.verdict == verdict, why
    assert "INTERNAL: Stub process is not healthy" in point.reason


@pytest.mark.parametrize(
    ("accepted", "requests", "why"),
    [
        (0, 20, "all that were sent were refused"),
        (2, 20, "every second one was accepted, and waits: not late yet"),
    ],
)
def test_refusals_faster_than_the_limit_count_though_they_end_the_probe_early(accepted, requests, why):
    """A bounded queue refuses at once: the probe ends long before anything could be late."""
    intended_s = np.arange(100) * 0.005
    statuses = np.full(100, NOT_SENT, np.uint8)
    statuses[:requests] = UNAVAILABLE
    if accepted:
        statuses[:requests:accepted] = UNANSWERED
    done_s = np.where(statuses == UNAVAILABLE, intended_s + 0.001, np.nan)
    outcome = Outcome(0.098, 0.01, "hopeless", 0.0, {str(UNAVAILABLE): "queue full"})
    record = Record(intended_s, intended_s, done_s, statuses)
    point = evaluate(Probe(0, "double", 200.0, 100, 1), record, outcome, [Slo.parse("p99=200ms")])
    refused = requests - (requests // accepted if accepted else 0)
    assert (point.verdict, point.requests, point.errors) == ("fail", requests, refused), why
    assert (point.slos[0].over, point.slos[0].requests) == (refused, requests)
    assert f"{refused} of {requests}" in point.reason
