"""The blocking client: `Client("localhost:8001").model("text_embedding")(text=["play some jazz"])`."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc

from . import bulk, resolution, sequence, streams
from .async_client import AsyncClient, AsyncModel
from .classification import Labels
from .codec import Outputs
from .connection import CLOSED, Connection
from .model import BoundModel
from .options import InsecureConnectionWarning, Metadata
from .servers import CancelledByClientError, Rotation, Server


class Model(BoundModel[Outputs, Labels]):
    __doc__ = BoundModel.__doc__
    client: Client
    map = bulk.in_order
    stream = streams.stream
    sequence = sequence.sequence

    @contextlib.asynccontextmanager
    async def _twin(self) -> AsyncIterator[AsyncModel]:
        """The same model over an asyncio client of the same servers and options, for `map`."""
        client = self.client
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InsecureConnectionWarning)  # said when `client` was made
            twin = AsyncClient(
                client.addresses,
                timeout_s=client.timeout_s,
                headers=client.headers,
                tls=client.tls,
                retries=client.retries,
                shared_memory=None if client.pool is None else "system",
                metrics=client.metrics,
                probe_every_s=client.probe_every_s,
                probe_timeout_s=client.probe_timeout_s,
                probes_missed=client.probes_missed,
                resolve=client.resolve,
                resolve_every_s=client.resolve_every_s,
                max_answer_bytes=client.max_answer_bytes,
            )
        twin.budget, twin.bound = client.budget, client.bound
        async with twin:
            yield AsyncModel(twin, self.spec)


class Client(Connection[bool, list[str], Model]):
    __doc__ = f"{Connection.__doc__}\n    Thread-safe; make one per process and keep it."
    _grpc, is_asyncio = grpc, False
    _event = threading.Event
    _model = Model

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        if self._closed.is_set():
            return
        if self.pool is not None:
            self.run(self.pool.close(self))
        self._closed.set()
        for server in list(self._rotation.known) if self._rotation is not None else ():
            server.link.channel.close()

    def run(self, asking: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine of this package to its end; with this client it never waits."""
        try:
            asking.send(None)
        except StopIteration as end:
            return end.value
        raise RuntimeError("a coroutine of a blocking client has waited for an event loop")

    async def send(self, server: Server, method: str, request: Any, timeout_s: float, metadata: Metadata) -> Any:
        """The answer to a request, or the gRPC error."""
        link, call = server.link, object()
        link.calls.add(call)
        try:
            # A blocking call, not .future(): that costs twice the CPU. Ctrl-C cancels it all the same.
            answer = link.method(method)(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            cancelled_here = error.code() is grpc.StatusCode.CANCELLED and link is not server.link
            return CancelledByClientError() if cancelled_here else error
        except ValueError:  # gRPC's word for a channel that was closed between choosing and calling
            if self.is_closed:
                raise ValueError(CLOSED) from None
            if link is server.link:
                raise
            return CancelledByClientError()
        finally:
            link.calls.discard(call)
        server.answered_s = time.monotonic()
        return answer

    async def pause(self, seconds: float) -> None:
        """Wait, but not for longer than the client is open."""
        self._closed.wait(seconds)

    async def wait(self, event: threading.Event, seconds: float) -> None:
        """Wait for the event, but not for longer than so many seconds."""
        event.wait(seconds)

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine of this package in a thread of its own."""
        threading.Thread(target=self.run, args=[coroutine], name="fathom-servers", daemon=True).start()

    async def in_background(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call what blocks; in such a thread it may."""
        return function(*arguments)

    async def cancel_in_flight(self, server: Server) -> None:
        """Cancel the calls of all threads on a server, for which the channel has to be closed."""
        server.reconnect().channel.close()

    def _opened(self, rotation: Rotation) -> None:
        if self.pool is not None:
            _sharing.add(self)
        resolution.keep_current(self, rotation)


_sharing: weakref.WeakSet[Client] = weakref.WeakSet()  # memory with a server


@atexit.register
def _close_at_exit() -> None:
    """Unregister what clients that nobody closed have registered; those of asyncio have no loop any more."""
    for client in list(_sharing):
        if client.pool is not None:
            with contextlib.suppress(Exception):
                client.run(client.pool.close(client))
