"""One connection of the HTTP/2 transport: gRPC with the least possible work per request, on a plain asyncio protocol.

grpc.aio spends most of a tiny request's time on objects nobody looks at. Here a request is two prepared frames and a
response is three, and neither costs more than a few dictionary look-ups:

- Every request of a run has the same headers, so their HPACK block is made once. The first request of a connection
  puts the headers into the server's dynamic table; all others refer to them there (as any gRPC client does).
- Our own table size is announced as zero, so every response block stands for itself and is decoded once per distinct
  block, then looked up.

What a real server may do is honoured: flow control in both directions, SETTINGS (also in the middle of a run), PING,
GOAWAY, RST_STREAM, CONTINUATION, padding. What a server must not do ends the connection: a breach of HTTP/2, a header
list of more than 64 KiB, or 10,000 frames in a row that bring no answer nearer. An answer that breaks gRPC's own rules
is an error of its request. Frame layout and codes: RFC 9113; header blocks: RFC 7541.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Mapping
from typing import cast

from loadtests.generator.endpoint import reason
from loadtests.generator.http2 import frames as h2
from loadtests.generator.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME,
    HEADERS,
    LARGEST_WINDOW,
    PADDED,
    PRIORITY,
    ProtocolError,
    frame,
)
from loadtests.generator.http2.requests import LAST_STREAM, Http2Requests, head
from loadtests.generator.http2.stream import GRPC_INTERNAL, NOTHING, PREFIX, PREFIX_BYTES
from loadtests.generator.http2.uploads import DEFAULT_WINDOW
from loadtests.generator.transport import Owner
from loadtests.records.record import OK, UNAVAILABLE

_REFILL = 1 << 29
_LONGEST_HEADERS = 1 << 16
_MOST_FRUITLESS = 10_000
_MOST_UNWRITTEN = 1 << 24
_LONGEST_DETAIL = 200
_GRPC_CANCELLED, _GRPC_UNKNOWN = 1, 2


class Http2Connection(Http2Requests):
    """Sends the numbered `bodies` as requests with these headers, and reports their answers to its owner; those of
    `streamed` are answered in parts."""

    def __init__(
        self,
        owner: Owner[Http2Connection],
        slot: int,
        headers: h2.RequestHeaders,
        bodies: Mapping[int, bytes],
        streamed: Container[int],
    ) -> None:
        super().__init__(bodies, streamed, owner.on_first)
        self._owner = owner
        self.slot = slot
        """Its place among the owner's connections, which the one that replaces it takes."""
        self.made_s = time.monotonic()
        self._on_done = owner.on_done
        self._request_headers = headers
        self._response_headers = h2.ResponseHeaders()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rest = b""
        self._due = h2.SETTINGS  # the kind of frame that must come next, where only one may
        self._consumed = 0
        self._partial: tuple[int, int, bytes] | None = None  # stream, flags, block of an unfinished header list
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = ""
        """Why no more requests can be sent; empty while they can."""

    async def ready(self, timeout_s: float) -> None:
        """Waits for the server's SETTINGS, without which the first header block cannot be made. Raises OSError."""
        try:
            await asyncio.wait_for(self._ready, timeout_s)
        except TimeoutError:
            self._fail(f"no HTTP/2 within {timeout_s:g} s of connecting")
        if self.ended:
            raise OSError(self.ended)

    # -- receiving: all frames are read here -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of asyncio's
        ours = {h2.HEADER_TABLE_SIZE: 0, h2.ENABLE_PUSH: 0, h2.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}
        self._transport.set_write_buffer_limits(high=_MOST_UNWRITTEN)
        grow = (LARGEST_WINDOW - DEFAULT_WINDOW).to_bytes(4, "big")
        self._transport.write(h2.PREFACE + h2.settings_frame(ours) + frame(h2.WINDOW_UPDATE, 0, 0, grow))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the connection broke: {reason(error)}" if error else "the server closed the connection")
        self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._read_frames(data, time.monotonic())
        except ProtocolError as error:
            self._write(frame(h2.GOAWAY, 0, 0, bytes(4) + h2.PROTOCOL_ERROR.to_bytes(4, "big")))
            self.flush()
            self._fail(f"the server broke HTTP/2: {error}")
            return
        if self.ended and not self._streams:
            self.close()
        else:
            self.flush()

    def _read_frames(self, data: bytes, now_s: float) -> None:
        if self._rest:
            data = self._rest + data
        position, size, open_before, room_before = 0, len(data), len(self._streams), self._most_streams
        unpack, prefix, streams = FRAME.unpack_from, PREFIX.unpack_from, self._streams
        while size - position >= 9:
            word, flags, number = unpack(data, position)
            start = position + 9
            length = word >> 8
            position = start + length
            kind = word & 0xFF
            if length > h2.SMALLEST_FRAME or self._due:
                self._check(kind, flags, length, data)
            if position > size:
                position = start - 9
                break
            number &= LAST_STREAM  # the highest bit is reserved
            if kind == DATA:
                self._consumed += length
                stream = streams.get(number)
                if stream is None or flags & PADDED or not stream.has_headers or length <= PREFIX_BYTES:
                    self._data(number, flags, data[start:position], now_s)
                elif stream.size == NOTHING and prefix(data, start) == (0, length - PREFIX_BYTES):
                    stream.size = length - PREFIX_BYTES
                elif length <= stream.left:
                    stream.left -= length
                else:
                    self._data(number, flags, data[start:position], now_s)
                if flags & END_STREAM:
                    self._finish(number, now_s, GRPC_INTERNAL, "the answer ended without a status")
            elif kind == HEADERS and flags & END_HEADERS and not flags & (PADDED | PRIORITY):
                self._headers(number, flags, data[start:position], now_s)
            else:
                self._control(kind, flags, number, data[start:position], now_s)
        self._rest = data[position:]
        if self._consumed >= _REFILL:
            self._write(frame(h2.WINDOW_UPDATE, 0, 0, self._consumed.to_bytes(4, "big")))
            self._consumed = 0
        if self._uploads.waiting:
            self._uploads.send()
        if len(streams) < open_before or self._most_streams > room_before:
            self._owner.on_room()

    def _check(self, kind: int, flags: int, length: int, data: bytes) -> None:
        """A peer begins with SETTINGS, a header list is not interrupted, and no frame is longer than we allow."""
        if self._due == h2.SETTINGS and (kind != h2.SETTINGS or flags & h2.ACK):
            raise ProtocolError("it answers in HTTP/1" if data.startswith(b"HTTP/") else "it began without SETTINGS")
        if self._due and kind != self._due:
            raise ProtocolError(f"a frame of type {kind} in the middle of a header list")
        if length > h2.SMALLEST_FRAME:
            raise ProtocolError(f"a frame of {length} bytes, where {h2.SMALLEST_FRAME} are allowed")

    def _count_fruitless(self) -> None:
        self._fruitless += 1
        if self._fruitless > _MOST_FRUITLESS:
            raise ProtocolError(f"{self._fruitless} frames that bring no answer nearer")

    def _stray(self, number: int) -> None:
        """Something came for a stream that is not open: it may have been sent before we gave up on that."""
        if not number & 1 or number >= self._next_stream:
            raise ProtocolError(f"stream {number} was never opened")
        self._count_fruitless()

    def _data(self, number: int, flags: int, body: bytes, now_s: float) -> None:
        body = h2.unpadded(flags & PADDED, body)
        stream = self._streams.get(number)
        if stream is None:
            self._stray(number)
            return
        if stream.receive(body, now_s):
            self._fruitless = 0
        else:
            self._count_fruitless()

    def _headers(self, number: int, flags: int, block: bytes, now_s: float) -> None:
        status, message, http = self._response_headers.read(block)
        stream = self._streams.get(number)
        if stream is None:
            self._stray(number)
        elif flags & END_STREAM:
            self._finish(number, now_s, status, message)
        elif stream.has_headers:
            raise ProtocolError("trailers that do not end their stream")
        elif http == "200":
            stream.has_headers = True
        elif len(http) == 3 and http.startswith("1"):
            self._count_fruitless()  # informational
        else:
            stream.has_headers = True
            stream.failure = status or _GRPC_UNKNOWN, f"HTTP status {http or 'missing'}"

    def _finish(self, number: int, now_s: float, status: int, message: str) -> None:
        stream = self._streams.pop(number, None)
        if stream is None:
            return  # cancelled by us before
        del self._stream_of[stream.index]
        self._fruitless = 0
        if self._uploads.waiting:
            self._uploads.waiting.pop(number, None)
        if status == OK and not (stream.size > 0 == stream.left and stream.failure is None):
            status, message = stream.defect()
        self._on_done(stream.index, now_s, status, message)

    def _control(self, kind: int, flags: int, number: int, body: bytes, now_s: float) -> None:
        h2.check_shape(kind, flags, number, len(body))
        if kind == h2.WINDOW_UPDATE:
            if not self._uploads.widen(number, h2.number_of(body) & LARGEST_WINDOW):
                self._count_fruitless()
            return
        self._count_fruitless()
        if kind == h2.SETTINGS and not flags & h2.ACK:
            self._settings(body)
        elif kind == h2.PING and not flags & h2.ACK:
            self._write(frame(h2.PING, h2.ACK, 0, body))
        elif kind == h2.RST_STREAM:
            self._reset(number, h2.number_of(body), now_s)
        elif kind == h2.GOAWAY:
            self._go_away(body)
        elif kind == HEADERS:
            self._continue(number, flags, h2.unpadded(flags, body), now_s)
        elif kind == h2.CONTINUATION:
            if self._partial is None or self._partial[0] != number:
                raise ProtocolError(f"CONTINUATION of no header list on stream {number}")
            _, first_flags, block = self._partial
            self._continue(number, first_flags | (flags & END_HEADERS), block + body, now_s)

    def _continue(self, number: int, flags: int, block: bytes, now_s: float) -> None:
        if len(block) > _LONGEST_HEADERS:
            raise ProtocolError(f"a header list of more than {_LONGEST_HEADERS} bytes")
        if flags & END_HEADERS:
            self._partial, self._due = None, 0
            self._headers(number, flags, block, now_s)
        else:
            self._partial, self._due = (number, flags, block), h2.CONTINUATION

    def _settings(self, body: bytes) -> None:
        values = h2.settings_of(body)
        self._uploads.allow(initial_window=values.get(h2.INITIAL_WINDOW_SIZE), max_frame=values.get(h2.MAX_FRAME_SIZE))
        if not self.ended:
            self._most_streams = values.get(h2.MAX_CONCURRENT_STREAMS, self._most_streams)
        self._write(frame(h2.SETTINGS, h2.ACK, 0))
        table_bytes = values.get(h2.HEADER_TABLE_SIZE, h2.TABLE_BYTES)
        is_first, self._due = not self._later_heads, 0
        if is_first or table_bytes < h2.TABLE_BYTES:  # its table is emptied, so that later blocks refer to nothing
            blocks = self._request_headers.blocks(table_bytes)
            self._heads, self._later_heads = (tuple(map(head, each)) for each in zip(*blocks, strict=True))
        if not self._ready.done():
            self._ready.set_result(None)

    # -- endings -----------------------------------------------------------------------------------------------------

    def _reset(self, number: int, code: int, now_s: float) -> None:
        # REFUSED_STREAM should mean that the server never looked at it, but HAProxy sends it for a server that died
        # with the request: so it is not sent again.
        status = {h2.CANCEL: _GRPC_CANCELLED, h2.REFUSED_STREAM: UNAVAILABLE}.get(code, GRPC_INTERNAL)
        if number not in self._streams:
            self._stray(number)
        self._finish(number, now_s, status, f"the server reset the stream (HTTP/2 error {code})")

    def _go_away(self, body: bytes) -> None:
        """The server finishes the streams up to a number, and never looks at those above it."""
        last, code = h2.number_of(body) & LAST_STREAM, h2.number_of(body[4:])
        detail = body[8 : 8 + _LONGEST_DETAIL].decode("utf-8", "replace")
        if code in h2.OUR_FAULTS:
            self._owner.on_our_fault(f"the server ended a connection with {h2.OUR_FAULTS[code]} {detail}".rstrip())
        why = f"the server closes the connection {detail}".rstrip() + (f" (HTTP/2 error {code})" if code else "")
        self._stop_sending(why)
        for stream in [number for number in self._streams if number > last]:
            unseen = self._streams.pop(stream)
            del self._stream_of[unseen.index]
            self._uploads.waiting.pop(stream, None)
            self._owner.on_unseen(unseen.index, unseen.payload, why)
        self._owner.on_room()

    def _stop_sending(self, why: str) -> None:
        if not self.ended:
            self.ended, self._most_streams = why, 0
            self._owner.on_ended(self)

    def _fail(self, why: str) -> None:
        """The connection is of no use any more: what it has open has failed."""
        announced, open_streams = self.ended, len(self._streams)
        self._stop_sending(why)
        message = f"{why} (requests in flight: {open_streams}{f'; after: {announced}' if announced else ''})"
        now_s = time.monotonic()
        for stream in list(self._streams):
            self._finish(stream, now_s, UNAVAILABLE, message)
        if not self._ready.done():
            self._ready.set_result(None)
        self.abort()
