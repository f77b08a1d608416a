"""The answers of decoupled models, each as soon as it is there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from . import codec
from .codec import Outputs
from .failures import from_rpc, from_text
from .model import BoundModel
from .options import Headers


def stream(
    model: BoundModel[Any, Any],
    inputs: Mapping[str, Any] | None = None,
    /,
    *,
    outputs: Sequence[str] | None = None,
    timeout_s: float | None = None,
    request_id: str = "",
    headers: Headers | None = None,
    **named: Any,
) -> Iterator[Outputs]:
    """The answers of a decoupled model, each as soon as it is there; leaving the loop cancels the rest.

    `timeout_s` is for the whole stream. Nothing is retried.
    """
    request = codec.encode(model.spec, codec.named(model.spec, inputs, named), outputs=outputs, request_id=request_id)
    return _Stream(model, request, timeout_s, headers).parts()


def stream_async(
    model: BoundModel[Any, Any],
    inputs: Mapping[str, Any] | None = None,
    /,
    *,
    outputs: Sequence[str] | None = None,
    timeout_s: float | None = None,
    request_id: str = "",
    headers: Headers | None = None,
    **named: Any,
) -> AsyncIterator[Outputs]:
    request = codec.encode(model.spec, codec.named(model.spec, inputs, named), outputs=outputs, request_id=request_id)
    return _Stream(model, request, timeout_s, headers).parts_async()


stream_async.__doc__ = stream.__doc__


class _Stream:
    """One call that is open: its messages, whose failures Triton sends as text."""

    def __init__(
        self, model: BoundModel[Any, Any], request: bytes, timeout_s: float | None, headers: Headers | None
    ) -> None:
        client, self._spec = model.client, model.spec
        timeout_s = client.within_s(timeout_s)
        server, metadata = client.rotation().pick(), client.metadata(headers)
        self._sent = client.sent(server, self._spec.name, timeout_s, metadata)
        # Not with the header triton_grpc_error, though it would give failures a status: Triton 2.51 dies of the first.
        self._call = server.stream(request, timeout=timeout_s, metadata=metadata)

    def parts(self) -> Iterator[Outputs]:
        with self._ending():
            for message in self._call:
                yield self._read(message)

    async def parts_async(self) -> AsyncIterator[Outputs]:
        with self._ending():
            async for message in self._call:
                yield self._read(message)

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise from_rpc(error, self._sent) from None
        finally:
            self._call.cancel()

    def _read(self, message: bytes) -> Outputs:
        part = service_pb2.ModelStreamInferResponse.FromString(message)
        if part.error_message:
            raise from_text(part.error_message, self._sent)
        return codec.decode(self._spec, part.infer_response.SerializeToString())
