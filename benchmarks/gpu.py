"""Measure exported models on a GPU: accuracy, served against bare, instances x batch: `python -m benchmarks.gpu`.

It needs no network, no Docker and no TensorRT builder: the embedded Triton, onnxruntime-gpu and exported models. Where
there is no GPU, or with --dry-run, it runs the same steps in small sizes on the CPU, and marks every row so.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import itertools
import json
import shutil
import statistics
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format  # type: ignore[import-untyped]
from rich.table import Table

from benchmarks import closed_loop
from clients import Client, codec
from export import recipes
from export.command import default_repository
from export.config import config as configs
from export.engine import gpu
from export.precision.compare import typical
from export.recipe.measure import Reference, evaluate, parity
from export.recipe.recipe import Array, Arrays, answers
from export.repository.manifest import Manifest
from fathom.console.output import err, out
from loadtests.target.hardware import describe_hardware
from server import TritonServer

MODELS = ("mobilenet_v2", "minilm")
PACKAGES = ("nvidia-pytriton", "onnxruntime-gpu", "onnxruntime", "tritonclient", "torch", "numpy")
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
GPU_FIELDS = ("name", "driver_version", "compute_cap", "memory.total", "power.limit", "clocks.sm", "clocks.max.sm")
WARM_RUNS = 3


@dataclass(frozen=True)
class Sizes:
    """How much is measured. `bare_batches` are those of the loop without a server, `request_rows` the rows of one
    served request; `in_flight` is for requests of one row, over `clients` processes. A measurement takes `seconds`,
    and what is compared alternates for `rounds`."""

    device: str = "cuda"
    bare_batches: tuple[int, ...] = (1, 8, 32, 128)
    request_rows: tuple[int, ...] = (1, 32)
    in_flight: int = 256
    clients: int = 4
    seconds: float = 1.0
    rounds: int = 3
    instances: tuple[int, ...] = (1, 2, 4)
    max_batches: tuple[int, ...] = (32, 128)
    evaluated_rows: int = 450


DRY = Sizes("cpu", (1, 2), (2,), 4, 1, 0.1, 1, (2,), (32,), 8)


@dataclass(frozen=True)
class Subject:
    """One exported model at the precision of its repository."""

    model: str
    precision: str
    folder: Path

    @property
    def onnx(self) -> Path:
        """The graph."""
        return self.folder / "1" / "model.onnx"

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.model} {self.precision}"

    def reference(self) -> Reference:
        """The rows it is judged on, with the answers of its source."""
        return Reference.read(self.folder / "1" / "reference.npz")

    def rows(self, batch: int) -> dict[str, Array]:
        """A batch of these rows, around the median length where they are ragged."""
        return typical(self.reference().evaluation, batch)


class Bare:
    """ONNX Runtime without a server. Raises RuntimeError where it falls back to another device."""

    def __init__(self, onnx: Path, device: str) -> None:
        import onnxruntime

        self._make, self.device = onnxruntime.OrtValue.ortvalue_from_numpy, device
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if device == "cuda":
            onnxruntime.preload_dlls()
        self.session = onnxruntime.InferenceSession(str(onnx), options, providers=[PROVIDERS[device]])
        if (given := self.session.get_providers())[0] != PROVIDERS[device]:
            raise RuntimeError(f"ONNX Runtime was asked for {PROVIDERS[device]} and runs on {given[0]}")
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __call__(self, arrays: Arrays) -> dict[str, Array]:
        """Named arrays in host memory in, and out."""
        return dict(zip(self.outputs, self.session.run(self.outputs, dict(arrays)), strict=True))

    def on_device(self, arrays: Arrays) -> Callable[[], None]:
        """A run whose inputs and outputs stay in the device's memory."""
        binding = self.session.io_binding()
        held = [(name, self._make(np.ascontiguousarray(array), self.device, 0)) for name, array in arrays.items()]
        for name, value in held:
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, self.device, 0)

        def run(_held: object = held) -> None:  # a binding does not keep its inputs alive
            self.session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run


def rate_per_s(run: Callable[[], Any], seconds: float) -> float:
    """Runs a second over about `seconds`, after some that do not count."""
    for _ in range(WARM_RUNS):
        run()
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        run()
        count += 1
    return count / elapsed


def accuracy(subject: Subject, sizes: Sizes) -> list[dict[str, Any]]:
    """Parity with the source and the recipe's figures, on the device."""
    kept = subject.reference()
    recipe, evaluation, source = recipes.find(subject.model), kept.evaluation, dict(kept.outputs)
    whole = len(evaluation) <= sizes.evaluated_rows
    if not whole:  # the recipe's figures are of all rows; parity is of any
        inputs = {name: rows[: sizes.evaluated_rows] for name, rows in evaluation.inputs.items()}
        evaluation = type(evaluation)(inputs, {}, evaluation.mask)
        source = {name: rows[: sizes.evaluated_rows] for name, rows in source.items()}
    given = answers(Bare(subject.onnx, sizes.device), evaluation, batch=8)
    if not whole:
        return [{"rows": len(evaluation), **asdict(parity(given, source))}]
    found = evaluate(recipe, given, kept)
    assert found.parity is not None
    return [{"rows": len(evaluation), **found.accuracy, **asdict(found.parity)}]


def served(subject: Subject, sizes: Sizes) -> list[dict[str, Any]]:
    """The committed configuration at saturation, as a share of the bare loop at its best batch, in turn with it."""
    bare = Bare(subject.onnx, sizes.device)
    loops = [(batch, bare.on_device(subject.rows(batch))) for batch in sizes.bare_batches]
    best, loop = max(loops, key=lambda each: each[0] * rate_per_s(each[1], sizes.seconds))
    rows = []
    with _server(subject, sizes.device) as server:
        for count in sizes.request_rows:
            found, asked = [], _request(server, subject, count)
            for _ in range(sizes.rounds):
                alone_per_s = best * rate_per_s(loop, sizes.seconds)
                found.append((alone_per_s, *_saturate(server, asked, sizes, count)))
            shares = [rows_per_s / alone_per_s for alone_per_s, rows_per_s, _ in found]
            rows.append(
                {
                    "rows_a_request": count,
                    "served_rows_per_s": statistics.median(each[1] for each in found),
                    "bare_rows_per_s": statistics.median(each[0] for each in found),
                    "bare_batch": best,
                    "served_of_bare": statistics.median(shares),
                    "lowest": min(shares),
                    "highest": max(shares),
                    "client_cpu_us": statistics.median(each[2] for each in found),
                }
            )
    return rows


def instances(subject: Subject, sizes: Sizes) -> list[dict[str, Any]]:
    """Requests of one row a second for each number of instances and largest batch; the committed one has neither."""
    rows = []
    for variant in (None, *itertools.product(sizes.instances, sizes.max_batches)):
        with _server(subject, sizes.device, variant) as server:
            asked = _request(server, subject, 1)
            rates, cpu = zip(*(_saturate(server, asked, sizes, 1) for _ in range(sizes.rounds)), strict=True)
        count, most = variant or ("committed", "committed")
        rows.append(
            {"instances": count, "max_batch": most, "requests_per_s": statistics.median(rates), "lowest": min(rates),
             "highest": max(rates), "client_cpu_us": statistics.median(cpu)}
        )  # fmt: skip
    return rows


STEPS = {"accuracy": accuracy, "served": served, "instances": instances}


@contextmanager
def _server(subject: Subject, device: str, variant: tuple[int, int] | None = None) -> Iterator[TritonServer]:
    """A Triton with this model alone, whose instances refuse to load where ONNX Runtime falls back."""
    with tempfile.TemporaryDirectory(prefix="fathom-gpu-") as room:
        folder = Path(room, subject.model)
        shutil.copytree(subject.folder, folder, ignore=shutil.ignore_patterns("configs", "reference.npz", "*.json"))
        config = folder / "config.pbtxt"
        config.write_text(configuration(config.read_text(encoding="utf-8"), device, variant), encoding="utf-8")
        with TritonServer(room, stop_timeout_s=1 if device == "cuda" else 0) as server:
            yield server


def configuration(text: str, device: str, variant: tuple[int, int] | None = None) -> str:
    """A config.pbtxt for "cuda" or "cpu", with the (instances, max_batch_size) of a variant where one is given."""
    message = configs.parse(text)
    if not message.instance_group:
        message.instance_group.add(count=1)
    group = message.instance_group[0]
    del message.instance_group[1:]
    group.kind = type(group).KIND_GPU if device == "cuda" else type(group).KIND_CPU
    if variant is not None:
        group.count, message.max_batch_size = variant
        del message.dynamic_batching.preferred_batch_size[:]
        kept = [each for each in message.model_warmup if each.batch_size <= message.max_batch_size]
        del message.model_warmup[:]
        message.model_warmup.extend(kept)
    if device == "cuda":
        for key in ("intra_op_thread_count", "inter_op_thread_count"):
            message.parameters.pop(key, None)
    written: str = text_format.MessageToString(message)
    return written


def _request(server: TritonServer, subject: Subject, rows: int) -> bytes:
    with Client(server.grpc_url) as client:
        return codec.encode(client.model(subject.model).spec, subject.rows(rows))


def _saturate(server: TritonServer, asked: bytes, sizes: Sizes, rows: int) -> tuple[float, float]:
    """Rows a second and client CPU microseconds a request of a closed loop from several processes."""
    in_flight = max(1, sizes.in_flight // rows // sizes.clients)

    def drive(_: int) -> dict[str, float]:
        return closed_loop.drive(server.grpc_url, asked, in_flight=in_flight, seconds=sizes.seconds)

    with ThreadPoolExecutor(sizes.clients) as pool:
        done = list(pool.map(drive, range(sizes.clients)))
    return rows * sum(each["rate_per_s"] for each in done), statistics.fmean(each["cpu_us"] for each in done)


def subjects(repositories: Sequence[Path], models: Sequence[str]) -> list[Subject]:
    """The exported models of all repositories (one for each precision)."""
    found = []
    for repository, name in itertools.product(repositories, models):
        folder = repository.resolve() / name
        record = Manifest.read(folder)
        if record is not None and (folder / "1" / "reference.npz").is_file():
            found.append(Subject(name, record.precision, folder))
    return found


def measure(found: Sequence[Subject], sizes: Sizes, steps: Sequence[str], results: Path) -> dict[str, Any]:
    """Every step of every model; the document is written again after each, so that what is cut short is kept."""
    document: dict[str, Any] = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "dry_run": sizes.device == "cpu",
        "gpu": _gpu_now(),
        "hardware": describe_hardware(),
        "versions": dict(_versions()),
        "sizes": asdict(sizes),
        **{step: [] for step in steps},
        "failed": [],
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    for step, subject in itertools.product(steps, found):
        began = time.monotonic()
        try:
            rows = STEPS[step](subject, sizes)
        except Exception as error:  # the next ones may still be measured
            traceback.print_exc()
            document["failed"].append({"step": step, "model": subject.name, "why": str(error).splitlines()[0]})
            continue
        document[step] += [{"model": subject.model, "precision": subject.precision, **row} for row in rows]
        results.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        err.print(f"{step}, {subject.name}: {time.monotonic() - began:.0f} s", soft_wrap=True)
    return document


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)


def _gpu_now() -> dict[str, str] | None:
    if gpu.find() is None:
        return None
    command = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    return dict(zip(GPU_FIELDS, map(str.strip, said.splitlines()[0].split(",")), strict=True))


def tables(document: dict[str, Any]) -> Iterator[Table]:
    """A table per step."""
    on = "CPU, dry run" if document["dry_run"] else (document["gpu"] or {}).get("name", "GPU")
    for step in STEPS:
        rows = document.get(step) or []
        if rows:
            made = Table(*dict.fromkeys(key for row in rows for key in row), box=None, title=f"{step} ({on})")
            for row in rows:
                made.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
            yield made


def main() -> int:
    """Exit status 1 where a step failed, 2 where there is nothing to measure."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    command.add_argument("--dry-run", action="store_true", help="small sizes on the CPU; chosen where there is no GPU")
    command.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help=f"default: {' '.join(MODELS)}")
    command.add_argument("--steps", nargs="+", default=tuple(STEPS), choices=tuple(STEPS))
    command.add_argument(
        "--model-repository", nargs="+", type=Path, default=[default_repository()], metavar="DIR",
        help="exported models; one folder for each precision",
    )  # fmt: skip
    command.add_argument("--output", type=Path, default=Path("results/gpu.json"), metavar="FILE")
    given = command.parse_args()
    found = subjects(given.model_repository, given.models)
    if not found:
        err.print("no exported model was found: run `fathom export`, or name a --model-repository", soft_wrap=True)
        return 2
    dry = given.dry_run or gpu.find() is None
    document = measure(found, DRY if dry else Sizes(), given.steps, given.output)
    for table in tables(document):
        out.print(table)
    for failed in document["failed"]:
        err.print(f"failed: {failed['step']}, {failed['model']}: {failed['why']}", markup=False, soft_wrap=True)
    err.print(f"results: {given.output}{', a dry run on the CPU' if dry else ''}", soft_wrap=True)
    return 1 if document["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
