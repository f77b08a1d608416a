"""The generator's own transport: several connections, used in turn."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from loadtests.generator import http2_frames as h2
from loadtests.generator.http2_frames import DATA, END_HEADERS, END_STREAM, FRAME, HEADERS, PADDED, PRIORITY, frame
from loadtests.generator.transport import METHOD, OnDone
from loadtests.records.record import EMPTY_RESPONSE, UNAVAILABLE


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


# One connection of the HTTP/2 transport: gRPC with the least possible work per request, on a plain asyncio protocol.
#
# grpc.aio spends most of a tiny request's time on objects nobody looks at. Here a request is two prepared frames and a
# response is three, and neither costs more than a few dictionary look-ups:
#
# - Every request of a run has the same headers, so their HPACK block is made once. The first request of a connection
#   puts the headers into the server's dynamic table; all others refer to them there (as any gRPC client does).
# - Our own table size is announced as zero, so every response block stands for itself and is decoded once per distinct
#   block, then looked up.
#
# What a real server may do is honoured: flow control in both directions, SETTINGS (also in the middle of a run), PING,
# GOAWAY, RST_STREAM, CONTINUATION, padding. Frame layout and codes: RFC 9113; header blocks: RFC 7541.

_LARGEST_WINDOW = (1 << 31) - 1
_DEFAULT_WINDOW = 65_535
_DEFAULT_FRAME = 16_384
_REFILL = 1 << 29
_JOIN_BELOW = 1 << 17
_GRPC_CANCELLED, _GRPC_INTERNAL = 1, 13
_PREFIX_BYTES = 5
"""gRPC puts a flag and the length in front of every message."""


@dataclass
class _Upload:
    """A request body that did not fit the flow-control windows at once."""

    body: memoryview
    window: int


class Http2Connection(asyncio.Protocol):
    """One connection; see `transport.Transport` for `send`, `flush` and `cancel`."""

    def __init__(self, authority: str, payloads: Sequence[bytes], on_done: OnDone, *, timeout_s: float) -> None:
        self._request_headers = h2.RequestHeaders(authority, METHOD, timeout_s)
        self._response_headers = h2.ResponseHeaders()
        self._on_done = on_done
        self._timeout_s = timeout_s
        self._bodies = [b"\0" + struct.pack(">I", len(payload)) + payload for payload in payloads]
        self._transport: asyncio.Transport | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._out: list[bytes | memoryview] = []
        self._out_bytes = 0
        self._rest = b""
        self._next_stream = 1
        self._streams: dict[int, int] = {}  # stream -> request index
        self._stream_of: dict[int, int] = {}
        self._filled: set[int] = set()  # streams whose answer has a body
        self._short: dict[int, int] = {}  # bytes of answers that come in pieces of a few bytes
        self._uploads: dict[int, _Upload] = {}
        self._window = _DEFAULT_WINDOW
        self._initial_window = _DEFAULT_WINDOW
        self._max_frame = _DEFAULT_FRAME
        self._table_size = 4096
        self._consumed = 0
        self._header_start = b""
        self._partial: tuple[int, int, bytes] | None = None  # stream, flags, block of an unfinished header list
        self._block = self._later_block = b""
        self.ended = ""
        """Why no more requests can be sent; empty while they can."""

    async def ready(self) -> None:
        """Waits for the server's SETTINGS, without which the first header block cannot be made."""
        await asyncio.wait_for(self._ready, self._timeout_s)

    # -- sending -----------------------------------------------------------------------------------------------------

    def send(self, index: int, payload: int) -> None:
        if self.ended:
            self._on_done(index, time.monotonic(), UNAVAILABLE, self.ended)
            return
        stream = self._next_stream
        self._next_stream = stream + 2
        self._streams[stream] = index
        self._stream_of[index] = stream
        number = stream.to_bytes(4, "big")
        body = self._bodies[payload]
        size = len(body)
        if size <= self._window and size <= self._initial_window and size <= self._max_frame and not self._uploads:
            self._window -= size
            request = b"".join(
                (self._header_start, number, self._block, size.to_bytes(3, "big"), b"\0\1", number, body)
            )
            self._out.append(request)
            self._out_bytes += len(request)
        else:
            self._write(self._header_start + number + self._block)
            self._uploads[stream] = _Upload(memoryview(body), self._initial_window)
            self._pump()
        if self._block is not self._later_block:
            self._set_block(self._later_block)

    def flush(self) -> None:
        if self._out and self._transport is not None:
            if self._out_bytes < _JOIN_BELOW:
                self._transport.write(b"".join(self._out))
            else:
                self._transport.writelines(self._out)
        self._out = []
        self._out_bytes = 0

    def cancel(self, index: int) -> None:
        stream = self._stream_of.pop(index, None)
        if stream is not None:
            del self._streams[stream]
            self._uploads.pop(stream, None)
            self._filled.discard(stream)
            self._short.pop(stream, None)
            self._write(frame(h2.RST_STREAM, 0, stream, h2.CANCEL.to_bytes(4, "big")))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _write(self, data: bytes | memoryview) -> None:
        self._out.append(data)
        self._out_bytes += len(data)

    def _pump(self) -> None:
        """Sends as much of the waiting bodies as the windows allow, oldest first."""
        for stream, upload in list(self._uploads.items()):
            while self._window > 0 and upload.window > 0:
                size = min(len(upload.body), self._window, upload.window, self._max_frame)
                last = size == len(upload.body)
                self._write(FRAME.pack(size << 8 | DATA, END_STREAM if last else 0, stream))
                self._write(upload.body[:size])
                self._window -= size
                upload.window -= size
                upload.body = upload.body[size:]
                if last:
                    del self._uploads[stream]
                    break
            if self._window <= 0:
                return

    def _set_block(self, block: bytes) -> None:
        self._block = block
        self._header_start = (len(block) << 8 | HEADERS).to_bytes(4, "big") + bytes([END_HEADERS])

    # -- receiving ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of asyncio's
        ours = {h2.HEADER_TABLE_SIZE: 0, h2.ENABLE_PUSH: 0, h2.INITIAL_WINDOW_SIZE: _LARGEST_WINDOW}
        grow = (_LARGEST_WINDOW - _DEFAULT_WINDOW).to_bytes(4, "big")
        self._transport.write(h2.PREFACE + h2.settings_frame(ours) + frame(h2.WINDOW_UPDATE, 0, 0, grow))

    def connection_lost(self, error: Exception | None) -> None:
        self._end(f"connection lost: {error}" if error else "the server closed the connection")

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        if self._rest:
            data = self._rest + data
        position, size = 0, len(data)
        unpack = FRAME.unpack_from
        while size - position >= 9:
            word, flags, stream = unpack(data, position)
            start = position + 9
            end = start + (word >> 8)
            if end > size:
                break
            kind = word & 0xFF
            if kind == DATA:
                self._consumed += end - start
                if end - start > _PREFIX_BYTES and not flags & PADDED:
                    self._filled.add(stream)
                else:
                    self._small_data(stream, flags, data[start:end])
                if flags & END_STREAM:
                    self._finish(stream, now_s, _GRPC_INTERNAL, "the answer ended without a status")
            elif kind == HEADERS and flags & END_HEADERS and not flags & (PADDED | PRIORITY):
                self._headers(stream, flags, data[start:end], now_s)
            else:
                self._control(kind, flags, stream, data[start:end], now_s)
            position = end
        self._rest = data[position:]
        if self._consumed >= _REFILL:
            self._write(frame(h2.WINDOW_UPDATE, 0, 0, self._consumed.to_bytes(4, "big")))
            self._consumed = 0
        self.flush()

    def _small_data(self, stream: int, flags: int, body: bytes) -> None:
        length = len(body) - (1 + body[0] if flags & PADDED else 0)
        self._short[stream] = self._short.get(stream, 0) + length
        if self._short[stream] > _PREFIX_BYTES:
            self._filled.add(stream)

    def _headers(self, stream: int, flags: int, block: bytes, now_s: float) -> None:
        status, message = self._response_headers.status(block)
        if flags & END_STREAM:
            self._finish(stream, now_s, status, message)

    def _finish(self, stream: int, now_s: float, status: int, message: str) -> None:
        index = self._streams.pop(stream, None)
        if index is None:
            return  # cancelled by us before
        del self._stream_of[index]
        if stream in self._filled:
            self._filled.discard(stream)
        elif status == 0:
            status, message = EMPTY_RESPONSE, "the answer has no body"
        if self._uploads or self._short:
            self._uploads.pop(stream, None)
            self._short.pop(stream, None)
        self._on_done(index, now_s, status, message)

    def _control(self, kind: int, flags: int, stream: int, body: bytes, now_s: float) -> None:
        if kind == h2.WINDOW_UPDATE:
            self._grow(stream, int.from_bytes(body, "big") & _LARGEST_WINDOW)
        elif kind == h2.SETTINGS and not flags & h2.ACK:
            self._settings(body)
        elif kind == h2.PING and not flags & h2.ACK:
            self._write(frame(h2.PING, h2.ACK, 0, body))
        elif kind == h2.RST_STREAM:
            code = int.from_bytes(body, "big")
            status = {h2.CANCEL: _GRPC_CANCELLED, h2.REFUSED_STREAM: UNAVAILABLE}.get(code, _GRPC_INTERNAL)
            self._finish(stream, now_s, status, f"the server reset the stream (HTTP/2 error {code})")
        elif kind == h2.GOAWAY:
            self._go_away(body, now_s)
        elif kind == HEADERS:
            padding = body[0] if flags & PADDED else 0
            skip = (1 if flags & PADDED else 0) + (5 if flags & PRIORITY else 0)
            self._continue(stream, flags, body[skip : len(body) - padding], now_s)
        elif kind == h2.CONTINUATION and self._partial is not None:
            begun, first_flags, block = self._partial
            self._continue(begun, first_flags | (flags & END_HEADERS), block + body, now_s)

    def _continue(self, stream: int, flags: int, block: bytes, now_s: float) -> None:
        if flags & END_HEADERS:
            self._partial = None
            self._headers(stream, flags, block, now_s)
        else:
            self._partial = stream, flags, block

    def _grow(self, stream: int, increment: int) -> None:
        if stream == 0:
            self._window += increment
        elif upload := self._uploads.get(stream):
            upload.window += increment
        if self._uploads:
            self._pump()

    def _settings(self, body: bytes) -> None:
        for key, value in h2.settings_of(body):
            if key == h2.INITIAL_WINDOW_SIZE:
                for upload in self._uploads.values():
                    upload.window += value - self._initial_window
                self._initial_window = value
            elif key == h2.MAX_FRAME_SIZE:
                self._max_frame = value
            elif key == h2.HEADER_TABLE_SIZE:
                self._table_size = value
        self._write(frame(h2.SETTINGS, h2.ACK, 0))
        if not self._ready.done():
            first, self._later_block = self._request_headers.blocks(self._table_size)
            self._set_block(first)
            self._ready.set_result(None)
        self._pump()

    def _go_away(self, body: bytes, now_s: float) -> None:
        last = int.from_bytes(body[:4], "big") & _LARGEST_WINDOW
        detail = body[8:].decode("utf-8", "replace")
        self.ended = self.ended or f"the server is closing the connection {detail}".rstrip()
        for stream in [number for number in self._streams if number > last]:
            self._finish(stream, now_s, UNAVAILABLE, self.ended)

    def _end(self, reason: str) -> None:
        self.ended = self.ended or reason
        now_s = time.monotonic()
        for stream in list(self._streams):
            self._finish(stream, now_s, UNAVAILABLE, self.ended)
        if not self._ready.done():
            self._ready.set_exception(ConnectionError(self.ended))
