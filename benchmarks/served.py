"""Served images/s at saturation against a bare two-process ONNX Runtime loop on the same cores.

The client's share of the cores is inside the served figure: nothing is subtracted. Besides the bundled model (width
0.5, 128 x 128) there is one of ImageNet's size (width 1.0, 224 x 224). The bare loop has its best batch size, chosen
before; then bare and served alternate, and each served figure is divided by the mean of the bare ones around it, since
the speed of a shared machine changes within seconds.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import bare, closed_loop
from benchmarks.row import Row, from_repetitions
from clients import Client, codec
from clients.placement import Place, Placement
from clients.shared_memory import Region
from export import recipes
from export.exporter import export_model
from fathom.console.options import default_config_name
from server import TritonServer

BARE_BATCHES = (1, 2, 4)
WANTED = ">= 0.9"


@dataclass(frozen=True)
class Case:
    """One way to ask: images per request, and how many requests are in flight."""

    size: int
    batch: int
    in_flight: int
    shared_memory: bool = False  # of a client on the server's machine

    @property
    def name(self) -> str:
        """For the table."""
        images = "1 image" if self.batch == 1 else f"{self.batch} images"
        way = " in shared memory" if self.shared_memory else ""
        return f"served / bare, mobilenet_v2 {self.size}x{self.size}, {images} a request{way}"


CASES = (
    *(Case(224, 1, 16), Case(224, 4, 8), Case(224, 8, 6)),
    *(Case(128, 1, 24), Case(128, 8, 8), Case(128, 32, 6), Case(128, 8, 8, True), Case(128, 32, 6, True)),
)


def measure(repository: Path, *, repetitions: int = 9, seconds: float = 1.0) -> list[Row]:
    """A row per case."""
    ratios: dict[Case, list[float]] = {case: [] for case in CASES}
    details: dict[Case, str] = {}
    with _imagenet_sized(repository) as imagenet:
        for size, folder in {128: repository, 224: imagenet}.items():
            model, cases = folder / "mobilenet_v2" / "1" / "model.onnx", [case for case in CASES if case.size == size]
            with _only_mobilenet(folder, default_config_name(folder)) as server, ExitStack() as regions:
                requests = {case: _request(server, case, regions) for case in cases}
                best = _best_batch(model, seconds)
                before = bare.measure(model, batch=best, seconds=seconds)
                for case in repetitions * cases:
                    found = closed_loop.drive(
                        server.grpc_url, requests[case], in_flight=case.in_flight, seconds=seconds
                    )
                    after = bare.measure(model, batch=best, seconds=seconds)
                    images_per_s, bare_per_s = found["rate_per_s"] * case.batch, (before + after) / 2
                    ratios[case].append(images_per_s / bare_per_s)
                    details[case] = (
                        f"{images_per_s:.0f} of {bare_per_s:.0f} images/s (at batch {best}) in the last repetition, "
                        f"{found['cpu_us']:.0f} us client CPU a request"
                    )
                    before = after
    return [from_repetitions(case.name, ratios[case], unit="x", wanted=WANTED, detail=details[case]) for case in CASES]


def _best_batch(model: Path, seconds: float) -> int:
    """The fastest of BARE_BATCHES by the median of three turns."""
    rates = {batch: [0.0] * 3 for batch in BARE_BATCHES}
    for turn in range(3):
        for batch in BARE_BATCHES:
            rates[batch][turn] = bare.measure(model, batch=batch, seconds=seconds)
    return max(rates, key=lambda batch: statistics.median(rates[batch]))


@contextmanager
def _imagenet_sized(repository: Path) -> Iterator[Path]:
    """A repository whose mobilenet_v2 has ImageNet's size (width 1.0, 224 x 224, 1001 labels), by `--weights`.

    The weights are random: speed does not depend on them, as long as activations stay of ordinary magnitude.
    """
    import torch
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    with tempfile.TemporaryDirectory() as folder:
        weights, copy = Path(folder, "weights"), Path(folder, "model_repository")
        torch.manual_seed(0)
        model = MobileNetV2ForImageClassification(MobileNetV2Config(num_labels=1001))
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                torch.nn.init.kaiming_normal_(module.weight)
        model.save_pretrained(weights)
        shutil.copytree(repository, copy)
        export_model(recipes.find("mobilenet_v2"), copy, weights=str(weights))
        yield copy


@contextmanager
def _only_mobilenet(repository: Path, config_name: str | None) -> Iterator[TritonServer]:
    """A server of nothing else, so that no other model's processes share the cores."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(repository / "mobilenet_v2", Path(folder, "mobilenet_v2"))
        with TritonServer(folder, config_name=config_name, stop_timeout_s=0) as server:
            yield server


def _request(server: TritonServer, case: Case, regions: ExitStack) -> bytes:
    """One for all that are in flight: nobody writes to a region that they share. It is discarded with `regions`."""
    pixels = np.random.default_rng(0).integers(0, 256, (case.batch, case.size, case.size, 3), dtype=np.uint8)
    with Client(server.grpc_url, headers=server.admin_headers) as client:
        spec = client.model("mobilenet_v2").spec
        if not case.shared_memory:
            return codec.encode(spec, {"pixels": pixels})
        region = Region(pixels.nbytes)
        regions.callback(region.discard)
        region.write(0, pixels)
        client.run(client.call("SystemSharedMemoryRegister", region.registration()))
        placed = Placement(region, inputs={"pixels": Place(region.name, pixels.nbytes)})
        return codec.encode(spec, {"pixels": pixels}, placed=placed)
