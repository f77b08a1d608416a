"""Record how the embedded Triton batches models whose batches sleep a known time: `python record.py [NAME ...]`.

Adds to `recorded.jsonl` beside this file: for each configuration and load the seed of the arrivals, latencies and batch
histogram as measured, and the measured batch times to simulate with. `test_recorded.py` needs nothing else. All models
named are loaded at once and asked by one generator. Batches sleep and the server gets a higher priority, so that a busy
machine disturbs little.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from loadtests.generator.messages import Limits
from loadtests.generator.process import GeneratorProcess, GeneratorSettings
from loadtests.simulation import Batcher, BatchTimes, Pipeline
from loadtests.target.client import Target
from loadtests.workload.schedule import poisson
from server import TritonServer

RECORDED = Path(__file__).parent / "recorded.jsonl"
LOADS = (0.5, 0.7, 0.85)
REQUESTS = 1000
BASE_MS, ROW_MS, MAX_BATCH = 60, 15, 8

SLEEPER = """
import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        given = json.loads(args["model_config"])["parameters"]
        self.base_s, self.row_s = (float(given[name]["string_value"]) / 1e3 for name in ("base_ms", "row_ms"))

    def execute(self, requests):
        end_s = time.perf_counter() + self.base_s
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            end_s += self.row_s * len(x)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]))
        time.sleep(max(end_s - time.perf_counter(), 0))
        return responses
"""

CONFIG = """
backend: "python"
max_batch_size: {max_batch}
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ {dim} ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ {dim} ] }} ]
instance_group [ {{ kind: KIND_CPU count: {instances} }} ]
parameters {{ key: "base_ms" value {{ string_value: "{base_ms}" }} }}
parameters {{ key: "row_ms" value {{ string_value: "{row_ms}" }} }}
{batching}
"""

PIPELINE = """
platform: "ensemble"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "pipeline_first" model_version: -1
      input_map { key: "x" value: "x" } output_map { key: "y" value: "between" }
    },
    {
      model_name: "pipeline_second" model_version: -1
      input_map { key: "x" value: "between" } output_map { key: "y" value: "y" }
    }
  ]
}
"""


@dataclasses.dataclass(frozen=True)
class Served:
    """One model and how it is asked."""

    instances: int = 1
    batching: str = "dynamic_batching { }"
    sizes: tuple[int, ...] = (1,)
    shapes: tuple[int, ...] = (1,)
    base_ms: float = BASE_MS
    row_ms: float = ROW_MS
    fullest: int = MAX_BATCH
    """Rows of the batches that a backlog of these requests makes."""

    @property
    def config(self) -> str:
        dim = 1 if self.shapes == (1,) else -1
        return CONFIG.format(max_batch=MAX_BATCH, dim=dim, **dataclasses.asdict(self))

    @property
    def kinds(self) -> list[tuple[int, int]]:
        """Rows and shape of the requests, each as likely as the others."""
        return [(rows, shape) for rows in self.sizes for shape in self.shapes]

    @property
    def most_per_s(self) -> float:
        """Requests/s under a backlog."""
        batch_ms = self.base_ms + self.row_ms * self.fullest
        return self.instances * self.fullest / batch_ms * 1e3 / float(np.mean(self.sizes))


def delayed(milliseconds: int, more: str = "") -> str:
    return f"dynamic_batching {{ max_queue_delay_microseconds: {milliseconds}000 {more} }}"


BOUNDED = "dynamic_batching { default_queue_policy { max_queue_size: 1000 } }"
MODELS = {
    "one_instance": Served(),
    "two_instances": Served(2),
    "no_batching": Served(2, "", fullest=1),
    "delay": Served(1, delayed(30)),
    "long_delay": Served(2, delayed(120)),
    "preferred": Served(1, "dynamic_batching { preferred_batch_size: [ 4 ] }", fullest=4),
    "preferred_delay": Served(2, delayed(120, "preferred_batch_size: [ 4, 6 ]")),
    "bounded": Served(1, BOUNDED),
    "bounded_two": Served(2, BOUNDED),
    "bounded_four": Served(4, BOUNDED),
    "bounded_delay": Served(2, delayed(60, "default_queue_policy { max_queue_size: 1000 }")),
    "sizes": Served(1, sizes=(1, 1, 1, 3)),
    "shapes": Served(2, shapes=(1, 2), fullest=2),
    "shapes_bounded": Served(2, BOUNDED, shapes=(1, 2), fullest=2),
    "pipeline_first": Served(2, base_ms=15, row_ms=15),
    "pipeline_second": Served(1),
}
STEPS = ("pipeline_first", "pipeline_second")
ASKED = [*(name for name in MODELS if name not in STEPS), "pipeline"]


def main() -> None:
    command = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    command.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(ASKED)} (default: all)")
    command.add_argument("--loads", type=float, nargs="*", default=LOADS)
    command.add_argument("--requests", type=int, default=REQUESTS)
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--output", type=Path, default=RECORDED)
    arguments = command.parse_args()
    names = arguments.names or ASKED
    with tempfile.TemporaryDirectory() as scratch, arguments.output.open("a", buffering=1) as results:
        write_repository(Path(scratch), names)
        with TritonServer(scratch, stop_timeout_s=0) as server:
            hasten(server)
            for load in arguments.loads:
                for run in measure(server.grpc_url, names, load, arguments.requests, arguments.seed):
                    results.write(json.dumps(run) + "\n")


def write_repository(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        for model in STEPS if name == "pipeline" else (name,):
            (folder / model / "1").mkdir(parents=True)
            (folder / model / "1" / "model.py").write_text(SLEEPER)
            (folder / model / "config.pbtxt").write_text(MODELS[model].config)
    if "pipeline" in names:
        (folder / "pipeline" / "1").mkdir(parents=True)
        (folder / "pipeline" / "config.pbtxt").write_text(PIPELINE)


def hasten(server: TritonServer) -> None:
    """Higher priority for Triton's threads and its stubs, where that is allowed."""
    pids = [server.pid]
    with contextlib.suppress(OSError):  # nice values count within a session only where Linux groups tasks by it
        Path(f"/proc/{server.pid}/autogroup").write_text("-15")
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, int(task.name), -15)
            pids += [int(child) for child in (task / "children").read_text().split()]


def measure(url: str, names: Sequence[str], load: float, requests: int, seed: int) -> list[dict[str, Any]]:
    """All models at once; of each what a simulation needs and what it must find."""
    served = [MODELS[STEPS[1] if name == "pipeline" else name] for name in names]
    payloads: list[bytes] = []
    columns = []
    for number, (name, model) in enumerate(zip(names, served, strict=True)):
        arrivals_s = poisson(load * model.most_per_s, seed=seed, count=requests)
        drawn = np.random.default_rng([seed, 9]).integers(0, len(model.kinds), requests)
        columns.append((arrivals_s, len(payloads) + drawn, np.full(requests, number)))
        payloads += [encoded(name, rows, shape) for rows, shape in model.kinds]
    arrivals_s, choices, owners = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(arrivals_s, kind="stable")
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(Target(url, name)) for name in names]
        first = [encoded(name, *model.kinds[0]) for name, model in zip(names, served, strict=True)]
        overheads_s = [overhead_s(target, payload) for target, payload in zip(targets, first, strict=True)]
        worker = stack.enter_context(GeneratorProcess(GeneratorSettings(url, payloads, timeout_s=30)))
        before = [target.statistics() for target in targets]
        record, outcome = worker.run_schedule(
            arrivals_s[order], choices[order].astype(np.int32), Limits(100_000), seed=seed
        )
        time.sleep(0.3)  # Triton counts a request a moment after it has answered it
        after = [target.statistics() for target in targets]
        lag_ms = np.percentile(record.send_lags_ms(), 99)
        print(
            f"load {load}: {len(record)} requests, {outcome.priority}, send lag p99 {lag_ms:.2f} ms {outcome.messages}",
            flush=True,
        )
        found = []
        for number, target in enumerate(targets):
            latencies_ms = record.where(owners[order] == number).latencies_ms()
            pairs = zip(before[number], after[number], strict=True)
            tables = {now.name: batch_table(then, now) for then, now in pairs}
            times = {step: BatchTimes({1: {rows: s for rows, (_, s) in t.items()}}) for step, t in tables.items()}
            steps = Pipeline.from_configs(names[number], target.config, times).steps
            found.append(
                {
                    "name": names[number],
                    "load": load,
                    "seed": seed,
                    "rate_per_s": load * served[number].most_per_s,
                    "requests": requests,
                    "kinds": served[number].kinds,
                    "overhead_s": round(overheads_s[number], 6),
                    "steps": [
                        {"name": s.name, "after": s.after, "batcher": settings(s.batcher), "batches": tables[s.name]}
                        for s in steps
                    ],
                    "failed": int(np.isinf(latencies_ms).sum()),
                    "p50_ms": round(float(np.percentile(latencies_ms, 50)), 3),
                    "p99_ms": round(float(np.percentile(latencies_ms, 99)), 3),
                }
            )
    return found


def settings(batcher: Batcher) -> dict[str, Any]:
    """What differs from the defaults."""
    usual = dataclasses.asdict(Batcher())
    return {name: value for name, value in dataclasses.asdict(batcher).items() if value != usual[name]}


def encoded(model: str, rows: int, shape: int) -> bytes:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[rows, shape])
    values = np.zeros((rows, shape), np.float32).tobytes()
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[values]).SerializeToString()


def overhead_s(target: Target, payload: bytes, repeats: int = 5) -> float:
    """What a lone request takes outside queue and batch: the median of its latency less the server's own account."""
    found = []
    target.infer(payload, 10)
    for _ in range(repeats):
        time.sleep(0.1)  # Triton counts a request a moment after it has answered it
        before = target.statistics()
        latency_s = target.infer(payload, 10) / 1e3
        time.sleep(0.1)
        parts = ("queue", "compute_input", "compute_infer", "compute_output")
        for then, now in zip(before, target.statistics(), strict=True):
            for part in parts:
                latency_s -= (getattr(now.inference_stats, part).ns - getattr(then.inference_stats, part).ns) / 1e9
        found.append(latency_s)
    return float(np.median(found))


def batch_table(then: Any, now: Any) -> dict[int, tuple[int, float]]:
    """By rows: how many batches, and their mean seconds."""
    earlier = {batch.batch_size: batch for batch in then.batch_stats}
    table = {}
    for batch in now.batch_stats:
        old = earlier.get(batch.batch_size)
        count = batch.compute_infer.count - (old.compute_infer.count if old else 0)
        parts = ("compute_input", "compute_infer", "compute_output")
        ns = sum(getattr(batch, part).ns - (getattr(old, part).ns if old else 0) for part in parts)
        if count:
            table[batch.batch_size] = (count, round(ns / 1e9 / count, 6))
    return table


if __name__ == "__main__":
    main()
