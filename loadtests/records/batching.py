"""How Triton forms the batches of a model, read from its configuration, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Batcher = Literal["dynamic", "sequence", "none"]


@dataclass(frozen=True)
class Batching:
    """The batching of one model (not of a pipeline)."""

    backend: str
    max_batch_size: int
    """0 where the model takes no batch axis."""
    batcher: Batcher
    instances: int
    """All groups and GPUs together."""
    on_gpu: bool
    open_inputs: tuple[str, ...] = ()
    """Inputs whose size differs from request to request and that may not be ragged: a batch holds one size only."""
    preferred: tuple[int, ...] = ()
    """Sizes below the largest at which a batch is closed; Triton itself prefers the largest."""
    delay_us: int = 0
    """How long Triton waits for a batch to fill."""
    prefetches: bool = True
    """Batches are formed ahead, at most two for each instance; a queue policy or priorities switch that off."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form, which can be read back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
