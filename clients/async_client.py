"""The asyncio client: `embed = await client.model("text_embedding"); await embed(text=["play some jazz"])`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc.aio

from clients import bulk, codec
from clients.codec import Classification
from clients.connection import CLOSED, Abandon, Begun, Connection, Pause, Send, Steps
from clients.datatypes import Array
from clients.errors import InferenceError
from clients.model import BoundModel, OpenStream
from clients.options import Headers
from clients.sequence import AsyncSequence
from clients.servers import Cut, Server

T = TypeVar("T")


class AsyncClient(Connection):
    __doc__ = (Connection.__doc__ or "") + "\n    For one event loop; make one and keep it."
    _grpc = grpc.aio
    _prober: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        if self._closed.is_set():
            return
        if self.pool is not None:
            await self.run(self.pool.close(self))
        self._closed.set()
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.gather(self._prober, return_exceptions=True)
        if self._rotation is not None:
            for server in self._rotation.servers:
                await server.channel.close()

    async def is_ready(self) -> bool:
        """Whether a server can be reached and all its models are ready."""
        return await self.run(self.ready())

    async def models(self) -> list[str]:
        """Names of the models that are ready, sorted."""
        return await self.run(self.index())

    async def model(self, name: str, *, version: str = "") -> AsyncModel:
        """A model of the server; its metadata and configuration are fetched here, once.

        Raises ModelNotFound (naming the models there are), ModelNotReady, Unreachable or DeadlineExceeded.
        """
        return AsyncModel(self, await self.run(self.signature(name, version)))

    async def ask(self, request: bytes, model: str, timeout_s: float | None, headers: Headers | None) -> bytes:
        """`run(call("ModelInfer", request, ...))`, with a shorter way to an answer at the first try."""
        rotation = self._rotation or self.rotation()
        if self._closed.is_set():
            raise ValueError(CLOSED)
        chosen = rotation.pick()
        started_s = time.monotonic()
        metadata = self.metadata(headers) if headers or self._makes_headers else self._fixed_metadata
        if timeout_s is None:
            timeout_s = self.options.timeout_s
        call = chosen.infer(request, timeout=timeout_s, metadata=metadata)
        try:
            answer: bytes = await (self._answer(chosen, call) if rotation.lone is None else call)
        except grpc.RpcError as error:
            begun = Begun(chosen, started_s, error)
        else:
            self.budget.earn()
            if rotation.lone is None:
                chosen.answered_s = time.monotonic()
            self._reached = True
            return answer
        steps = self.call("ModelInfer", request, model=model, timeout_s=timeout_s, headers=headers, begun=begun)
        done: bytes = await self.run(steps)
        return done

    async def _answer(self, server: Server, call: Any) -> Any:
        server.calls.add(call)
        try:
            return await call
        except asyncio.CancelledError:
            if call in server.calls:
                raise  # the caller's own cancellation, which gRPC has passed on to the server
            raise Cut from None
        finally:
            server.calls.discard(call)

    async def run(self, steps: Steps[T]) -> T:
        """Drive `steps` to their end."""
        try:
            step = next(steps)
            while True:
                failure: grpc.RpcError | None = None
                try:
                    answer = await self._do(step)
                except grpc.RpcError as error:
                    failure = error
                step = steps.send(answer) if failure is None else steps.throw(failure)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    async def _do(self, step: Send | Pause | Abandon) -> Any:
        if type(step) is Send:
            if self._closed.is_set():
                raise ValueError(CLOSED)
            server, method, request, timeout_s, metadata = step
            call = server.method(method)(request, timeout=timeout_s, metadata=metadata)
            return await self._answer(server, call)
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        calls = list(step.server.calls)  # type: ignore[union-attr]
        step.server.calls.clear()  # type: ignore[union-attr]
        return [call.cancel() for call in calls]

    def _start_probing(self) -> None:
        self._prober = asyncio.get_running_loop().create_task(self.run(self.probing()), name="fathom-health")


class AsyncModel(BoundModel):
    """One model of a server; every method of `Model`, awaited."""

    client: AsyncClient

    def __init__(self, client: AsyncClient, spec: Any) -> None:
        super().__init__(client, spec)
        self.client = client

    async def __call__(
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
        """See `Model.__call__`. Cancelling the task cancels the request on the server too."""
        client, given = self.client, {**inputs, **named} if inputs else named
        if client.pool is None and client.metrics is None and self._retry:
            request = codec.encode_as_before(self.spec, given) if outputs is None and not request_id else None
            if request is None:
                request = codec.encode(self.spec, given, outputs=outputs, request_id=request_id)
            return codec.decode(self.spec, await client.ask(request, self.spec.name, timeout_s, headers))
        return await client.run(
            self._infer(
                given,
                outputs=outputs,
                timeout_s=timeout_s,
                request_id=request_id,
                headers=headers,
            )
        )

    async def one(
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
        """See `Model.one`."""
        steps = self._one(
            {**(inputs or {}), **named}, outputs=outputs, timeout_s=timeout_s, request_id=request_id, headers=headers
        )
        return await self.client.run(steps)

    async def classify(
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
        """See `Model.classify`."""
        return await self.client.run(
            self._classify({**(inputs or {}), **named}, top, output, timeout_s=timeout_s, headers=headers)
        )

    def map(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        in_flight: int = 64,
        errors: bulk.Errors = "raise",
        progress: bool = False,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[dict[str, Array] | InferenceError]:
        """See `Model.map`; `items` may be an asynchronous iterable too, and the answers are one."""
        return bulk.in_order_async(
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
    ) -> AsyncIterator[dict[str, Array]]:
        """`async for part in model.stream(...)`; see `Model.stream`."""
        return self._parts(self._open_stream({**(inputs or {}), **named}, outputs, timeout_s, request_id, headers))

    def sequence(self, *, sequence_id: int = 0, headers: Headers | None = None) -> AsyncSequence:
        """Requests that belong together, for a stateful model; see `clients.sequence.Sequence`."""
        return AsyncSequence(self, sequence_id, headers)

    async def _parts(self, stream: OpenStream) -> AsyncIterator[dict[str, Array]]:
        try:
            async for message in stream.call:
                yield self._part(stream, message)
        except grpc.RpcError as error:
            failure = self._stream_error(stream, error)
        else:
            return
        finally:
            stream.call.cancel()
        raise failure
