"""Shared memory against plain gRPC by size: CPU of client and server per call, and p50, in slices that alternate.

`in` sends a tensor and gets one number back, `both` gets the tensor back. The server is a real Triton whose response
cache answers in C++; it hashes every input, whichever way that came.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper

from benchmarks.row import Row, from_repetitions
from clients import Client, Model
from clients.datatypes import Array
from clients.regions import RegionPool
from server import TritonServer
from server.environment import find_installation

SIZES = (1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 8 << 20)
KINDS = {"in": "a tensor in, one number out", "both": "a tensor in and out"}
SLICES = 6


class Cost(NamedTuple):
    """The cost of one call in microseconds; CPU is that of client and server together."""

    client_us: float
    server_us: float
    p50_us: float

    @property
    def cpu_us(self) -> float:
        """Both sides."""
        return self.client_us + self.server_us


def measure(repository: Path, *, repetitions: int = 5) -> list[Row]:
    """A row per size and kind: CPU with shared memory over CPU without."""
    rows = []
    with _server() as server:
        tree = psutil.Process(server.pid)
        headers = server.admin_headers
        with Client(server.grpc_url, headers=headers) as plain, Client(server.grpc_url, headers=headers) as shared:
            shared.pool = RegionPool("system", shared.addresses, worth_bytes=1)  # tensors of any size
            for kind, what in KINDS.items():
                for size in SIZES:
                    x, name = np.ones((1, size // 4), np.float32), kind if kind == "in" else f"{kind}_{size}"
                    ways = [functools.partial(_ask, client.model(name), x) for client in (shared, plain)]
                    pairs = [_compare(ways, tree, calls=_calls(size)) for _ in range(repetitions)]
                    rows.append(_row(f"shared memory / plain gRPC, CPU per call, {_text(size)}, {what}", pairs))
    return rows


def _ask(model: Model, x: Array) -> Array:
    return model(x=x)["y"]


def _row(name: str, pairs: list[list[Cost]]) -> Row:
    shared, plain = (
        Cost(*(statistics.median(v) for v in zip(*costs, strict=True))) for costs in zip(*pairs, strict=True)
    )
    p50 = statistics.median(ours.p50_us / theirs.p50_us for ours, theirs in pairs)
    return from_repetitions(
        name,
        [ours.cpu_us / theirs.cpu_us for ours, theirs in pairs],
        unit="x",
        detail=f"client {shared.client_us:.0f} against {plain.client_us:.0f} us, server {shared.server_us:.0f} against "
        f"{plain.server_us:.0f} us; p50 {shared.p50_us:.0f} against {plain.p50_us:.0f} us ({p50:.2f} x)",
    )


def _compare(ways: Sequence[Callable[[], object]], tree: psutil.Process, *, calls: int) -> list[Cost]:
    for way in ways:
        for _ in range(3):
            way()
    slices = [[_take(way, tree, calls) for way in ways] for _ in range(SLICES)]
    return [
        Cost(
            sum(client for client, _, _ in way) / (calls * SLICES) * 1e6,
            sum(server for _, server, _ in way) / (calls * SLICES) * 1e6,
            statistics.median(latency for _, _, latencies in way for latency in latencies) * 1e6,
        )
        for way in zip(*slices, strict=True)
    ]


def _take(way: Callable[[], object], tree: psutil.Process, calls: int) -> tuple[float, float, list[float]]:
    latencies: list[float] = []
    server_s, client_s = _cpu_s(tree), time.process_time()
    for _ in range(calls):
        start = time.perf_counter()
        way()
        latencies.append(time.perf_counter() - start)
    return time.process_time() - client_s, _cpu_s(tree) - server_s, latencies


def _cpu_s(process: psutil.Process) -> float:
    """CPU seconds so far, to a nanosecond: the clock of psutil's own figure ticks every 10 ms."""
    total_ns = 0
    for thread in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total_ns += int((thread / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def _calls(size: int) -> int:
    return max(15, min(200, (24 << 20) // size))


def _text(size: int) -> str:
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size >> 10} kB"


@contextlib.contextmanager
def _server() -> Iterator[TritonServer]:
    caches = find_installation().tritonserver.parents[1] / "caches"
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder, "in"), "ReduceMax", -1, 1)
        for size in SIZES:
            _write(Path(folder, f"both_{size}"), "Identity", size // 4, size // 4)
        extra = (f"--cache-directory={caches}", f"--cache-config=local,size={256 << 20}")
        with TritonServer(folder, stop_timeout_s=0, extra=extra) as server:
            yield server


def _write(folder: Path, operator: str, length: int, out: int) -> None:
    axes = {"axes": [1]} if operator == "ReduceMax" else {}
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], **axes)],
        operator,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", length if length > 0 else "m"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", out])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "1").mkdir(parents=True)
    onnx.save(model, folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(
        'backend: "onnxruntime"\nmax_batch_size: 1\nresponse_cache { enable: true }\n'
        f'input [ {{ name: "x" data_type: TYPE_FP32 dims: [ {length} ] }} ]\n'
        f'output [ {{ name: "y" data_type: TYPE_FP32 dims: [ {out} ] }} ]\n'
        "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
    )
