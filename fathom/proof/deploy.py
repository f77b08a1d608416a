"""Model repositories with one model in one configuration, the server that runs them, and the requests sent to it."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clients import Client, codec
from clients.cuda_memory import CudaRegion
from clients.placement import Place, Placement
from clients.regions import output_size
from clients.shared_memory import Region, SystemRegion
from clients.spec import ModelSpec
from export import config as configs
from fathom.bench import closed_loop
from fathom.proof import chain
from fathom.proof.settings import Settings
from fathom.proof.subject import Subject
from server import TritonServer

ALIGNMENT = 64
RELEASE_S = 15.0
DEVICE_TENSORS = "FORCE_CPU_ONLY_INPUT_TENSORS"


@dataclass(frozen=True)
class Variant:
    """What of a configuration is varied; `device_tensors` hands tensors over on the GPU."""

    instances: int = 2
    max_batch_size: int = 32
    queue_delay_us: int = 0
    device_tensors: bool = False

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def configuration(text: str, variant: Variant | None, device: str, *, device_tensors: bool = False) -> str:
    """config.pbtxt for a device, "cuda" or "cpu"; without a variant it keeps its instances, batch and delay."""
    from google.protobuf import text_format  # type: ignore[import-untyped]

    message = configs.parse(text)
    if not message.instance_group:
        message.instance_group.add(count=1)
    group = message.instance_group[0]
    del message.instance_group[1:]
    group.kind = type(group).KIND_GPU if device == "cuda" else type(group).KIND_CPU
    if variant is not None:
        group.count = variant.instances
        message.max_batch_size = variant.max_batch_size
        message.dynamic_batching.max_queue_delay_microseconds = variant.queue_delay_us
        del message.dynamic_batching.preferred_batch_size[:]
        kept = [each for each in message.model_warmup if each.batch_size <= variant.max_batch_size]
        del message.model_warmup[:]
        message.model_warmup.extend(kept)
    if device_tensors or (variant is not None and variant.device_tensors):
        message.parameters[DEVICE_TENSORS].string_value = "no"
    if device == "cuda":
        for key in ("intra_op_thread_count", "inter_op_thread_count"):
            message.parameters.pop(key, None)
    written: str = text_format.MessageToString(message)
    return written


@contextmanager
def served(
    subject: Subject,
    device: str,
    variant: Variant | None = None,
    *,
    device_tensors: bool = False,
    behind_identity: bool = False,
) -> Iterator[TritonServer]:
    """A running Triton with this model alone. KIND_GPU instances refuse to load where ONNX Runtime falls back.

    With `behind_identity` the ensemble `chain` hands its inputs through a model that changes nothing, on the same
    device, to this one: the shortest way to see what a hand-over costs.
    """
    with tempfile.TemporaryDirectory(prefix="fathom-proof-") as room:
        folder = Path(room, subject.model)
        shutil.copytree(subject.folder, folder, ignore=shutil.ignore_patterns("configs", "reference.npz", "*.json"))
        config = folder / "config.pbtxt"
        text = configuration(config.read_text(encoding="utf-8"), variant, device, device_tensors=device_tensors)
        config.write_text(text, encoding="utf-8")
        if behind_identity:
            chain.write(Path(room), text)
        with TritonServer(room, stop_timeout_s=1 if device == "cuda" else 0) as server:
            yield server


def saturate(server: TritonServer, asked: bytes, settings: Settings, *, rows: int, seconds: float) -> dict[str, float]:
    """A closed loop of requests with that many rows, from several processes: `rows_per_s`, `cpu_us`, `in_flight`."""
    in_flight = max(min(8, settings.in_flight), settings.in_flight // rows)
    clients = min(settings.clients, in_flight)
    with ThreadPoolExecutor(clients) as pool:
        done = list(
            pool.map(
                lambda _: closed_loop.drive(server.grpc_url, asked, in_flight=in_flight // clients, seconds=seconds),
                range(clients),
            )
        )
    return {
        "rows_per_s": rows * sum(each["rate_per_s"] for each in done),
        "cpu_us": statistics.fmean(each["cpu_us"] for each in done),
        "in_flight": in_flight // clients * clients,
    }


@contextmanager
def request(server: TritonServer, subject: Subject, batch: int, transport: str, *, model: str = "") -> Iterator[bytes]:
    """The bytes of a request of `batch` rows: whole over "grpc", or with its tensors in "system" or "cuda" memory.

    Every copy of the request reads the same inputs and writes the same outputs, which nobody looks at.
    """
    with Client(server.grpc_url) as client:
        spec: ModelSpec = client.model(model or subject.model).spec
    arrays = codec.check(spec, subject.rows(batch))
    if transport == "grpc":
        yield codec.encode(spec, arrays)
        return
    sizes = {name: array.nbytes for name, array in arrays.items()}
    results = {name: output_size(spec, name, arrays) for name in spec.outputs}
    places, end = {}, 0
    for name, size in (*sizes.items(), *((f"{name}/out", size) for name, size in results.items())):
        places[name], end = end, end + -(-size // ALIGNMENT) * ALIGNMENT
    region: Region = SystemRegion(end) if transport == "system" else CudaRegion(end)
    with ExitStack() as stack:
        stack.callback(region.discard)
        for name, array in arrays.items():
            region.write(places[name], np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        stack.enter_context(_registered(server.grpc_url, region))
        placed = Placement(
            region,
            {name: Place(region.name, size, places[name]) for name, size in sizes.items()},
            {name: Place(region.name, size, places[f"{name}/out"]) for name, size in results.items() if size},
        )
        yield codec.encode(spec, arrays, placed=placed)


@contextmanager
def _registered(url: str, region: Region) -> Iterator[None]:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    with grpc.insecure_channel(url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        getattr(stub, f"{region.kind}SharedMemoryRegister")(region.registration(), timeout=10)
        region.registered()
        try:
            yield
        finally:
            unregister = getattr(service_pb2, f"{region.kind}SharedMemoryUnregisterRequest")(name=region.name)
            until_s = time.monotonic() + RELEASE_S
            while True:
                try:
                    getattr(stub, f"{region.kind}SharedMemoryUnregister")(unregister, timeout=10)
                    break
                except grpc.RpcError as error:  # a loop that ended leaves requests in flight
                    if "currently in use" not in str(error) or time.monotonic() > until_s:
                        raise
                    time.sleep(0.1)
