"""A record of streamed answers: each SLO is judged on its own measure, and one request is one sample."""

import dataclasses

import numpy as np
import pytest

from loadtests.judge.backlog import judge_backlog
from loadtests.judge.judge import evaluate
from loadtests.judge.sample import least_dependence
from loadtests.judge.unaffected import unaffected_requests
from loadtests.records.point import Point, Probe
from loadtests.records.record import NOT_SENT, UNANSWERED, Outcome, Record
from loadtests.slo import Slo

COUNT, EVERY_S = 1200, 0.5


def record(late=(), change=None, **values) -> Record:
    """A stream every half second; `late` rows have changed values."""
    columns = {
        name: np.full(COUNT, value)
        for name, value in ({"ttft_s": 0.1, "itl_s": 0.02, "parts": 51, "gap_s": 0.05} | values).items()
    }
    for name, value in (change or {}).items():
        columns[name][list(late)] = value
    intended_s = np.arange(COUNT) * EVERY_S
    first_s = intended_s + columns["ttft_s"]
    done_s = first_s + columns["itl_s"] * (columns["parts"] - 1)
    status = np.zeros(COUNT, np.uint8)
    return Record(
        intended_s, intended_s, done_s, status,
        first_s=first_s, gap_s=columns["gap_s"], parts=columns["parts"].astype(np.uint32),
    )  # fmt: skip


def judged(made: Record, *slos: str, stopped="", wall_s=700.0, models=()) -> Point:
    probe = Probe(0, "bisect", 1 / EVERY_S, COUNT, 1)
    return evaluate(probe, made, Outcome(wall_s, 1.0, stopped, 0.0), [Slo.parse(slo) for slo in slos], models=models)


@pytest.mark.parametrize(
    ("change", "verdicts"),
    [
        ({}, ["pass", "pass", "pass", "pass"]),
        ({"ttft_s": 1.5}, ["fail", "pass", "pass", "pass"]),
        ({"itl_s": 0.2}, ["pass", "fail", "pass", "fail"]),
        ({"gap_s": 0.6}, ["pass", "pass", "fail", "pass"]),
        ({"parts": 500}, ["pass", "pass", "pass", "fail"]),
    ],
    ids=["all in time", "late first tokens", "slow tokens", "long gaps", "long answers"],
)
def test_each_slo_is_judged_on_its_own_measure(change, verdicts):
    point = judged(record(range(0, COUNT, 4), change), "ttft:p90=1s", "itl:p90=150ms", "gap:p90=500ms", "p90=5s")
    assert [count.verdict for count in point.slos] == verdicts
    assert point.verdict == ("fail" if "fail" in verdicts else "pass")


def test_a_failed_request_is_over_every_limit_and_one_request_is_one_sample():
    made = record()
    made.status[::100] = 14
    point = judged(made, "ttft:p99=1s", "itl:p99=150ms", "gap:p99=500ms")
    assert [(count.over, count.requests) for count in point.slos] == [(12, COUNT)] * 3
    assert point.streaming is not None
    assert point.streaming.attainment == pytest.approx(1 - 12 / COUNT)
    assert point.streaming.parts == COUNT * 51


def test_figures_of_streams_are_known_answers_and_are_read_back():
    point = judged(record([5], {"gap_s": 0.9}), "ttft:p99=1s", "itl:p99=150ms", "gap:p99=500ms")
    streaming = point.streaming
    assert streaming is not None
    assert (streaming.ttft_p50_ms, streaming.itl_p99_ms, streaming.gap_p99_ms) == pytest.approx((100, 20, 50))
    assert streaming.gap_max_ms == pytest.approx(900)
    assert streaming.at_once == pytest.approx(1.0 / EVERY_S, rel=0.01)  # each takes one second after its first token
    assert streaming.parts_per_s == pytest.approx(51 / EVERY_S, rel=0.01)
    assert streaming.goodput_per_s == pytest.approx(1 / EVERY_S * (1 - 1 / COUNT), rel=0.01)
    assert point.seen_ms(Slo.parse("itl:p99=1s")) == streaming.itl_p99_ms
    assert point.seen_ms(Slo.parse("p99.9=1s")) == point.p999_ms
    assert point.seen_ms(Slo.parse("ttft:p42=1s")) is None
    assert Point.from_json(point.to_json()) == point
    old = {name: value for name, value in point.to_json().items() if name != "streaming"}
    assert Point.from_json(old).streaming is None


def test_goodput_asks_of_each_model_of_a_mix_what_its_slos_say():
    made = dataclasses.replace(
        record(range(0, COUNT, 2), {"ttft_s": 1.5}), model=np.tile([0, 1], COUNT // 2).astype(np.uint8)
    )
    slow, quick = (judged(made, f"{name}:ttft:p99=1s", models=("a", "b")).streaming for name in ("a", "b"))
    assert slow is not None
    assert quick is not None
    assert (slow.attainment, quick.attainment) == (0.5, 1.0)


def cut_off(at_s: float, made: Record) -> Record:
    """What is recorded where a probe is stopped."""
    status = made.status.copy()
    status[made.done_s > at_s] = UNANSWERED
    status[made.intended_s > at_s] = NOT_SENT
    first_s = np.where(made.first_s <= at_s, made.first_s, np.nan)
    parts = np.where(made.first_s <= at_s, made.parts, 0).astype(np.uint32)
    done_s = np.where(status == 0, made.done_s, np.nan)
    return dataclasses.replace(made, status=status, first_s=first_s, done_s=done_s, parts=parts)


def test_a_stream_that_runs_at_the_stop_is_in_time_by_its_first_token_and_unknown_by_its_others():
    """Answers last 10 s: at the stop 20 of them run, and one has no token yet."""
    made = cut_off(100.05, record(itl_s=0.2))
    point = judged(made, "ttft:p99=1s", "itl:p99=250ms", "errors=1%", stopped="budget", wall_s=100.05)
    assert [(count.over, count.requests) for count in point.slos] == [(0, 199), (0, 180), (0, 199)]
    assert point.verdict == "undecided"
    late = judged(made, "itl:p99=150ms", stopped="hopeless", wall_s=100.05)
    assert (late.verdict, late.slos[0].over, late.slos[0].requests) == ("fail", 180, 180)


def test_streams_that_never_began_are_in_the_figures_of_a_probe_that_was_stopped():
    """From the hundredth on, nobody gets a first token."""
    made = cut_off(100.05, record(range(100, COUNT), {"ttft_s": 600.0}))
    streaming = judged(made, "ttft:p99=1s", "itl:p99=250ms", stopped="hopeless", wall_s=100.05).streaming
    assert streaming is not None
    assert (streaming.ttft_p50_ms, streaming.ttft_p99_ms) == pytest.approx((100, 49_550))
    assert streaming.attainment == pytest.approx(100 / 199)


def test_streams_that_run_are_no_backlog_and_those_that_wait_to_begin_are():
    """With answers of 100 s their number grows through the whole probe, and nobody waits."""
    assert not judge_backlog(record(itl_s=2.0)).growing
    waiting = judge_backlog(record(ttft_s=0.1 + np.arange(COUNT) * 0.25, itl_s=2.0))
    assert waiting.growing
    assert judged(record(ttft_s=0.1 + np.arange(COUNT) * 0.02, itl_s=2.0), "ttft:p99=20s").verdict == "undecided"


def test_a_late_send_affects_the_gaps_of_streams_that_run_and_not_their_first_tokens():
    made = record(itl_s=0.2)
    sent_s = made.sent_s.copy()
    sent_s[300] += 0.2
    made = dataclasses.replace(made, sent_s=sent_s, first_s=made.first_s + (sent_s - made.intended_s))
    affected = {measure: int((~unaffected_requests(made, 100.0, measure)).sum()) for measure in ("ttft", "itl", "gap")}
    assert affected["ttft"] == affected["itl"] == 1
    assert affected["gap"] == 21


def test_requests_of_a_mix_to_models_that_answer_at_once_are_independent():
    """Every other request goes there; of the streams four would count as one, and half as many run at once."""
    made = record()
    whole = np.arange(COUNT) % 2 == 1
    made.parts[whole] = 0
    mixed = dataclasses.replace(made, model=whole.astype(np.uint8))
    slos = ("streams:ttft:p99=1s", "whole:p99=2s", "p99=2s")
    point = judged(mixed, *slos, models=("streams", "whole"))
    assert [count.dependence for count in point.slos] == pytest.approx([2.0, 1.0, 4 / 3], rel=0.02)


def test_requests_whose_answers_come_at_once_are_not_independent():
    """Two answers at once: four requests count as one, but where tokens come far quicker than the limit."""
    point = judged(record(), "ttft:p99=1s", "itl:p99=30ms", "itl:p99=150ms")
    assert [count.dependence for count in point.slos] == pytest.approx([4.0, 4.0, 1.0], rel=0.02)
    short = record().where(slice(0, 40))  # it fills for a quarter of its time
    assert least_dependence(short) == pytest.approx(4 / 3 * least_dependence(record()), rel=0.05)
    assert least_dependence(dataclasses.replace(record(), parts=np.zeros(COUNT, np.uint32))) == 1.0
