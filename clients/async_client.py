"""The asyncio client: `embed = await client.model("text_embedding"); await embed(text=["play some jazz"])`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import grpc.aio

from clients import bulk, codec
from clients.codec import Classification, Outputs
from clients.connection import CLOSED, Abandon, Connection, Metadata, Pause, Send, Steps, T
from clients.errors import InferenceError
from clients.model import BoundModel, Later
from clients.options import Headers
from clients.sequence import AsyncSequence
from clients.servers import Cut, Server


class AsyncModel(
    BoundModel[
        Later[Outputs],
        Later[list[list[Classification]]],
        AsyncIterator[Outputs],
        AsyncIterator[Outputs | InferenceError],
        AsyncSequence,
    ]
):
    __doc__ = f"{BoundModel.__doc__}\n    Cancelling the task of a call cancels the request on the server too."
    client: AsyncClient
    _in_order = staticmethod(bulk.in_order_async)
    _sequence = AsyncSequence

    async def _ask(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str] | None,
        timeout_s: float | None,
        request_id: str,
        headers: Headers | None,
    ) -> Outputs:
        client, spec = self.client, self.spec
        if not self._plain:
            return await client.run(
                self.infer(inputs, outputs=outputs, timeout_s=timeout_s, request_id=request_id, headers=headers)
            )
        request = codec.encode(spec, inputs, outputs=outputs, request_id=request_id)
        server, timeout_s, metadata = client.begin(timeout_s, headers)
        deadline_s = time.monotonic() + timeout_s
        client.budget.earn()
        reply = await client.send(server, server.infer, request, timeout_s, metadata)
        if type(reply) is not bytes:
            first = Send(server, "ModelInfer", request, metadata, timeout_s, deadline_s)
            reply = await client.run(client.settle(first, reply, model=spec.name))
        return codec.decode(spec, reply)

    async def _parts(self, server: Server, timeout_s: float, call: Any) -> AsyncIterator[Outputs]:
        try:
            async for message in call:
                yield self._part(server, message)
        except grpc.RpcError as error:
            raise self._failure(server, timeout_s, error) from None
        finally:
            call.cancel()


class AsyncClient(Connection[Later[bool], Later[list[str]], Later[AsyncModel]]):
    __doc__ = f"{Connection.__doc__}\n    For one event loop; make one and keep it."
    _grpc = grpc.aio
    _model = AsyncModel
    _prober: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *ended: object) -> None:
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
        for server in self._rotation.servers if self._rotation is not None else ():
            _give_up(server)
            await server.channel.close()

    async def run(self, steps: Steps[T]) -> T:
        """Drive `steps` to their end."""
        reply: Any = None
        try:
            while True:
                step = steps.send(reply)
                if isinstance(step, Send):
                    server, method, request, metadata, _, deadline_s = step
                    left_s = deadline_s - time.monotonic()
                    reply = await self.send(server, server.method(method), request, left_s, metadata)
                elif isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                elif isinstance(step, Abandon):
                    _give_up(step.server)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    async def send(
        self, server: Server, method: Callable[..., Any], request: Any, timeout_s: float, metadata: Metadata
    ) -> Any:
        """The answer to a request, or the gRPC error."""
        if self._closed.is_set():
            raise ValueError(CLOSED)
        call = method(request, timeout=timeout_s, metadata=metadata)
        server.calls.add(call)
        try:
            answer = await call
        except grpc.RpcError as error:
            return error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if call in server.calls or (task is not None and task.cancelling()):
                raise  # the caller's own cancellation, which gRPC has passed on to the server
            return Cut(grpc.StatusCode.CANCELLED if self._closed.is_set() else grpc.StatusCode.UNAVAILABLE)
        finally:
            server.calls.discard(call)
        server.answered_s = time.monotonic()
        return answer

    def _start_probing(self) -> None:
        self._prober = asyncio.get_running_loop().create_task(self.run(self.probing()), name="fathom-health")


def _give_up(server: Server) -> None:
    """Cancel every call in flight on a server; `send` tells it from the caller's own cancellation."""
    calls = list(server.calls)
    server.calls.clear()
    for call in calls:
        call.cancel()
