"""A closed loop at saturation: N pre-built requests in flight, each answer followed by the next; its own process.

`python -m benchmarks.closed_loop TRANSPORT URL IN_FLIGHT SECONDS < request` prints requests/s and CPU microseconds a
request. `http2` is the load generator's own transport, `grpc` the loop over grpc.aio that one would write without it,
and `tritonclient` the one that tritonclient's documentation leads to.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import uvloop

from clients.datatypes import NUMPY_TYPE
from clients.options import open_channel
from clients.servers import INFER_METHOD
from loadtests.generator.http2 import Http2Transport


def drive(url: str, request: bytes, *, in_flight: int, seconds: float, transport: str = "http2") -> dict[str, float]:
    """Run the loop in a process of its own; returns `rate_per_s` and `cpu_us` per request."""
    command = [sys.executable, "-m", "benchmarks.closed_loop", transport, url, str(in_flight), str(seconds)]
    done = subprocess.run(command, input=request, capture_output=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


class _Meter:
    """Requests and CPU between the end of warming up and the end of the time."""

    def __init__(self, in_flight: int, seconds: float) -> None:
        self._warming = in_flight
        self._seconds = seconds
        self._count = 0
        self._start = self._cpu = 0.0

    def answered(self) -> bool:
        """Count an answer; false when the time is over."""
        if self._warming > 0:
            self._warming -= 1
            self._start, self._cpu = time.perf_counter(), time.process_time()
            return True
        self._count += 1
        return time.perf_counter() - self._start < self._seconds

    def result(self) -> dict[str, float]:
        elapsed, cpu_s = time.perf_counter() - self._start, time.process_time() - self._cpu
        return {"rate_per_s": self._count / elapsed, "cpu_us": cpu_s / self._count * 1e6}


async def _over_grpc(url: str, request: bytes, in_flight: int, meter: _Meter) -> None:
    import grpc.aio

    async with open_channel(grpc.aio, None, None, url) as channel:
        infer = channel.unary_unary(INFER_METHOD)

        async def keep_asking() -> None:
            await infer(request)
            while meter.answered():
                await infer(request)

        await asyncio.gather(*(keep_asking() for _ in range(in_flight)))


def for_tritonclient(request: bytes) -> tuple[str, list[Any]]:
    """The model and the inputs of a request as tritonclient takes them."""
    from tritonclient.grpc import InferInput, service_pb2

    message = service_pb2.ModelInferRequest.FromString(request)
    inputs = []
    for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True):
        inputs.append(InferInput(tensor.name, list(tensor.shape), tensor.datatype))
        inputs[-1].set_data_from_numpy(np.frombuffer(raw, NUMPY_TYPE[tensor.datatype]).reshape(tensor.shape))
    return message.model_name, inputs


async def _over_tritonclient(url: str, request: bytes, in_flight: int, meter: _Meter) -> None:
    import tritonclient.grpc.aio as triton

    model, inputs = for_tritonclient(request)
    async with triton.InferenceServerClient(url) as client:

        async def keep_asking() -> None:
            await client.infer(model, inputs)
            while meter.answered():
                await client.infer(model, inputs)

        await asyncio.gather(*(keep_asking() for _ in range(in_flight)))


async def _over_http2(url: str, request: bytes, in_flight: int, meter: _Meter) -> None:
    over = asyncio.Event()
    sent = 0

    def ask() -> None:
        nonlocal sent
        transport.send(sent, 0)
        sent += 1
        transport.flush()

    def done(index: int, at: float, status: int, message: str) -> None:
        if status != 0:
            raise RuntimeError(f"request {index} failed with status {status}: {message}")
        if meter.answered():
            ask()
        else:
            over.set()

    transport = Http2Transport(url, [request], done, channels=2, timeout_s=60)
    await transport.open()
    for _ in range(in_flight):
        ask()
    await over.wait()
    await transport.close()


async def _loop(kind: str, url: str, request: bytes, in_flight: int, seconds: float) -> dict[str, float]:
    meter = _Meter(in_flight, seconds)
    await {"grpc": _over_grpc, "http2": _over_http2, "tritonclient": _over_tritonclient}[kind](
        url, request, in_flight, meter
    )
    return meter.result()


if __name__ == "__main__":
    kind, url, in_flight, seconds = sys.argv[1:]
    print(json.dumps(uvloop.run(_loop(kind, url, sys.stdin.buffer.read(), int(in_flight), float(seconds)))))
