"""The blocking client: `Client("localhost:8001").model("text_embedding")(text=["play some jazz"])`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc

from clients import bulk, codec
from clients.codec import Classification
from clients.connection import CLOSED, Abandon, Begun, Connection, Pause, Send, Steps
from clients.datatypes import Array
from clients.errors import InferenceError
from clients.model import BoundModel, OpenStream
from clients.options import CHANNEL_OPTIONS, DEFAULT_TIMEOUT_S, Headers
from clients.sequence import Sequence as RequestSequence
from clients.servers import INFER_METHOD, Cut, Server

__all__ = ["CHANNEL_OPTIONS", "DEFAULT_TIMEOUT_S", "INFER_METHOD", "Client", "Model"]
T = TypeVar("T")


class Client(Connection):
    __doc__ = (Connection.__doc__ or "") + "\n    Thread-safe; make one per process and keep it."
    _grpc = grpc

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        if self._closed.is_set():
            return
        if self.pool is not None:
            self.run(self.pool.close(self))
        self._closed.set()
        if self._rotation is not None:
            for server in self._rotation.servers:
                server.channel.close()

    def is_ready(self) -> bool:
        """Whether a server can be reached and all its models are ready."""
        return self.run(self.ready())

    def models(self) -> list[str]:
        """Names of the models that are ready, sorted."""
        return self.run(self.index())

    def model(self, name: str, *, version: str = "") -> Model:
        """A model of the server; its metadata and configuration are fetched here, once.

        Raises ModelNotFound (naming the models there are), ModelNotReady, Unreachable or DeadlineExceeded.
        """
        return Model(self, self.run(self.signature(name, version)))

    def ask(self, request: bytes, model: str, timeout_s: float | None, headers: Headers | None) -> bytes:
        """`run(call("ModelInfer", request, ...))`, with a shorter way to an answer at the first try."""
        rotation = self._rotation or self.rotation()
        chosen = rotation.pick()
        channel, started_s = chosen.channel, time.monotonic()
        metadata = self.metadata(headers) if headers or self._makes_headers else self._fixed_metadata
        if timeout_s is None:
            timeout_s = self.options.timeout_s
        try:
            answer: bytes = chosen.infer(request, timeout_s, metadata)
        except (grpc.RpcError, ValueError) as error:
            begun = Begun(chosen, started_s, self._failure(chosen, channel, error))
        else:
            self.budget.earn()
            if rotation.lone is None:
                chosen.answered_s = time.monotonic()
            self._reached = True
            return answer
        steps = self.call("ModelInfer", request, model=model, timeout_s=timeout_s, headers=headers, begun=begun)
        done: bytes = self.run(steps)
        return done

    def run(self, steps: Steps[T]) -> T:
        """Drive `steps` to their end."""
        try:
            step = next(steps)
            while True:
                failure: grpc.RpcError | None = None
                try:
                    answer = self._do(step)
                except grpc.RpcError as error:
                    failure = error
                step = steps.send(answer) if failure is None else steps.throw(failure)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    def _do(self, step: Send | Pause | Abandon) -> Any:
        if type(step) is Send:
            server, method, request, timeout_s, metadata = step
            channel = server.channel
            try:
                # A blocking call, not .future(): that costs twice the CPU. Ctrl-C cancels it all the same.
                return server.method(method)(request, timeout=timeout_s, metadata=metadata)
            except (grpc.RpcError, ValueError) as error:
                raise self._failure(server, channel, error) from None
        if isinstance(step, Pause):
            return self._closed.wait(step.seconds)
        channel = step.server.channel  # type: ignore[union-attr]
        step.server.connect()  # type: ignore[union-attr]
        return channel.close()  # the only way to cancel blocking calls of other threads

    def _failure(self, server: Server, channel: Any, error: grpc.RpcError | ValueError) -> grpc.RpcError:
        """`error` as gRPC's, or Cut for one that comes of giving `channel` up. Raises for a client that was closed."""
        if isinstance(error, ValueError):  # gRPC's word for a channel that was closed between choosing and calling
            if self._closed.is_set():
                raise ValueError(CLOSED) from None
            if channel is server.channel:
                raise error
            return Cut()
        gave_up = error.code() is grpc.StatusCode.CANCELLED and channel is not server.channel
        return Cut() if gave_up else error

    def _start_probing(self) -> None:
        threading.Thread(target=self._probe_for_ever, name="fathom-health", daemon=True).start()

    def _probe_for_ever(self) -> None:
        with contextlib.suppress(ValueError):  # the channels were closed
            self.run(self.probing())


class Model(BoundModel):
    """One model of a server, called like a function from named arrays to named arrays."""

    client: Client

    def __init__(self, client: Client, spec: Any) -> None:
        super().__init__(client, spec)
        self.client = client

    def __call__(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
        headers: Headers | None = None,
        **named: Any,
    ) -> dict[str, Array]:
        """Infer. Inputs are arrays or lists with the batch axis in front, by keyword or as one mapping.

        Returns every output, or those named in `outputs`; numeric arrays are read-only views. `headers` are for this
        request alone, such as W3C `traceparent`. Raises InvalidInput before sending where it can, else one of the
        errors in `clients.errors`.
        """
        client, given = self.client, {**inputs, **named} if inputs else named
        if client.pool is None and client.metrics is None and self._retry:
            request = codec.encode_as_before(self.spec, given) if outputs is None and not request_id else None
            if request is None:
                request = codec.encode(self.spec, given, outputs=outputs, request_id=request_id)
            return codec.decode(self.spec, client.ask(request, self.spec.name, timeout_s, headers))
        return client.run(
            self._infer(
                given,
                outputs=outputs,
                timeout_s=timeout_s,
                request_id=request_id,
                headers=headers,
            )
        )

    def one(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
        headers: Headers | None = None,
        **named: Any,
    ) -> dict[str, Array]:
        """Infer one sample without a batch axis: it is added to the inputs and taken off the outputs."""
        steps = self._one(
            {**(inputs or {}), **named}, outputs=outputs, timeout_s=timeout_s, request_id=request_id, headers=headers
        )
        return self.client.run(steps)

    def classify(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        top: int = 5,
        output: str | None = None,
        timeout_s: float | None = None,
        headers: Headers | None = None,
        **named: Any,
    ) -> list[list[Classification]]:
        """The `top` labels of a classifier per batch entry, best first; the server reads its own label file.

        `output` names the scores to rank; it may be left out where the model has one output.
        """
        return self.client.run(
            self._classify({**(inputs or {}), **named}, top, output, timeout_s=timeout_s, headers=headers)
        )

    def map(
        self,
        items: Iterable[Any],
        *,
        in_flight: int = 64,
        errors: bulk.Errors = "raise",
        progress: bool = False,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[dict[str, Array] | InferenceError]:
        """Infer every item, `in_flight` at a time, and yield the answers in the order of the items.

        An item is a mapping of named inputs, or the value of the only input. However long `items` is, at most twice
        `in_flight` of them are held. With errors="return" an item that fails gives its error instead of an answer; with
        "raise" the first such error ends the loop. Leaving the loop cancels what is in flight. `progress` shows a bar.
        """
        return bulk.in_order(
            self, items, in_flight=in_flight, errors=errors, progress=progress, outputs=outputs, timeout_s=timeout_s
        )

    def stream(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
        headers: Headers | None = None,
        **named: Any,
    ) -> Iterator[dict[str, Array]]:
        """The answers of a decoupled model, each as soon as it is there; leaving the loop cancels the rest.

        `timeout_s` is for the whole stream. Nothing is retried. Raises what `Model.__call__` raises.
        """
        return self._parts(self._open_stream({**(inputs or {}), **named}, outputs, timeout_s, request_id, headers))

    def sequence(self, *, sequence_id: int = 0, headers: Headers | None = None) -> RequestSequence:
        """Requests that belong together, for a stateful model; see `clients.sequence.Sequence`."""
        return RequestSequence(self, sequence_id, headers)

    def _parts(self, stream: OpenStream) -> Iterator[dict[str, Array]]:
        try:
            for message in stream.call:
                yield self._part(stream, message)
        except grpc.RpcError as error:
            failure = self._stream_error(stream, error)
        else:
            return
        finally:
            stream.call.cancel()
        raise failure
