"""The asyncio client: `embed = await client.model("text_embedding"); await embed(text=["play some jazz"])`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

import grpc.aio

from . import bulk, life, resolution, sequence, streams
from .background import in_thread
from .classification import Labels
from .codec import Outputs
from .connection import CLOSED, Connection
from .model import BoundModel, Later, T
from .options import Metadata
from .servers import CancelledByClientError, Rotation, Server


class AsyncModel(BoundModel[Later[Outputs], Later[Labels]]):
    __doc__ = f"{BoundModel.__doc__}\n    Cancelling the task of a call cancels the request on the server too."
    client: AsyncClient
    map = bulk.in_order_async
    stream = streams.stream_async
    sequence = sequence.sequence_async


class AsyncClient(Connection[Later[bool], Later[list[str]], Later[AsyncModel]]):
    __doc__ = f"{Connection.__doc__}\n    For one event loop; make one and keep it."
    _grpc, is_asyncio = grpc.aio, True
    _event = asyncio.Event
    _model = AsyncModel
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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in list(self._rotation.known) if self._rotation is not None else ():
            server.link.cancel_calls()
            await server.link.channel.close()

    def renew(self) -> None:
        super().renew()
        self._loop = None
        self._tasks: set[asyncio.Task[None]] = set()

    def rotation(self) -> Rotation:
        self._loop = life.hold_to_loop(self._loop, self.endpoint)
        return super().rotation()

    def run(self, asking: Later[T]) -> Later[T]:
        """Hand a coroutine of this package to the caller, who awaits it."""
        return asking

    async def send(self, server: Server, method: str, request: Any, timeout_s: float, metadata: Metadata) -> Any:
        """The answer to a request, or the gRPC error."""
        if self.is_closed:
            raise ValueError(CLOSED)
        link = server.link
        call = link.method(method)(request, timeout=timeout_s, metadata=metadata)
        link.calls.add(call)
        try:
            answer = await call
        except grpc.RpcError as error:
            return error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if call in link.calls or (task is not None and task.cancelling()):
                raise  # the caller's own cancellation, which gRPC has passed on to the server
            status = grpc.StatusCode.CANCELLED if self.is_closed else grpc.StatusCode.UNAVAILABLE
            return CancelledByClientError(status)
        finally:
            link.calls.discard(call)
        server.answered_s = time.monotonic()
        return answer

    async def pause(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for the event, but not for longer than so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine of this package in a task of its own."""
        task = asyncio.get_running_loop().create_task(coroutine, name="fathom-servers")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def in_background(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call what blocks in a thread, for whose end neither the loop nor the process waits."""
        return await asyncio.wrap_future(in_thread("fathom-servers", function, *arguments))

    async def cancel_in_flight(self, server: Server) -> None:
        """Cancel every call on a server; `send` tells it from the caller's own cancellation."""
        old = server.reconnect()
        old.cancel_calls()
        await old.channel.close()

    def _opened(self, rotation: Rotation) -> None:
        resolution.keep_current(self, rotation)
