"""What requests say beside their inputs, such as that they belong together: parameters of a ModelInferRequest, appended
to one that is encoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

Payload = bytes | tuple[bytes, ...]
"""An encoded request, or of a model that keeps state those of a sequence."""
_RANDOM = 1 << 62


def keeps_state(config: Any | None) -> bool:
    """Whether a model sees requests as sequences, by its ModelConfig. Triton itself makes the sequence of a request to
    an iterative one."""
    return (
        config is not None and config.HasField("sequence_batching") and not config.sequence_batching.iterative_sequence
    )


def requests_in(payload: Payload) -> tuple[bytes, ...]:
    """All of its requests, in their order."""
    return (payload,) if isinstance(payload, bytes) else payload


def size_of(payload: Payload) -> int:
    """In bytes."""
    return sum(map(len, requests_in(payload)))


def marked(payload: Payload, streams: bool, priority: int) -> Payload:
    """With what the server is told of every payload: its priority, that a stream's end is to be marked, and where a
    sequence starts and ends."""
    own = parameters(priority=priority) if priority else b""
    if not isinstance(payload, bytes):
        return flagged([request + own for request in payload])
    return asking_for_final(payload + own) if streams else payload + own


def flagged(requests: Sequence[bytes]) -> tuple[bytes, ...]:
    """The requests of one sequence, with its start and its end marked."""
    last = len(requests) - 1
    return tuple(
        request + parameters(sequence_start=number == 0, sequence_end=number == last)
        for number, request in enumerate(requests)
    )


def asking_for_final(request: bytes) -> bytes:
    """The request of a stream whose end is to be marked, also where the last message has no outputs."""
    return request + parameters(triton_enable_empty_final_response=True)


def new_sequence() -> bytes:
    """What all requests of one sequence end with: a number that no other process uses either, nor another run."""
    return parameters(sequence_id=int.from_bytes(os.urandom(8)) % _RANDOM + _RANDOM)


def parameters(**values: bool | int) -> bytes:
    """Protobuf merges fields that come again, so that these add to whatever is in front of them."""
    from tritonclient.grpc import service_pb2

    request: Any = service_pb2.ModelInferRequest()
    for name, value in values.items():
        setattr(request.parameters[name], "bool_param" if isinstance(value, bool) else "int64_param", value)
    return bytes(request.SerializeToString())
