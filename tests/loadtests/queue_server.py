"""A reference queue behind the KServe-v2 gRPC protocol: one server, first come first served, known service times.

It exists to hold the load test against queueing theory, so that is all it does: an answer leaves at the instant the
theory says (max(arrival, previous departure) + service time), computed in virtual time so that a late wake-up never
adds up. It is no stand-in for Triton; what must be true of a real server is tested against the real server.

Run as `python queue_server.py --service-ms 5 [--exponential] [--freeze-every-s 10 --freeze-s 1]`; prints its port.
"""

# ruff: noqa: N802  (the methods' names are the protocol's)
from __future__ import annotations

import argparse
import asyncio
import time
from collections import deque

import grpc
import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from loadtests.generator.clock import Alarm, take_priority

MODEL = "queue"


class Queue:
    """The virtual single server."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.service_s = service_times_s(args.service_ms, args.exponential, args.seed)
        self.freeze_every_s, self.freeze_s = args.freeze_every_s, args.freeze_s
        self.served = 0
        self.free_at_s = 0.0
        self.born_s = time.monotonic()
        self.waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        self.alarm = Alarm(asyncio.get_running_loop(), self._depart)

    async def serve(self) -> None:
        now_s = time.monotonic()
        start_s = max(now_s, self.free_at_s)
        self.free_at_s = self._finish_at(start_s, float(self.service_s[self.served % len(self.service_s)]))
        self.served += 1
        departure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((self.free_at_s, departure))
        if len(self.waiting) == 1:
            self.alarm.set(self.free_at_s)
        await departure

    def _finish_at(self, start_s: float, service_s: float) -> float:
        """The instant the work is done when nothing moves during a freeze."""
        if not self.freeze_every_s:
            return start_s + service_s
        at_s = start_s - self.born_s
        while True:
            cycle, within_s = divmod(at_s, self.freeze_every_s)
            awake_s = self.freeze_every_s - self.freeze_s
            if within_s + service_s <= awake_s:
                return self.born_s + at_s + service_s
            service_s -= max(awake_s - within_s, 0.0)
            at_s = (cycle + 1) * self.freeze_every_s

    def _depart(self) -> None:
        now_s = time.monotonic()
        while self.waiting and self.waiting[0][0] <= now_s:
            departure = self.waiting.popleft()[1]
            if not departure.done():
                departure.set_result(None)
        if self.waiting:
            self.alarm.set(self.waiting[0][0])


def service_times_s(service_ms: float, exponential: bool, seed: int, count: int = 1_000_000) -> np.ndarray:
    """The service time of each request in the order of arrival."""
    if not exponential:
        return np.full(1, service_ms / 1e3)
    return np.random.default_rng(seed).exponential(service_ms / 1e3, count)


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """As much of the protocol as a load test uses."""

    def __init__(self, queue: Queue, args: argparse.Namespace) -> None:
        self.queue = queue
        self.args = args
        output = np.zeros(4, dtype=np.float32)
        self.answer = service_pb2.ModelInferResponse(
            model_name=MODEL,
            outputs=[service_pb2.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=[1, 4])],
            raw_output_contents=[output.tobytes()],
        )

    async def ServerLive(self, request, context):
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request, context):
        return service_pb2.ServerReadyResponse(ready=True)

    async def ModelReady(self, request, context):
        return service_pb2.ModelReadyResponse(ready=request.name == MODEL and not self.args.not_ready)

    async def ModelMetadata(self, request, context):
        if request.name != MODEL:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        tensor = service_pb2.ModelMetadataResponse.TensorMetadata
        return service_pb2.ModelMetadataResponse(
            name=MODEL,
            versions=["1"],
            platform="queue",
            inputs=[tensor(name="x", datatype="FP32", shape=[-1, 4])],
            outputs=[tensor(name="y", datatype="FP32", shape=[-1, 4])],
        )

    async def ModelConfig(self, request, context):
        config = model_config_pb2.ModelConfig(name=MODEL, max_batch_size=8)
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelInfer(self, request, context):
        if self.args.refuse:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.args.refuse)
        if self.args.broken_after and self.queue.served >= self.args.broken_after:
            await context.abort(grpc.StatusCode.INTERNAL, "Stub process 'queue_0' is not healthy.")
        if self.args.bound and len(self.queue.waiting) >= self.args.bound:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
        await self.queue.serve()
        return self.answer


async def serve(args: argparse.Namespace) -> None:
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(Queue(args), args), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--service-ms", type=float, default=5.0)
    parser.add_argument("--exponential", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--freeze-every-s", type=float, default=0.0)
    parser.add_argument("--freeze-s", type=float, default=0.0)
    parser.add_argument("--bound", type=int, default=0, help="longest queue; beyond it requests are UNAVAILABLE")
    parser.add_argument("--broken-after", type=int, default=0, help="answer INTERNAL after this many inferences")
    parser.add_argument("--refuse", default="", help="answer every inference with this INVALID_ARGUMENT message")
    parser.add_argument("--not-ready", action="store_true")
    args = parser.parse_args()
    take_priority()  # what is to be measured is the queue, not the scheduler
    try:
        import uvloop

        uvloop.run(serve(args))
    except ImportError:
        asyncio.run(serve(args))


if __name__ == "__main__":
    main()
