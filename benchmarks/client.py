"""The clients against tritonclient, the library underneath: CPU and time per call, blocking and asyncio.

Both libraries take a numpy array and give one back, in the same process, in slices of a few calls that alternate, so
that what else happens on the machine meets both alike. CPU is that of the process, gRPC's threads included. Each
payload of each repetition has a process of its own, since large arrays change how the next ones are allocated. The
server is a real Triton whose response cache answers in C++. One process is
`python -m benchmarks.client URL blocking|waiting PAYLOAD`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import uvloop
from onnx import TensorProto, helper

from benchmarks.row import Row, from_repetitions
from clients import AsyncClient, Client
from clients.datatypes import Array
from server import TritonServer
from server.environment import find_installation

SLICES = 20
WARM_CALLS = 20


class Payload(NamedTuple):
    """An input and how many calls of it make one slice."""

    what: str
    array: Array
    datatype: str
    calls: int


PAYLOADS = {
    "tiny": Payload("a 4-byte tensor", np.ones((1, 1), np.float32), "FP32", 50),
    "image": Payload("a 150 kB image", np.full((1, 224 * 224 * 3), 7, np.uint8), "UINT8", 15),
    "large": Payload("a 600 kB tensor", np.ones((1, 150_000), np.float32), "FP32", 10),
}


class Cost(NamedTuple):
    """Per call, in microseconds."""

    cpu_us: float
    p50_us: float


def measure(repository: Path, *, repetitions: int = 5) -> list[Row]:
    """CPU per call of Client and AsyncClient over that of tritonclient and tritonclient.aio."""
    pairs: dict[tuple[str, str], list[tuple[Cost, Cost]]] = {}
    with _identities() as server:
        for _ in range(repetitions):
            for kind in ("blocking", "waiting"):
                for key in PAYLOADS:
                    pairs.setdefault((kind, key), []).append(_measured(server.grpc_url, kind, key))
    names = {"blocking": ("Client", "tritonclient.grpc"), "waiting": ("AsyncClient", "tritonclient.grpc.aio")}
    return [_row(*names[kind], key, costs) for (kind, key), costs in pairs.items()]


def _measured(url: str, kind: str, key: str) -> tuple[Cost, Cost]:
    command = [sys.executable, "-m", "benchmarks.client", url, kind, key]
    ours, theirs = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return Cost(*ours), Cost(*theirs)


def _row(name: str, twin: str, key: str, pairs: list[tuple[Cost, Cost]]) -> Row:
    ours, theirs = (
        Cost(*(statistics.median(values) for values in zip(*costs, strict=True))) for costs in zip(*pairs, strict=True)
    )
    p50_ratio = statistics.median(own.p50_us / other.p50_us for own, other in pairs)
    return from_repetitions(
        f"{name} / {twin}, CPU per call, {PAYLOADS[key].what}",
        [own.cpu_us / other.cpu_us for own, other in pairs],
        unit="x",
        wanted="<= 0.9",
        detail=f"{ours.cpu_us:.0f} against {theirs.cpu_us:.0f} us; "
        f"p50 {ours.p50_us:.0f} against {theirs.p50_us:.0f} us ({p50_ratio:.2f} x)",
    )


def _blocking(url: str, key: str) -> tuple[Cost, Cost]:
    payload = PAYLOADS[key]
    with Client(url) as client, triton.InferenceServerClient(url) as twin:
        model = client.model(key)

        def ours() -> Array:
            return model(x=payload.array)["y"]

        def theirs() -> Array | None:
            given = triton.InferInput("x", payload.array.shape, payload.datatype)
            given.set_data_from_numpy(payload.array)
            answer: Array | None = twin.infer(key, [given]).as_numpy("y")
            return answer

        def take(call: Callable[[], object], calls: int) -> tuple[float, list[float]]:
            latencies, cpu = [], time.process_time()
            for _ in range(calls):
                start = time.perf_counter()
                call()
                latencies.append(time.perf_counter() - start)
            return time.process_time() - cpu, latencies

        for way in (ours, theirs):
            take(way, WARM_CALLS)
        return _summed([[take(way, payload.calls) for way in (ours, theirs)] for _ in range(SLICES)], payload.calls)


async def _waiting(url: str, key: str) -> tuple[Cost, Cost]:
    payload = PAYLOADS[key]
    async with AsyncClient(url) as client, triton_aio.InferenceServerClient(url) as twin:
        model = await client.model(key)

        async def ours() -> Array:
            return (await model(x=payload.array))["y"]

        async def theirs() -> Array | None:
            given = triton_aio.InferInput("x", list(payload.array.shape), payload.datatype)
            given.set_data_from_numpy(payload.array)
            answer: Array | None = (await twin.infer(key, [given])).as_numpy("y")
            return answer

        async def take(call: Callable[[], Awaitable[object]], calls: int) -> tuple[float, list[float]]:
            latencies, cpu = [], time.process_time()
            for _ in range(calls):
                start = time.perf_counter()
                await call()
                latencies.append(time.perf_counter() - start)
            return time.process_time() - cpu, latencies

        for way in (ours, theirs):
            await take(way, WARM_CALLS)
        slices = [[await take(way, payload.calls) for way in (ours, theirs)] for _ in range(SLICES)]
        return _summed(slices, payload.calls)


def _summed(slices: list[list[tuple[float, list[float]]]], calls: int) -> tuple[Cost, Cost]:
    """The cost of each way over all its slices."""
    ours, theirs = (
        Cost(
            sum(cpu_s for cpu_s, _ in way) / (calls * len(way)) * 1e6,
            statistics.median(latency for _, latencies in way for latency in latencies) * 1e6,
        )
        for way in zip(*slices, strict=True)
    )
    return ours, theirs


@contextmanager
def _identities() -> Iterator[TritonServer]:
    """One model per payload that gives back what it takes, from Triton's response cache."""
    caches = find_installation().tritonserver.parents[1] / "caches"
    with tempfile.TemporaryDirectory() as folder:
        for name, payload in PAYLOADS.items():
            _write_identity(Path(folder, name), payload)
        extra = (f"--cache-directory={caches}", "--cache-config=local,size=16777216")
        with TritonServer(folder, stop_timeout_s=0, extra=extra) as server:
            yield server


def _write_identity(folder: Path, payload: Payload) -> None:
    tensor = (
        getattr(TensorProto, {"FP32": "FLOAT"}.get(payload.datatype, payload.datatype)),
        ["n", *payload.array.shape[1:]],
    )
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", *tensor)],
        [helper.make_tensor_value_info("y", *tensor)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "1").mkdir(parents=True)
    onnx.save(model, folder / "1" / "model.onnx")
    side = f"data_type: TYPE_{payload.datatype} dims: [ {payload.array.shape[1]} ]"
    (folder / "config.pbtxt").write_text(
        f'backend: "onnxruntime"\nmax_batch_size: 8\ninput [ {{ name: "x" {side} }} ]\n'
        f'output [ {{ name: "y" {side} }} ]\nresponse_cache {{ enable: true }}\n'
    )


if __name__ == "__main__":
    url, kind, key = sys.argv[1:]
    print(json.dumps(uvloop.run(_waiting(url, key)) if kind == "waiting" else _blocking(url, key)))
