"""How much the proof measures: sizes for a GPU, and small ones for a dry run on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from fathom.errors import UsageError

MODELS = ("resnet50", "mobilenet_v2", "minilm")
PRECISIONS = ("fp32", "fp16", "int8")
TRANSPORTS = ("grpc", "system", "cuda")


@dataclass(frozen=True)
class Settings:
    """`batches` are those of the bare loop, `request_batches` the rows per request of the served one.

    `in_flight` is for requests of one row, over `clients` processes. Durations are those of one measurement. A sweep
    tries every combination of `instances`, `max_batches` and `queue_delays_us`; no batch is smaller than a pipeline in
    front may ask for.
    """

    dry_run: bool = False
    minutes: float = 28.0
    models: tuple[str, ...] = MODELS
    precisions: tuple[str, ...] = PRECISIONS
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    request_batches: tuple[int, ...] = (1, 32)
    in_flight: int = 256
    clients: int = 4
    transports: tuple[str, ...] = TRANSPORTS
    seconds: float = 1.0
    rounds: int = 3
    slos: tuple[str, ...] = ("p99=10ms", "p99=50ms")
    capacity_seconds: float = 15.0
    instances: tuple[int, ...] = (1, 2, 4)
    max_batches: tuple[int, ...] = (32, 128)
    queue_delays_us: tuple[int, ...] = (0, 500)
    evaluated_rows: int = 450
    copy_mb: int = 1024
    product_size: int = 8192
    engine_level: int = 1

    @property
    def device(self) -> str:
        """ONNX Runtime's word for the device: "cuda", or "cpu" in a dry run."""
        return "cpu" if self.dry_run else "cuda"

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Settings:
        """The inverse of `to_json`."""
        known = {each.name for each in fields(Settings)}
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in record.items() if key in known
        }
        return Settings(**given)

    def with_models(self, names: tuple[str, ...]) -> Settings:
        """The same for some models. Raises UsageError for one that the proof does not know."""
        if unknown := [name for name in names if name not in MODELS]:
            raise UsageError(f"the proof has no model '{unknown[0]}': choose {', '.join(MODELS)}")
        return replace(self, models=names)


DRY = Settings(
    dry_run=True,
    minutes=5.0,
    batches=(1, 2),
    request_batches=(2,),
    in_flight=4,
    clients=1,
    seconds=0.1,
    rounds=1,
    slos=("p99=2s",),
    capacity_seconds=0.5,
    instances=(2,),  # one would wait half a second for nothing (docs/server.md)
    max_batches=(32,),
    queue_delays_us=(0,),
    evaluated_rows=8,
    copy_mb=16,
    product_size=256,
)
"""Small enough for a test: every path is taken that a machine without a GPU has."""
