"""The load test against a real Triton."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import numpy as np
import pytest
from freezing import frozen
from grpc_transport import GrpcTransport
from haste import HASTY

from loadtests import CapacityRequest, Slo, find
from loadtests.capacity import load
from loadtests.errors import TargetBusyError, TargetError, TargetLostError
from loadtests.generator.http2 import Http2Transport
from loadtests.generator.live import LiveRun
from loadtests.generator.messages import Batch, Limits
from loadtests.generator.open_loop import OpenLoopRun
from loadtests.generator.pool import GeneratorPool
from loadtests.generator.process import GeneratorProcess, GeneratorSettings
from loadtests.records.batching import Batching
from loadtests.records.documents import read
from loadtests.records.record import DEADLINE_EXCEEDED, UNAVAILABLE, Record, percentile
from loadtests.search.budget import Timing
from loadtests.target.client import Target
from loadtests.target.metrics import MetricsMeter
from loadtests.target.parameters import asking_for_final
from loadtests.target.statistics import difference
from loadtests.workload.arrivals import CONSTANT
from loadtests.workload.payloads import from_metadata
from loadtests.workload.schedule import payload_choices, poisson
from loadtests.workload.shape import parse_shape

pytestmark = [pytest.mark.process, pytest.mark.alone]


def test_inputs_made_from_metadata_are_accepted(small_server):
    payloads = [payload for model in ("double", "echo", "mixed") for payload in made_payloads(small_server, model)]
    with GeneratorProcess(GeneratorSettings(small_server.grpc_url, payloads)) as worker:
        choices = payload_choices(60, len(payloads), seed=1)
        record, outcome = worker.run_schedule(poisson(200, seed=1, count=60), choices, Limits(1000))
    assert record.ok.all(), outcome.messages


async def fire(transport, server, payloads):
    def make_transport(*reports):
        return transport(server, payloads, *reports, channels=2, timeout_s=10)

    schedule, choices = poisson(100, seed=2, count=200), payload_choices(200, len(payloads), seed=2)
    firing = OpenLoopRun(schedule, choices, Limits(1000), timeout_s=10, make_transport=make_transport)
    await firing.transport.open()
    record, _ = await firing.run()
    return record


@pytest.mark.slow
def test_both_transports_measure_the_same(small_server):
    payloads = made_payloads(small_server, "double")
    medians = []
    for transport in (GrpcTransport, Http2Transport):
        record = asyncio.run(fire(transport, small_server.grpc_url, payloads))
        assert record.ok.all()
        medians.append(percentile(record.latencies_ms(), 0.5))
    assert medians[1] < medians[0] + 1.0


def test_statistics_cover_exactly_the_probe(small_server):
    payloads = made_payloads(small_server, "double")
    with (
        Target(small_server.grpc_url, "double") as target,
        GeneratorProcess(GeneratorSettings(small_server.grpc_url, payloads)) as worker,
    ):
        before = []
        schedule = poisson(300, seed=3, count=90)
        worker.run_schedule(
            schedule,
            payload_choices(90, len(payloads), seed=3),
            Limits(1000),
            on_ready=lambda: before.extend(target.statistics()),
        )
        deadline = time.monotonic() + 5
        while True:  # Triton counts a request a moment after it has answered it
            stats = difference(before, target.statistics())
            if time.monotonic() > deadline or (stats is not None and stats.steps[0].requests >= 90):
                break
    assert stats is not None
    assert stats.steps[0].requests == 90
    assert stats.mean_batch >= 1
    assert sum(int(size) * count for size, count in stats.steps[0].batch_sizes.items()) == 90


def test_finds_a_capacity_with_the_servers_figures(small_server, tmp_path):
    p90 = Slo.parse("p90=100ms")
    for budget_s in (1.5, 6.0, 24.0):  # a busy machine spends a second and a half on its first probes
        options = {"budget_s": budget_s, "max_per_s": 200.0, "timing": HASTY, "folder": tmp_path / f"{budget_s:g}"}
        result = find(CapacityRequest(small_server.grpc_url, "double", [p90], **options))
        if max(point.rate_per_s for point in result.points) == 200.0:
            break
    assert max(point.rate_per_s for point in result.points) == 200.0
    assert all(point.queue_ms is not None and point.compute_ms > 0 for point in result.points)
    steps = [point.steps[0] for point in result.points]
    assert all(step.model == "double" and step.execution_ms > 0 for step in steps)
    batching = read(Batching, result.settings["batching"]["double"])
    assert (batching.max_batch_size, batching.batcher, batching.prefetches) == (8, "dynamic", False)
    assert batching.instances > 0
    assert result.settings["server_name"].startswith("triton")


def test_what_was_recorded_before_triton_froze_is_kept(small_server, monkeypatch):
    """It then does not tell its statistics either."""
    with contextlib.ExitStack() as freeze:

        def collect(*given, waiting=GeneratorPool._collect):
            threading.Timer(0.5, freeze.enter_context, [frozen(small_server)]).start()
            waiting(*given)

        monkeypatch.setattr(GeneratorPool, "_collect", collect)
        slos, timing = [Slo.parse("p99=100ms")], Timing(frozen_s=0.3)
        request = CapacityRequest(small_server.grpc_url, "double", slos, timeout_s=0.4, timing=timing)
        point = load(request, parse_shape("constant:100", 0.8))
    assert (point.verdict, point.stopped) == ("fail", "connection lost")
    assert request.server in point.reason
    assert point.requests == 80
    assert 5 < point.error_messages["DEADLINE_EXCEEDED: no answer within 0.4 s"] < 60


def test_an_unknown_model_is_told_with_what_there_is(small_server):
    with pytest.raises(TargetError) as raised:
        find(CapacityRequest(small_server.grpc_url, "nothing", [Slo.parse("p99=50ms")]))
    assert (raised.value.server, raised.value.model) == (small_server.grpc_url, "nothing")
    assert "double, echo" in str(raised.value)


def test_a_full_queue_is_a_failure_with_its_reason(small_server):
    """`slow` takes one request at a time and lets two wait."""
    from tritonclient.grpc import service_pb2 as pb

    tensor = pb.ModelInferRequest.InferInputTensor(name="seconds", datatype="FP32", shape=[1, 1])
    request = pb.ModelInferRequest(model_name="slow", inputs=[tensor], raw_input_contents=[np.float32(0.05).tobytes()])
    schedule = poisson(100, seed=4, count=60)
    with GeneratorProcess(GeneratorSettings(small_server.grpc_url, [request.SerializeToString()])) as worker:
        record, outcome = worker.run_schedule(schedule, payload_choices(60, 1, seed=4), Limits(1000))
    assert (record.status == 14).sum() > 20
    assert "Exceeds maximum queue size" in outcome.messages["14"]


def told(*pauses_s: float) -> bytes:
    """A request to `teller`, which answers with a part after each pause; below 0 it says that it is overloaded."""
    from tritonclient.grpc import service_pb2 as pb

    tensor = pb.ModelInferRequest.InferInputTensor(name="pauses_s", datatype="FP32", shape=[len(pauses_s)])
    content = np.array(pauses_s, np.float32).tobytes()
    request = pb.ModelInferRequest(model_name="teller", inputs=[tensor], raw_input_contents=[content])
    return asking_for_final(request.SerializeToString())


def test_streams_beside_ordinary_requests_take_what_they_take(small_server):
    """Three of five requests are streamed, one of them for longer than its deadline, and one fails in the middle."""
    double = made_payloads(small_server, "double")[0]
    payloads = [told(0.1, 0.02, 0.2, 0.02), told(0.05, -0.05), told(*[0.25] * 40), told(0.02), double]
    settings = GeneratorSettings(small_server.grpc_url, payloads, timeout_s=1.5, streamed=[(0, 4)])
    meter = MetricsMeter(small_server.metrics_url)
    choices = payload_choices(50, 5, seed=3)
    with GeneratorProcess(settings) as worker:
        meter.start()
        record, outcome = worker.run_schedule(poisson(50, seed=3, count=50), choices, Limits(1000))
        load = meter.stop()
    parts, failing, endless, short, ordinary = (record.where(choices == number) for number in range(5))
    assert parts.ok.all()
    assert set(parts.parts.tolist()) == {4}
    assert np.all((parts.ttft_ms() >= 100) & (parts.gaps_ms() >= 195) & (parts.itl_ms() >= 80))
    assert np.median(parts.ttft_ms()) < 200
    assert np.median(parts.gaps_ms()) < 300
    assert set(failing.status.tolist()) == {UNAVAILABLE}
    assert set(failing.parts.tolist()) == {1}
    assert "Exceeds maximum queue size" in outcome.messages[str(UNAVAILABLE)]
    assert set(endless.status.tolist()) == {DEADLINE_EXCEEDED}
    assert endless.parts.min() >= 2
    assert short.ok.all()
    assert set(short.parts.tolist()) == {1}
    assert ordinary.ok.all()
    assert not ordinary.streamed
    assert load is not None
    assert load.generation is not None
    assert load.generation.slots_max is not None
    assert load.generation.slots_max > 1
    assert load.generation.cancelled


def test_a_run_without_an_end_hands_over_parts(small_server):
    settings = GeneratorSettings(small_server.grpc_url, [told(0.05, 0.1)], streamed=[(0, 1)])
    batches: list[Batch] = []
    live = LiveRun(settings, batches.append, arrivals=CONSTANT)
    live.start()
    live.set_rate(40)
    until_s = time.monotonic() + 10
    while sum(len(batch.record) for batch in batches) < 10 and time.monotonic() < until_s:
        time.sleep(0.05)
    live.finish()
    record = Record.merge([batch.record for batch in batches])
    assert record.ok.all()
    assert len(record) >= 10
    assert set(record.parts.tolist()) == {2}
    assert record.ttft_ms().min() >= 50
    assert record.gaps_ms().min() >= 95


def test_one_request_of_a_model_that_streams(small_server):
    with Target(small_server.grpc_url, "teller") as target:
        target.check()
        assert target.streams
        times = target.stream(told(0.05, 0.01, 0.1), 5)
        assert times.parts == 3
        assert times.ttft_ms >= 50
        assert times.gap_ms >= 95
        assert times.itl_ms == pytest.approx((times.latency_ms - times.ttft_ms) / 2)
        assert target.first_part(told(0.01, 9.0), 5) < 5000
        for pauses_s, kind in (((0.01, -0.01), TargetBusyError), ((), TargetError), ((9.0,), TargetLostError)):
            with pytest.raises(kind):
                target.infer(told(*pauses_s), 0.5)


def made_payloads(server, model: str) -> list[bytes]:
    with Target(server.grpc_url, model) as target:
        target.check()
        return from_metadata(target.metadata(), target.config(), seed=0, count=4)
