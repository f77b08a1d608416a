"""The blocking client: `Client("localhost:8001").model("text_embedding")(text=["play some jazz"])`."""

from __future__ import annotations

import threading
import time
from collections.abc import Coroutine
from typing import Any

import grpc

from clients import bulk, sequence, streams
from clients.classification import Labels
from clients.codec import Outputs
from clients.connection import CLOSED, Connection
from clients.model import BoundModel
from clients.options import Metadata
from clients.servers import Cut, Server, probe_for_ever


class Model(BoundModel[Outputs, Labels]):
    __doc__ = BoundModel.__doc__
    client: Client
    map = bulk.in_order
    stream = streams.stream
    sequence = sequence.sequence


class Client(Connection[bool, list[str], Model]):
    __doc__ = f"{Connection.__doc__}\n    Thread-safe; make one per process and keep it."
    _grpc, is_asyncio = grpc, False
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
        for server in self._rotation.servers if self._rotation is not None else ():
            server.channel.close()

    def run(self, asking: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine of this package to its end; with this client it never waits."""
        try:
            asking.send(None)
        except StopIteration as end:
            return end.value
        raise RuntimeError("a coroutine of a blocking client has waited for an event loop")

    async def send(self, server: Server, method: Any, request: Any, timeout_s: float, metadata: Metadata) -> Any:
        """The answer to a request, or the gRPC error."""
        channel = server.channel
        try:
            # A blocking call, not .future(): that costs twice the CPU. Ctrl-C cancels it all the same.
            answer = method(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            return Cut() if error.code() is grpc.StatusCode.CANCELLED and channel is not server.channel else error
        except ValueError:  # gRPC's word for a channel that was closed between choosing and calling
            if self._closed.is_set():
                raise ValueError(CLOSED) from None
            if channel is server.channel:
                raise
            return Cut()
        server.answered_s = time.monotonic()
        return answer

    async def pause(self, seconds: float) -> None:
        """Wait, but not for longer than the client is open."""
        self._closed.wait(seconds)

    def abandon(self, server: Server) -> None:
        """Cancel the calls of all threads on a server, for which the channel has to be closed."""
        channel = server.channel
        server.connect()
        channel.close()

    def _start_probing(self) -> None:
        threading.Thread(target=self.run, args=[probe_for_ever(self)], name="fathom-health", daemon=True).start()
