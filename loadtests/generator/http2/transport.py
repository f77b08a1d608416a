"""The generator's own transport: several connections used in turn, and another for each that ends.

A connection that the server closes in good order (GOAWAY) finishes the requests it has; those that the server never
looked at are sent again, once. Requests on a connection that breaks have failed. While no connection has room, requests
wait here and more connections are opened, as more callers would do; the wait counts as latency like any other.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Iterable, Sequence

from loadtests.errors import GeneratorError
from loadtests.generator.endpoint import Endpoint
from loadtests.generator.http2 import frames as h2
from loadtests.generator.http2.connection import Http2Connection
from loadtests.generator.parts import Parts
from loadtests.generator.transport import METHOD, STREAM_METHOD, OnDone, OnFirst
from loadtests.records.record import UNAVAILABLE
from loadtests.target.access import Access

MOST_CONNECTIONS = 256
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_CLOSE_S = 1.0
"""A server may take so long to agree to the end of TLS."""
_PLAIN = Access()


def _no_parts(index: int, parts: Parts) -> None:
    """Where no answer is streamed."""


def _message(request: bytes) -> bytes:
    """As gRPC frames it."""
    return b"\0" + struct.pack(">I", len(request)) + request


class Http2Transport:
    """Implements `transport.Transport` and `transport.Owner`; raises what `Endpoint` raises.

    The answers to the payloads with the numbers `streamed` come in parts.
    """

    def __init__(
        self,
        server: str,
        payloads: Sequence[bytes],
        on_done: OnDone,
        on_first: OnFirst = _no_parts,
        *,
        channels: int,
        timeout_s: float,
        access: Access = _PLAIN,
        streamed: Iterable[int] = (),
        most_connections: int = MOST_CONNECTIONS,
    ) -> None:
        self._endpoint = Endpoint(server, access)
        self._streamed = frozenset(streamed)
        self._headers = h2.RequestHeaders(
            self._endpoint.authority,
            (METHOD, STREAM_METHOD) if self._streamed else (METHOD,),
            timeout_s,
            scheme="https" if access.tls else "http",
            metadata=access.metadata(),
        )
        self._bodies = {number: _message(payload) for number, payload in enumerate(payloads)}
        self.on_done = on_done
        self.on_first = on_first
        self._timeout_s = timeout_s
        self._channels = channels
        self._most_connections = most_connections
        self._usable: list[Http2Connection] = []
        self._draining: set[Http2Connection] = set()
        self._turn = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._opened = 0
        self._untried: set[int] = set()  # places for which no attempt to connect has failed yet
        self._waiting: dict[int, int] = {}  # request index -> payload, oldest first
        self._sent_again: set[int] = set()
        self._failure = ""
        self._is_open = False
        self.broken = ""

    async def open(self) -> None:
        self._opened = max(self._channels, await self._endpoint.resolve())
        self._is_open = True
        opening = [asyncio.ensure_future(self._connect(slot)) for slot in range(self._opened)]
        self._opening.update(opening)
        try:
            results = await asyncio.gather(*opening, return_exceptions=True)
        finally:
            self._opening.difference_update(opening)
        failed = {slot: error for slot, error in enumerate(results) if error is not None}
        for error in failed.values():
            if len(failed) == len(results) or not isinstance(error, OSError):
                await self.close()
                raise error
        for slot in failed:  # of several servers, some may be down
            self._open_another(slot)

    def send(self, index: int, payload: int) -> None:
        usable = self._usable
        if usable and not self._waiting:
            self._turn = turn = (self._turn + 1) % len(usable)
            if usable[turn].send(index, payload):
                return
        self._waiting[index] = payload
        if len(self._waiting) == 1 or self.lost:
            self.on_room()

    # Requests that are made for one sending, and are to take the same way as others before them.

    def offer(self, payload: int, request: bytes) -> None:
        """Adds a payload until `forget`."""
        self._bodies[payload] = _message(request)

    def forget(self, payload: int) -> None:
        """It is not sent any more."""
        self._bodies.pop(payload, None)

    def place(self) -> int:
        """A connection's, each in turn."""
        if not self._usable:
            return 0
        self._turn = turn = (self._turn + 1) % len(self._usable)
        return self._usable[turn].slot

    def send_at(self, place: int, index: int, payload: int) -> None:
        """As `send`, by the connection at that place, which leads to the same server, as long as there is room."""
        if not self._waiting:
            for connection in self._usable:
                if connection.slot == place and connection.send(index, payload):
                    return
        self.send(index, payload)

    def flush(self) -> None:
        for connection in self._usable:
            connection.flush()

    def cancel(self, index: int) -> None:
        if self._waiting.pop(index, None) is None:
            any(connection.cancel(index) for connection in (*self._usable, *self._draining))

    @property
    def lost(self) -> bool:
        return bool(self._failure) and not self._usable and not self._untried

    @property
    def connections(self) -> int:
        return self._opened

    async def close(self) -> None:
        self._is_open = False
        for task in self._opening:
            task.cancel()
        connections = [*self._usable, *self._draining]
        for connection in connections:
            connection.close()
        if connections:
            await asyncio.wait([connection.closed for connection in connections], timeout=_CLOSE_S)
        for connection in connections:
            connection.abort()

    # -- reports of connections --------------------------------------------------------------------------------------

    def on_room(self) -> None:
        """Sends what waits, and opens more connections where that is not enough."""
        if not self._waiting or not self._is_open:
            return
        if self.lost:
            self._fail_waiting()
            return
        tried = 0
        while self._waiting and tried < len(self._usable):
            self._turn = turn = (self._turn + 1) % len(self._usable)
            index, payload = next(iter(self._waiting.items()))
            if self._usable[turn].send(index, payload):
                del self._waiting[index]
                tried = 0
            else:
                tried += 1
        self.flush()
        if self._waiting and self._usable and not self._opening:
            for _ in range(min(self._opened, self._most_connections - self._opened)):
                self._open_another(self._opened)
                self._opened += 1

    def on_unseen(self, index: int, payload: int, why: str) -> None:
        if index in self._sent_again:
            self.on_done(index, time.monotonic(), UNAVAILABLE, f"{why}, for the second time")
        else:
            self._sent_again.add(index)
            self._waiting[index] = payload

    def on_ended(self, connection: Http2Connection) -> None:
        """Puts another one in its place: after a pause, where the server ends each as soon as it is made."""
        if connection not in self._usable:
            return
        self._usable.remove(connection)
        self._draining = {one for one in self._draining if one.has_open} | {connection}
        self._failure = ""
        if self._is_open:
            self._open_another(connection.slot, _FIRST_PAUSE_S - (time.monotonic() - connection.made_s))

    def on_our_fault(self, why: str) -> None:
        self.broken = self.broken or f"the generator broke HTTP/2: {why}"

    # -- opening -----------------------------------------------------------------------------------------------------

    def _open_another(self, slot: int, after_s: float = 0.0) -> None:
        self._untried.add(slot)
        task = asyncio.ensure_future(self._keep_trying(slot, after_s))
        self._opening.add(task)
        task.add_done_callback(self._have_opened)

    def _have_opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        self.on_room()

    async def _keep_trying(self, slot: int, after_s: float) -> None:
        await asyncio.sleep(after_s)
        pause_s = _FIRST_PAUSE_S
        while self._is_open:
            try:
                await self._connect(slot)
                return
            except GeneratorError as error:
                self.broken = self.broken or str(error)
                return
            except OSError as error:
                self._failure = f"no connection to the server: {error}"
                self._untried.discard(slot)
            self.on_room()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _connect(self, slot: int) -> None:
        def make() -> Http2Connection:
            return Http2Connection(self, slot, self._headers, self._bodies, self._streamed)

        connection = await self._endpoint.connect(make, slot, self._timeout_s)
        try:
            await connection.ready(self._timeout_s)
        except asyncio.CancelledError:
            connection.abort()
            raise
        self._usable.append(connection)
        self._untried.discard(slot)
        self._failure = ""

    def _fail_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        now_s = time.monotonic()
        for index in waiting:
            self.on_done(index, now_s, UNAVAILABLE, self._failure)
