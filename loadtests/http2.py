"""The generator's own transport: several connections (`http2_connection`), used in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from loadtests.http2_connection import Http2Connection
from loadtests.transport import OnDone


class Http2Transport:
    """Implements `transport.Transport`."""

    def __init__(
        self, server: str, payloads: Sequence[bytes], on_done: OnDone, *, channels: int, timeout_s: float
    ) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._make = lambda: Http2Connection(server, payloads, on_done, timeout_s=timeout_s)
        self._channels = channels
        self._connections: list[Http2Connection] = []

    async def open(self) -> None:
        host, _, port = self._server.rpartition(":")
        loop = asyncio.get_running_loop()
        for _ in range(self._channels):
            connecting = loop.create_connection(self._make, host.strip("[]"), int(port))
            try:
                _, connection = await asyncio.wait_for(connecting, self._timeout_s)
                self._connections.append(connection)
                await connection.ready()
            except TimeoutError:
                raise OSError(f"no HTTP/2 connection within {self._timeout_s:g} s") from None

    def send(self, index: int, payload: int) -> None:
        self._connections[index % self._channels].send(index, payload)

    def flush(self) -> None:
        for connection in self._connections:
            connection.flush()

    def cancel(self, index: int) -> None:
        self._connections[index % self._channels].cancel(index)

    @property
    def lost(self) -> bool:
        return all(connection.ended for connection in self._connections)

    async def close(self) -> None:
        for connection in self._connections:
            connection.flush()
            connection.close()
