"""The answers of decoupled models, each as soon as it arrives. A stream ends without an error only if it is complete.

Triton marks the model's final response with the parameter `triton_final_response`. A model that sends its final flag
alone gets a message of its own for it, because the request asks for that. Without the mark an answer has been cut off,
even where the call ended with OK.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from . import codec, options
from .codec import Outputs
from .errors import InferenceError, ServerError
from .failures import from_rpc, from_text, unfinished
from .model import BoundModel
from .options import Headers
from .servers import CancelledByClientError

Parts = TypeVar("Parts")
_ENDS_WITHIN_S = 1.0  # a stream, after the failure that its server tells
_FINAL, _ASK_FOR_IT = "triton_final_response", {"triton_enable_empty_final_response": True}


def stream(
    model: BoundModel[Any, Any],
    inputs: Mapping[str, Any] | None = None,
    /,
    *,
    outputs: Sequence[str] | None = None,
    timeout_s: float | None = None,
    idle_timeout_s: float | None = None,
    request_id: str = "",
    headers: Headers | None = None,
    **named: Any,
) -> Iterator[Outputs]:
    """The answers of a decoupled model, each as soon as it is there; leaving the loop cancels the rest.

    `timeout_s` is for the whole stream, `idle_timeout_s` for each wait for the next part (by default as long as the
    stream may take). Nothing is retried. An answer that is cut off ends with one of InferenceError's kinds.
    """
    request = _encode(model, codec.named(model.spec, inputs, named), outputs, request_id)
    opened = _Stream(model, request, timeout_s, idle_timeout_s, headers)
    return opened.closed_with(opened.parts())


def stream_async(
    model: BoundModel[Any, Any],
    inputs: Mapping[str, Any] | None = None,
    /,
    *,
    outputs: Sequence[str] | None = None,
    timeout_s: float | None = None,
    idle_timeout_s: float | None = None,
    request_id: str = "",
    headers: Headers | None = None,
    **named: Any,
) -> AsyncIterator[Outputs]:
    request = _encode(model, codec.named(model.spec, inputs, named), outputs, request_id)
    opened = _Stream(model, request, timeout_s, idle_timeout_s, headers)
    return opened.closed_with(opened.parts_async())


stream_async.__doc__ = stream.__doc__


def _encode(
    model: BoundModel[Any, Any], inputs: Mapping[str, Any], outputs: Sequence[str] | None, request_id: str
) -> bytes:
    return codec.encode(model.spec, inputs, outputs=outputs, request_id=request_id, parameters=_ASK_FOR_IT)


class _Stream:
    """One call that is open: its messages, whose failures Triton sends as text."""

    def __init__(
        self,
        model: BoundModel[Any, Any],
        request: bytes,
        timeout_s: float | None,
        idle_timeout_s: float | None,
        headers: Headers | None,
    ) -> None:
        client = self._client = model.client
        self._spec = model.spec
        timeout_s = client.within_s(timeout_s)
        self._idle_timeout_s = None if idle_timeout_s is None else options.seconds(idle_timeout_s, "idle_timeout_s")
        self._rotation, metadata = client.rotation(), client.metadata(headers)
        server = self._rotation.pick(self._spec.name)
        self._sent = client.sent(server, self._spec.name, timeout_s, metadata)
        self._final: bool | None = None  # what the last message says; servers other than Triton have no such mark
        self._failure: InferenceError | None = None  # that the server has told
        self._idle = False
        # Not with the header triton_grpc_error, though it would give failures a status: Triton 2.51 dies of the first.
        self._server, self._link = server, server.link
        try:
            self._call = self._link.stream(request, timeout=timeout_s, metadata=metadata)
        except ValueError:  # gRPC's word for a channel that was closed meanwhile
            if not self._is_cut_off():
                raise
            raise from_rpc(CancelledByClientError(), self._sent) from None
        self._link.calls.add(self._call)

    def closed_with(self, parts: Parts) -> Parts:
        """The generator `parts`; the call ends when that does, even if it was never begun."""
        weakref.finalize(parts, self._close).atexit = False
        return parts

    def parts(self) -> Iterator[Outputs]:
        with self._ending():
            while (message := self._next()) is not None:
                yield from self._read(message)

    async def parts_async(self) -> AsyncIterator[Outputs]:
        with self._ending():
            while (message := await self._next_async()) is not None:
                for outputs in self._read(message):
                    yield outputs

    def _next(self) -> bytes | None:
        """The next message; None at the end. Raises grpc.RpcError."""
        if self._idle_timeout_s is None:
            return next(self._call, None)
        alarm = threading.Timer(self._idle_timeout_s, self._give_up)
        alarm.start()
        try:
            return next(self._call, None)
        finally:
            alarm.cancel()

    async def _next_async(self) -> bytes | None:
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                message = await self._call.read()
        except TimeoutError:
            self._idle = True
            raise CancelledByClientError from None
        return None if message is grpc.aio.EOF else message

    def _give_up(self) -> None:
        self._idle = True
        self._call.cancel()

    def _close(self) -> None:
        if self._final:  # it ends by itself: Triton 2.51 may keep a request for ever that is cancelled at its end
            self._call.add_done_callback(self._link.calls.discard)
            return
        self._link.calls.discard(self._call)
        self._call.cancel()

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        metrics = self._client.metrics
        try:
            with metrics.counting(self._spec.name) if metrics else contextlib.nullcontext(), self._translated():
                yield
        except InferenceError as error:
            self._rotation.record_failure(self._server, error)
            raise
        finally:
            self._close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of gRPC as this package's, and one for an answer that is not whole."""
        try:
            yield
            if self._failure:
                raise self._failure
            unmarked = self._final is None and (self._spec.decoupled or not self._sent.parts)
            if self._final is False or unmarked:
                raise unfinished(self._sent)
        except grpc.RpcError as error:
            if self._failure:
                raise self._failure from None
            if self._idle:
                idle = CancelledByClientError(grpc.StatusCode.DEADLINE_EXCEEDED)
                raise from_rpc(idle, replace(self._sent, timeout_s=self._idle_timeout_s)) from None
            raise from_rpc(CancelledByClientError() if self._is_cut_off() else error, self._sent) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._call in self._link.calls or (task is not None and task.cancelling()):
                raise  # the caller's own cancellation
            status = grpc.StatusCode.CANCELLED if self._client.is_closed else grpc.StatusCode.UNAVAILABLE
            raise from_rpc(CancelledByClientError(status), self._sent) from None

    def _is_cut_off(self) -> bool:
        """Whether this client has given the server up meanwhile, and closed the channel."""
        return self._server.link is not self._link

    def _read(self, message: bytes) -> Iterator[Outputs]:
        """The part in a message; none where that only marks the end. Raises InferenceError."""
        self._server.answered_s = time.monotonic()
        try:
            part = service_pb2.ModelStreamInferResponse.FromString(message)
        except DecodeError as error:
            what = f"a part of the answer of '{self._spec.name}' is not a message: {error}"
            raise ServerError(what, model=self._spec.name, endpoint=self._sent.endpoint, may_have_run=True) from None
        if self._failure:
            return
        if part.error_message:
            # Read on to the end, for the same reason as in `_close`.
            self._failure = from_text(part.error_message, self._sent)
            self._idle_timeout_s = min(self._idle_timeout_s or _ENDS_WITHIN_S, _ENDS_WITHIN_S)
            return
        answer = part.infer_response
        if _FINAL in answer.parameters:
            self._final = answer.parameters[_FINAL].bool_param
            if self._final and not answer.outputs:
                return
        self._sent = replace(self._sent, parts=self._sent.parts + 1)
        yield codec.read(self._spec, answer)
