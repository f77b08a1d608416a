"""Prometheus text, constructed and from a real Triton."""

from __future__ import annotations

import contextlib
import socketserver
import threading
import time

import pytest
from freezing import frozen

from loadtests.errors import TargetError
from loadtests.records.streaming import GenerationLoad
from loadtests.target.client import Target
from loadtests.target.metrics import MetricsMeter, default_url, parse, summarise

BEFORE = """# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.0
nv_gpu_utilization{gpu_uuid="GPU-2"} 0.1
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 1048576
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="m",reason="REJECTED",version="1"} 5
nv_inference_request_failure{model="m",reason="OTHER",version="1"} 7
nv_cpu_utilization 0.2
nv_cpu_memory_used_bytes 4194304
"""
AFTER = """nv_gpu_utilization{gpu_uuid="GPU-1"} 0.9
nv_gpu_utilization{gpu_uuid="GPU-2"} 0.5
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 3145728
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="a } b",reason="REJECTED",version="1"} 0
nv_inference_request_failure{model="m",reason="REJECTED",version="1"} 17
nv_inference_request_failure{model="m",reason="OTHER",version="1"} 99
nv_cpu_utilization 6e-1
nv_cpu_memory_used_bytes 2097152
"""


def test_means_highest_and_differences():
    load = summarise([parse(BEFORE), parse(AFTER)], 2.0)
    assert load is not None
    assert load.gpu_share == pytest.approx(0.7)  # during the probe, over both GPUs
    assert load.gpu_memory_mib == 3.0
    assert load.cpu_share == 0.6
    assert load.memory_mib == 4.0
    assert load.rejected == 12
    assert load.gpu_power_w is None
    assert load.generation is None


def generating(slots: int, waiting: int, steps: int, rows: int, tokens: int, cancelled: int) -> str:
    """The metrics of a text generator, as Triton's python backend publishes a model's own."""
    gauges = {"slots_in_use": slots, "waiting": waiting}
    counters = {"steps_total": steps, "step_rows_total": rows, "tokens_total": tokens, "cancelled_total": cancelled}
    return "".join(
        f'# TYPE fathom_generation_{name} {kind}\nfathom_generation_{name}{{model="m"}} {value}\n'
        for kind, values in (("gauge", gauges), ("counter", counters))
        for name, value in values.items()
    )


def test_what_a_text_generator_says_of_itself():
    readings = [generating(0, 0, 10, 20, 30, 1), generating(4, 9, 40, 140, 150, 1), generating(2, 0, 50, 180, 190, 3)]
    load = summarise([*map(parse, readings)], 4.0)
    assert load is not None
    assert load.generation == GenerationLoad(
        slots_mean=3.0, slots_max=4.0, waiting_max=9.0, batch_per_step=4.0, tokens_per_s=40.0, cancelled=2
    )


def test_a_text_generator_that_did_nothing():
    load = summarise([parse(generating(0, 0, 0, 0, 0, 0))], 0.0)
    assert load is not None
    assert load.generation == GenerationLoad(0.0, 0.0, 0.0, batch_per_step=None, tokens_per_s=None, cancelled=0)


def test_nothing_measured_nothing_said():
    assert summarise([], 1.0) is None
    load = summarise([parse("up 1\n")], 1.0)
    assert load is not None
    assert (load.cpu_share, load.rejected) == (None, None)


def test_an_endpoint_that_is_not_there():
    meter = MetricsMeter("http://127.0.0.1:9/metrics")
    meter.start()
    assert meter.stop() is None
    with pytest.raises(TargetError) as raised:
        MetricsMeter("http://127.0.0.1:9/metrics", required=True).start()
    assert raised.value.server == "http://127.0.0.1:9/metrics"


def answers(meter) -> bool:
    try:
        meter.start()
    except TargetError:
        time.sleep(0.1)
        return False
    return meter.stop() is not None


def test_an_endpoint_that_freezes_is_asked_again(small_server):
    meter = MetricsMeter(small_server.metrics_url, required=True, timeout_s=0.3)
    until_s = time.monotonic() + 10
    while not answers(meter) and time.monotonic() < until_s:  # Triton opens this port a little after it is ready
        meter = MetricsMeter(small_server.metrics_url, required=True, timeout_s=0.3)
    with frozen(small_server):
        meter.start()
        assert meter.stop() is None
    if small_server.metrics_url == meter._url:  # not started again
        assert answers(meter)


class Endless(socketserver.BaseRequestHandler):
    """An endpoint whose answer has no end: all at once, or a byte now and then."""

    def handle(self):
        self.request.recv(1 << 16)
        piece, pause_s = (b"a", 0.02) if self.server.drips else (b"a" * (1 << 20), 0)
        with contextlib.suppress(OSError):
            self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while not self.server.ended.wait(pause_s):
                self.request.sendall(piece)


@pytest.mark.parametrize("drips", [True, False])
def test_an_endpoint_without_end_is_given_up(drips):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Endless) as server:
        server.drips, server.ended = drips, threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            with pytest.raises(TargetError):
                MetricsMeter(f"http://127.0.0.1:{server.server_address[1]}", required=True, timeout_s=0.1).start()
        finally:
            server.ended.set()
            server.shutdown()


def test_numbers_that_are_none_are_left_out():
    numbers = ("NaN", "+Inf", "-Inf", "1e308")
    read = [parse("".join(f'nv_gpu_power_usage{{gpu_uuid="{n}"}} {n}\n' for n in (*numbers, "7"))) for _ in "ab"]
    load = summarise(read, 1.0)
    assert load is not None
    assert load.gpu_power_w == 7


def test_only_tritons_own_port_is_guessed():
    assert default_url("triton.example:8001") == "http://triton.example:8002/metrics"
    assert default_url("[::1]:8001") == "http://[::1]:8002/metrics"
    for other in ("localhost:9001", "unix:/run/triton:8001", "ipv6:[::1]:8001", "dns:///triton:8001"):
        assert default_url(other) is None


def test_a_proxy_is_not_asked_for_this_machine(small_server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Target(small_server.grpc_url, "double") as target:
        assert target.metadata().inputs
    until_s = time.monotonic() + 10
    while not answers(MetricsMeter(small_server.metrics_url, required=True)):
        assert time.monotonic() < until_s


def test_a_real_triton(small_server):
    """It measures itself only every other second: a server that has just started knows nothing yet."""
    until_s = time.monotonic() + 10
    while True:
        meter = MetricsMeter(small_server.metrics_url, required=True)
        meter.start()
        load = meter.stop()
        assert load is not None
        if load.memory_mib or time.monotonic() > until_s:
            break
        time.sleep(0.2)
    assert 0 <= load.cpu_share <= 1
    assert load.memory_mib > 10
    assert load.rejected == 0
