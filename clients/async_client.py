"""The asyncio client: `embed = await client.model("text_embedding"); await embed(text=["play some jazz"])`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc.aio

from . import bulk, health, life, sequence, streams
from .classification import Labels
from .codec import Outputs
from .connection import CLOSED, Connection
from .model import BoundModel, Later, T
from .options import Metadata
from .servers import Cut, Rotation, Server


class AsyncModel(BoundModel[Later[Outputs], Later[Labels]]):
    __doc__ = f"{BoundModel.__doc__}\n    Cancelling the task of a call cancels the request on the server too."
    client: AsyncClient
    map = bulk.in_order_async
    stream = streams.stream_async
    sequence = sequence.sequence_async


class AsyncClient(Connection[Later[bool], Later[list[str]], Later[AsyncModel]]):
    __doc__ = f"{Connection.__doc__}\n    For one event loop; make one and keep it."
    _grpc, is_asyncio = grpc.aio, True
    _model = AsyncModel
    _prober: asyncio.Task[None] | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *ended: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        if self._closed.is_set():
            return
        if self._loop is not None and self._loop.is_closed():  # and its connections with it
            if self.pool is not None:
                self.pool.discard()
            self._closed.set()
            self._rotation = None
            return
        life.hold_to_loop(self._loop, self.endpoint)
        if self.pool is not None:
            await self.pool.close(self)
        self._closed.set()
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.gather(self._prober, return_exceptions=True)
        for server in self._rotation.servers if self._rotation is not None else ():
            self.abandon(server)
            await server.channel.close()

    def renew(self) -> None:
        super().renew()
        self._loop = self._prober = None

    def rotation(self) -> Rotation:
        self._loop = life.hold_to_loop(self._loop, self.endpoint)
        return super().rotation()

    def run(self, asking: Later[T]) -> Later[T]:
        """Hand a coroutine of this package to the caller, who awaits it."""
        return asking

    async def send(self, server: Server, method: Any, request: Any, timeout_s: float, metadata: Metadata) -> Any:
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

    async def pause(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def abandon(self, server: Server) -> None:
        """Cancel every call in flight on a server; `send` tells it from the caller's own cancellation."""
        calls, server.calls = server.calls, set()
        for call in calls:
            call.cancel()

    def _opened(self, rotation: Rotation) -> None:
        if rotation.lone is None:
            probing = health.probe_for_ever(self)
            self._prober = asyncio.get_running_loop().create_task(probing, name="fathom-health")
