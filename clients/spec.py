"""A model's inputs and outputs, as its server describes them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tritonclient.grpc import service_pb2

from .datatypes import NUMPY_TYPE
from .errors import ServerError


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. `dims` are without the batch axis; -1 is a length left open."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    optional: bool = False
    labelled: bool = False

    def shape_text(self, batched: bool) -> str:
        """The full shape for messages, such as `[batch, 128, 128, 3]`."""
        axes = ["any" if dim < 0 else str(dim) for dim in self.dims]
        return f"[{', '.join(['batch', *axes] if batched else axes)}]"


@dataclass(frozen=True)
class ModelSpec:
    """A model's signature: what the codec checks requests against.

    `max_batch_size` is 0 where tensors have no batch axis; `steps` are the models of an ensemble.
    """

    name: str
    version: str
    max_batch_size: int
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    decoupled: bool = False
    sequence: bool = False
    steps: tuple[str, ...] = ()
    # What the codec remembers of earlier requests and answers.
    heads: dict[object, tuple[bytes, bool]] = field(default_factory=dict, repr=False, compare=False)
    layouts: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def batched(self) -> bool:
        """Whether tensors carry a batch axis in front."""
        return self.max_batch_size > 0

    @functools.cached_property
    def repeatable(self) -> bool:
        """Whether one request has one answer that no other request changes, so that it may be sent again."""
        return not (self.decoupled or self.sequence)

    @classmethod
    def from_server(
        cls, metadata: service_pb2.ModelMetadataResponse, config: service_pb2.ModelConfigResponse | None, version: str
    ) -> ModelSpec:
        """Build it from ModelMetadata and, on servers that have the extension, ModelConfig.

        Raises ServerError for an input of a type that nothing can be sent as.
        """
        for tensor in metadata.inputs:
            if tensor.datatype not in NUMPY_TYPE and tensor.datatype != "BYTES":
                what = f"input '{tensor.name}' of '{metadata.name}' has the unknown type {tensor.datatype!r}"
                raise ServerError(f"{what}: a newer client may know it", model=metadata.name)
        settings = (service_pb2.ModelConfigResponse() if config is None else config).config
        optional = {t.name for t in settings.input if t.optional}
        if config is None and len(metadata.inputs) > 1:  # any but one may be: the server refuses what is missing
            optional = {t.name for t in metadata.inputs}
        labelled = {t.name for t in settings.output if t.label_filename}
        axes = 1 if settings.max_batch_size > 0 else 0

        def specs(tensors: Iterable[service_pb2.ModelMetadataResponse.TensorMetadata]) -> dict[str, TensorSpec]:
            return {
                t.name: TensorSpec(t.name, t.datatype, tuple(t.shape)[axes:], t.name in optional, t.name in labelled)
                for t in tensors
            }

        return cls(
            name=metadata.name,
            version=version,
            max_batch_size=settings.max_batch_size,
            inputs=specs(metadata.inputs),
            outputs=specs(metadata.outputs),
            decoupled=settings.model_transaction_policy.decoupled,
            # Of an iterative one Triton itself makes a sequence of each request.
            sequence=settings.HasField("sequence_batching") and not settings.sequence_batching.iterative_sequence,
            steps=tuple(step.model_name for step in settings.ensemble_scheduling.step),
        )
