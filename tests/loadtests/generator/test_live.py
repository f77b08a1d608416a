"""The endless generator: its rate, its changes of rate, its last answers, and the window that judges them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from queue_process import request

from loadtests import Slo
from loadtests.errors import TargetLostError
from loadtests.generator.continuous import ContinuousRun
from loadtests.generator.http2 import Http2Transport
from loadtests.generator.live import LiveRun
from loadtests.generator.messages import Batch, unanswered
from loadtests.generator.process import GeneratorSettings
from loadtests.locust_ui.window import Window
from loadtests.records.record import DEADLINE_EXCEEDED, Record
from loadtests.workload.arrivals import CONSTANT
from loadtests.workload.mix import ModelMix
from loadtests.workload.schedule import probe_seed
from loadtests.workload.workload import scoped

pytestmark = pytest.mark.process

P99 = Slo.parse("p99=30ms")


def batch(rate_per_s=100.0, since_s=1000.0, at_s=1010.0, latency_s=0.01, count=900, waiting=(), statuses=0) -> Batch:
    intended_s = since_s + np.arange(count) / 100
    models = np.arange(count, dtype=np.uint8) % 2
    record = Record(intended_s, intended_s, intended_s + latency_s, np.full(count, statuses, np.uint8), models)
    return Batch(
        record,
        unanswered(waiting, np.ones(len(waiting))),
        rate_per_s,
        since_s,
        at_s,
        0.5,
        10.0,
        {"14": "full"} if statuses else {},
    )


def until(condition, seconds=10.0):
    until_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until_s, "it did not happen in time"
        time.sleep(0.02)


def streams(began_s: float, latency_s=0.5, ttft_s=0.1, count=1000, since_s=1000.0, begun=True) -> Batch:
    """Ten streams a second until now, of which the last 50 still run and began with these first tokens."""
    intended_s = since_s + np.arange(count) / 10
    ended, running = np.split(intended_s, [count - 50])
    record = Record(
        ended, ended, ended + latency_s, np.zeros(len(ended), np.uint8),
        first_s=ended + ttft_s, gap_s=np.full(len(ended), 0.1), parts=np.full(len(ended), 50, np.uint32),
    )  # fmt: skip
    waiting = unanswered(running, np.zeros(50), *((running + began_s, np.full(50, 3)) if begun else ()))
    return Batch(record, waiting, 10.0, since_s, float(intended_s[-1]), 0.5, 10.0)


@pytest.mark.parametrize(
    ("made", "slo", "passes", "over"),
    [
        (streams(0.1), "ttft:p90=1s", True, 0),
        (streams(1.5), "ttft:p99=1s", False, 40),
        (streams(0.1, begun=False), "ttft:p99=1s", False, 40),
        (streams(0.1), "itl:p90=1s", True, 0),
        (streams(0.1), "itl:p90=5ms", False, 950),
    ],
    ids=[
        "streams that run began in time",
        "streams that run began late",
        "what waits for its first token is late",
        "how evenly a stream comes is not known while it runs",
        "slow tokens",
    ],
)
def test_streams_that_run_are_no_failures(made, slo, passes, over):
    window = Window()
    window.add(Batch.unpack(made.pack()))
    point = window.point([Slo.parse(slo)])
    assert point is not None
    assert (point.verdict == "pass", point.slos[0].over, point.errors) == (passes, over, 0)


def test_tokens_are_counted_over_the_whole_window():
    """Batches of the generator's last minute say nothing about how long the window is."""
    window = Window()
    window.add(streams(0.1))
    point = window.point([Slo.parse("ttft:p90=1s")])
    assert point is not None
    assert point.streaming is not None
    assert point.streaming.parts_per_s == pytest.approx(10 * 50, rel=0.1)


def test_a_batch_survives_the_wire():
    sent = batch(waiting=[1009.5], statuses=14)
    came = Batch.unpack(sent.pack())
    assert came.pack() == sent.pack()
    assert np.array_equal(came.record.done_s, sent.record.done_s)
    assert np.array_equal(came.record.model, sent.record.model)
    assert came.waiting.model.tolist() == [1]
    assert came.messages == {"14": "full"}


@pytest.mark.alone
def test_the_end_of_a_stream_beside_a_frozen_server_waits_for_what_was_measured(start_queue):
    """And not as long again for what only kept the load up meanwhile."""
    queue, batches = start_queue("--service-ms", "2"), []

    def connect(*reports):
        return Http2Transport(queue.address, [request()], *reports, channels=1, timeout_s=1.5)

    async def freeze_and_finish():
        firing = ContinuousRun(ModelMix((1,), (1.0,)), connect, batches.append, seed=0, timeout_s=1.5, drain_s=0.1)
        await firing.transport.open()
        running = asyncio.ensure_future(firing.run())
        await asyncio.sleep(0)
        firing.set_rate(100)
        await asyncio.sleep(0.3)
        queue.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.2)
        firing.finish()
        start = time.monotonic()
        await running
        return time.monotonic() - start

    assert asyncio.run(freeze_and_finish()) < 2.5
    ended = Record.merge([batch.record for batch in batches])
    assert 5 < (ended.status == DEADLINE_EXCEEDED).sum() < 40


def test_batches_are_made_beside_the_event_loop(shared_queue):
    """Requests are due meanwhile."""
    address, made = shared_queue("--service-ms", "1").address, []

    def connect(*reports):
        return Http2Transport(address, [request()], *reports, channels=1, timeout_s=5)

    async def run():
        continuous = ContinuousRun(
            ModelMix((1,), (1.0,)), connect, lambda batch: made.append((threading.get_ident(), batch)), seed=0
        )
        await continuous.transport.open()
        running = asyncio.ensure_future(continuous.run())
        await asyncio.sleep(0)
        continuous.set_rate(100)
        while sum(len(batch.record) for _, batch in made) < 20:
            await asyncio.sleep(0.05)
        continuous.finish()
        await running
        return threading.get_ident()

    loop_thread = asyncio.run(run())
    assert loop_thread not in {thread for thread, _ in made}
    assert made[-1][1].final
    intended_s = np.concatenate([batch.record.intended_s for _, batch in made])
    assert np.all(np.diff(intended_s) > 0)


def test_sends_at_the_requested_rate_and_drains(start_queue):
    batches: list[Batch] = []
    target = GeneratorSettings(start_queue("--service-ms", "40").address, [request()] * 2)
    mix = ModelMix((1, 1), (1.0, 3.0))
    live = LiveRun(target, batches.append, seed=1, arrivals=CONSTANT, mix=mix)
    live.start()
    live.set_rate(20)
    until(lambda: sum(len(one.record) for one in batches) >= 9)
    live.set_rate(10)
    since_s = time.time()
    until(lambda: batches[-1].rate_per_s == 10)
    began_s = batches[-1].since_s
    live.set_rate(30, rebalanced=True)
    until(lambda: batches[-1].rate_per_s == 30)
    assert batches[-1].since_s == began_s > batches[0].since_s
    live.finish()
    assert [one.final for one in batches] == [False] * (len(batches) - 1) + [True]
    record = Record.merge([one.record for one in batches])
    assert record.ok.all()
    drawn = mix.choices(4096, seed=probe_seed(1, 0))[: len(record)]
    assert np.array_equal(record.model, mix.owners_of(drawn))  # as a schedule of that seed would have it
    assert not len(batches[-1].waiting)  # the last answers were waited for
    assert np.diff(record.intended_s[record.intended_s < since_s]).mean() == pytest.approx(1 / 20, rel=0.05)
    assert np.all(record.latencies_ms() >= 39)


def test_nobody_listens():
    with pytest.raises(TargetLostError) as raised:
        LiveRun(GeneratorSettings("127.0.0.1:9", [request()]), lambda one: None).start()
    assert raised.value.server == "127.0.0.1:9"


def test_a_generator_that_is_killed_is_told(shared_queue):
    told: list[str] = []
    target = GeneratorSettings(shared_queue("--service-ms", "1").address, [request()])
    live = LiveRun(target, lambda one: None, on_lost=told.append)
    live.start()
    os.kill(live.pid, signal.SIGKILL)
    until(lambda: told)
    live.finish()


def test_a_server_that_dies_fails_the_requests_and_may_come_back(start_queue):
    queue = start_queue("--service-ms", "1")
    batches: list[Batch] = []
    live = LiveRun(GeneratorSettings(queue.address, [request()]), batches.append)
    live.start()
    live.set_rate(100)
    until(lambda: sum(int(one.record.ok.sum()) for one in batches) > 20)
    queue.process.kill()
    until(lambda: len(batches[-1].record) and not batches[-1].record.ok.any())
    live.finish()
    assert "connection" in next(iter(batches[-1].messages.values()))


@pytest.mark.parametrize(
    ("made", "verdict", "why"),
    [
        (batch(), "pass", "all of 900 are quick"),
        (batch(latency_s=0.05), "fail", "all are too slow"),
        (batch(statuses=14), "fail", "all failed"),
        (batch(count=50), "undecided", "50 requests prove nothing about a p99"),
        (batch(count=600, waiting=1009 + np.arange(60) / 100), "fail", "60 have waited for longer than the limit"),
    ],
)
def test_the_window_judges_what_is_known(made, verdict, why):
    window = Window()
    window.add(made)
    point = window.point([P99])
    assert point is not None
    assert point.verdict == verdict, why


def test_each_model_of_a_mix_is_judged():
    window = Window()
    window.add(batch(latency_s=np.tile([0.01, 0.05], 300), count=600))
    slos = scoped([P99], ["first", "second"])
    point = window.point(slos, models=["first", "second"])
    assert {entry.model: entry.verdict for entry in point.models} == {"first": "undecided", "second": "fail"}
    assert point.verdict == "fail"


def test_a_change_of_rate_empties_the_window():
    window = Window()
    window.add(batch(latency_s=0.05))
    window.add(batch(rate_per_s=50.0, since_s=2000.0, at_s=2010.0))
    point = window.point([P99])
    assert (point.rate_per_s, point.requests, point.verdict) == (50.0, 900, "pass")


def test_the_youngest_are_left_out():
    window = Window()
    window.add(batch(at_s=1005.0))
    assert window.point([P99]).requests == 498


def test_two_generators_are_pooled_and_named():
    window = Window()
    window.add(batch(), "a")
    window.add(batch(latency_s=0.02), "b")
    point = window.point([P99])
    assert point.requests == 1800
    assert point.p50_ms == pytest.approx(10)
    assert point.p99_ms == pytest.approx(20)
    assert [share.requests for share in point.workers] == [900, 900]


def test_a_generator_that_left_keeps_its_requests():
    """They were answered. Only one that was lost, with requests nobody knows the fate of, spoils the verdict."""
    window = Window()
    window.add(batch(), "a")
    window.add(batch(), "b")
    for left, verdict, rate_per_s in (({"b": ""}, "pass", 100), ({"b": "went missing"}, "invalid", 100)):
        point = window.point([P99], left=left)
        assert (point.requests, point.verdict, point.rate_per_s) == (1800, verdict, rate_per_s)
    assert window.point([P99], left={"a": "", "b": ""}).rate_per_s == 200


def test_a_generator_that_was_lost_before_it_reported_is_named():
    window = Window()
    window.add(batch(), "a")
    point = window.point([P99], left={"c": "went missing"})
    assert (point.requests, point.verdict) == (900, "invalid")
    assert "generator 2 of 2 (c)" in point.reason


def test_the_youngest_count_once_no_more_can_come():
    window = Window()
    window.add(batch(at_s=1005.0))
    assert window.point([P99], left={"1": "went missing"}).requests == 900
    window.add(replace(batch(at_s=1005.0, count=0), final=True))
    assert window.point([P99]).requests == 900


def test_a_change_of_shares_leaves_the_window_as_it_is():
    """One generator takes over what another sent: `since_s` stays."""
    window = Window()
    window.add(batch(rate_per_s=50.0), "a")
    window.add(batch(rate_per_s=50.0), "b")
    later = batch(rate_per_s=100.0, count=100)
    later = replace(later, record=replace(later.record, intended_s=later.record.intended_s + 20), at_s=1030.0)
    window.add(later, "a")
    point = window.point([P99], left={"b": ""})
    assert (point.requests, point.rate_per_s) == (1900, 100.0)
    window.forget("b")
    assert window.point([P99]).requests == 1000


def test_generators_with_other_clocks_are_put_side_by_side():
    """Clocks that agree keep their times: the second generator joined later."""
    now_s = time.time()
    for behind_s, offered_per_s in ((0.0, 1799 / 18.99), (3600.0, 1799 / 18.99)):
        window = Window()
        window.add(batch(since_s=now_s - 20, at_s=now_s), "a")
        window.add(batch(since_s=now_s - 10 - behind_s, at_s=now_s - behind_s), "b")
        assert window.point([P99]).offered_per_s == pytest.approx(offered_per_s, rel=0.02)


def test_a_window_lasts_longer_than_the_time_whose_cpu_is_known():
    """Ten seconds of three parts a request, and the CPU of the last quarter of a second."""
    made = batch()
    parts = {"first_s": made.record.intended_s + 0.001, "parts": np.full(900, 3, np.uint32)}
    window = Window()
    window.add(replace(made, record=replace(made.record, **parts), cpu_s=0.1, wall_s=0.25))
    point = window.point([P99])
    assert point.duration_s == 10.0
    assert point.streaming.parts_per_s == pytest.approx(300, rel=0.01)
    assert point.workers[0].cpu_share == pytest.approx(0.4)


def test_nothing_is_known_at_first():
    assert Window().point([P99]) is None
