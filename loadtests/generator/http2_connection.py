"""One connection of the HTTP/2 transport: gRPC with the least possible work per request, on a plain asyncio protocol.

grpc.aio spends most of a tiny request's time on objects nobody looks at. Here a request is two prepared frames and a
response is three, and neither costs more than a few dictionary look-ups:

- Every request of a run has the same headers, so their HPACK block is made once. The first request of a connection
  puts the headers into the server's dynamic table; all others refer to them there (as any gRPC client does).
- Our own table size is announced as zero, so every response block stands for itself and is decoded once per distinct
  block, then looked up.

What a real server may do is honoured: flow control in both directions, SETTINGS (also in the middle of a run), PING,
GOAWAY, RST_STREAM, CONTINUATION, padding. What a server must not do ends the connection. Frame layout and codes:
RFC 9113; header blocks: RFC 7541.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import cast

from loadtests.generator import http2_frames as h2
from loadtests.generator.endpoint import reason
from loadtests.generator.http2_frames import (
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
from loadtests.generator.http2_uploads import Uploads
from loadtests.generator.transport import Owner
from loadtests.records.record import EMPTY_RESPONSE, UNAVAILABLE

_DEFAULT_WINDOW = 65_535
_REFILL = 1 << 29
_JOIN_BELOW = 1 << 17
_LONGEST_HEADERS = 1 << 16
_LAST_STREAM = (1 << 31) - 1
_GRPC_CANCELLED, _GRPC_INTERNAL = 1, 13
_PREFIX_BYTES = 5
"""gRPC puts a flag and the length in front of every message."""


class Http2Connection(asyncio.Protocol):
    """Sends the numbered `bodies`, which are whole gRPC messages, as requests with these headers."""

    def __init__(
        self, owner: Owner[Http2Connection], slot: int, headers: h2.RequestHeaders, bodies: Sequence[bytes]
    ) -> None:
        self._owner = owner
        self.slot = slot
        """Its place among the owner's connections, which the one that replaces it takes."""
        self._on_done = owner.on_done
        self._request_headers = headers
        self._response_headers = h2.ResponseHeaders()
        self._bodies = bodies
        self._transport: asyncio.Transport | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._out: list[bytes | memoryview] = []
        self._out_bytes = 0
        self._rest = b""
        self._next_stream = 1
        self._most_streams = _LAST_STREAM
        self._streams: dict[int, tuple[int, int]] = {}  # stream -> request index and payload
        self._stream_of: dict[int, int] = {}
        self._filled: set[int] = set()  # streams whose answer has a body
        self._short: dict[int, int] = {}  # bytes of answers that come in pieces of a few bytes
        self._uploads = Uploads(self._write)
        self._window = _DEFAULT_WINDOW
        self._initial_window = _DEFAULT_WINDOW
        self._max_frame = h2.SMALLEST_FRAME
        self._table_size = 4096
        self._consumed = 0
        self._header_start = b""
        self._partial: tuple[int, int, bytes] | None = None  # stream, flags, block of an unfinished header list
        self._block = self._later_block = b""
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

    @property
    def has_open(self) -> bool:
        """Whether requests wait for their answers."""
        return bool(self._streams)

    # -- sending -----------------------------------------------------------------------------------------------------

    def send(self, index: int, payload: int) -> bool:
        """Starts a request, which may leave only at the next `flush`; false when there is no room for another."""
        if len(self._streams) >= self._most_streams:
            return False
        stream = self._next_stream
        self._next_stream = stream + 2
        self._streams[stream] = index, payload
        self._stream_of[index] = stream
        number = stream.to_bytes(4, "big")
        body = self._bodies[payload]
        size = len(body)
        if (
            size <= self._window
            and size <= self._initial_window
            and size <= self._max_frame
            and not self._uploads.waiting
        ):
            self._window -= size
            request = b"".join(
                (self._header_start, number, self._block, size.to_bytes(3, "big"), b"\0\1", number, body)
            )
            self._out.append(request)
            self._out_bytes += len(request)
        else:
            self._write(self._header_start + number + self._block)
            self._uploads.add(stream, body, self._initial_window)
            self._pump()
        if self._block is not self._later_block:
            self._set_block(self._later_block)
        if self._next_stream > _LAST_STREAM:
            self._stop_sending("all of its streams are used")
        return True

    def flush(self) -> None:
        """Hands everything started to the operating system."""
        if self._out and self._transport is not None:
            if self._out_bytes < _JOIN_BELOW:
                self._transport.write(b"".join(self._out))
            else:
                self._transport.writelines(self._out)
        self._out = []
        self._out_bytes = 0

    def cancel(self, index: int) -> bool:
        """Gives up on a request, telling the server; false when it has none of this number."""
        stream = self._stream_of.pop(index, None)
        if stream is None:
            return False
        del self._streams[stream]
        self._forget(stream)
        self._write(frame(h2.RST_STREAM, 0, stream, h2.CANCEL.to_bytes(4, "big")))
        return True

    def close(self) -> None:
        """Ends the connection in good order; requests that are still open are not reported any more."""
        self._streams.clear()
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Ends it at once."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes | memoryview) -> None:
        self._out.append(data)
        self._out_bytes += len(data)

    def _pump(self) -> None:
        self._window = self._uploads.send(self._window, self._max_frame)

    def _set_block(self, block: bytes) -> None:
        self._block = block
        self._header_start = (len(block) << 8 | HEADERS).to_bytes(4, "big") + bytes([END_HEADERS])

    # -- receiving: all frames are read here -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of asyncio's
        ours = {h2.HEADER_TABLE_SIZE: 0, h2.ENABLE_PUSH: 0, h2.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}
        grow = (LARGEST_WINDOW - _DEFAULT_WINDOW).to_bytes(4, "big")
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
        position, size, open_before = 0, len(data), len(self._streams)
        unpack = FRAME.unpack_from
        while size - position >= 9:
            word, flags, stream = unpack(data, position)
            start = position + 9
            end = start + (word >> 8)
            kind = word & 0xFF
            if end - start > h2.SMALLEST_FRAME or not self._later_block:
                self._check(kind, end - start, data)
            if end > size:
                break
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
        if len(self._streams) < open_before:
            self._owner.on_room()

    def _check(self, kind: int, length: int, data: bytes) -> None:
        """A peer begins with SETTINGS, and no frame is longer than we allow."""
        if kind != h2.SETTINGS and not self._later_block:
            raise ProtocolError("it answers in HTTP/1" if data.startswith(b"HTTP/") else "it began without SETTINGS")
        if length > h2.SMALLEST_FRAME:
            raise ProtocolError(f"a frame of {length} bytes, where {h2.SMALLEST_FRAME} are allowed")

    def _small_data(self, stream: int, flags: int, body: bytes) -> None:
        self._short[stream] = self._short.get(stream, 0) + len(h2.unpadded(flags & PADDED, body))
        if self._short[stream] > _PREFIX_BYTES:
            self._filled.add(stream)

    def _headers(self, stream: int, flags: int, block: bytes, now_s: float) -> None:
        status, message = self._response_headers.status(block)
        if flags & END_STREAM:
            self._finish(stream, now_s, status, message)

    def _finish(self, stream: int, now_s: float, status: int, message: str) -> None:
        request = self._streams.pop(stream, None)
        if request is None:
            return  # cancelled by us before
        index = request[0]
        del self._stream_of[index]
        if stream in self._filled:
            self._filled.discard(stream)
        elif status == 0:
            status, message = EMPTY_RESPONSE, "the answer has no body"
        if self._uploads.waiting or self._short:
            self._uploads.waiting.pop(stream, None)
            self._short.pop(stream, None)
        self._on_done(index, now_s, status, message)

    def _forget(self, stream: int) -> None:
        self._uploads.waiting.pop(stream, None)
        self._filled.discard(stream)
        self._short.pop(stream, None)

    def _control(self, kind: int, flags: int, stream: int, body: bytes, now_s: float) -> None:
        if kind == h2.WINDOW_UPDATE:
            self._grow(stream, h2.number_of(body) & LARGEST_WINDOW)
        elif kind == h2.SETTINGS and not flags & h2.ACK:
            self._settings(body)
        elif kind == h2.PING and not flags & h2.ACK:
            self._write(frame(h2.PING, h2.ACK, 0, body))
        elif kind == h2.RST_STREAM:
            self._reset(stream, h2.number_of(body), now_s)
        elif kind == h2.GOAWAY:
            self._go_away(body)
        elif kind == HEADERS:
            self._continue(stream, flags, h2.unpadded(flags, body), now_s)
        elif kind == h2.CONTINUATION and self._partial is not None:
            begun, first_flags, block = self._partial
            self._continue(begun, first_flags | (flags & END_HEADERS), block + body, now_s)

    def _continue(self, stream: int, flags: int, block: bytes, now_s: float) -> None:
        if len(block) > _LONGEST_HEADERS:
            raise ProtocolError(f"a header list of more than {_LONGEST_HEADERS} bytes")
        if flags & END_HEADERS:
            self._partial = None
            self._headers(stream, flags, block, now_s)
        else:
            self._partial = stream, flags, block

    def _grow(self, stream: int, increment: int) -> None:
        if stream == 0:
            self._window += increment
        else:
            self._uploads.widen(increment, stream)
        if self._uploads.waiting:
            self._pump()

    def _settings(self, body: bytes) -> None:
        for key, value in h2.settings_of(body):
            if key == h2.INITIAL_WINDOW_SIZE:
                self._uploads.widen(value - self._initial_window)
                self._initial_window = value
            elif key == h2.MAX_FRAME_SIZE:
                self._max_frame = value
            elif key == h2.HEADER_TABLE_SIZE:
                self._table_size = value
            elif key == h2.MAX_CONCURRENT_STREAMS and not self.ended:
                self._most_streams = value
                self._owner.on_room()
        self._write(frame(h2.SETTINGS, h2.ACK, 0))
        if not self._ready.done():
            first, self._later_block = self._request_headers.blocks(self._table_size)
            self._set_block(first)
            self._ready.set_result(None)
        self._pump()

    # -- endings -----------------------------------------------------------------------------------------------------

    def _reset(self, stream: int, code: int, now_s: float) -> None:
        # REFUSED_STREAM should mean that the server never looked at it, but HAProxy sends it for a server that died
        # with the request: so it is not sent again.
        status = {h2.CANCEL: _GRPC_CANCELLED, h2.REFUSED_STREAM: UNAVAILABLE}.get(code, _GRPC_INTERNAL)
        self._finish(stream, now_s, status, f"the server reset the stream (HTTP/2 error {code})")

    def _go_away(self, body: bytes) -> None:
        """The server finishes the streams up to a number, and never looks at those above it."""
        last, code = h2.number_of(body) & _LAST_STREAM, h2.number_of(body[4:])
        detail = body[8:].decode("utf-8", "replace")
        if code in h2.OUR_FAULTS:
            self._owner.on_our_fault(f"the server ended a connection with {h2.OUR_FAULTS[code]} {detail}".rstrip())
        why = f"the server closes the connection {detail}".rstrip() + (f" (HTTP/2 error {code})" if code else "")
        self._stop_sending(why)
        for stream in [number for number in self._streams if number > last]:
            index, payload = self._streams.pop(stream)
            del self._stream_of[index]
            self._forget(stream)
            self._owner.on_unseen(index, payload, why)
        self._owner.on_room()

    def _stop_sending(self, why: str) -> None:
        if not self.ended:
            self.ended, self._most_streams = why, 0
            self._owner.on_ended(self)

    def _fail(self, why: str) -> None:
        """The connection is of no use any more: what it has open has failed."""
        announced, open_streams = self.ended, len(self._streams)
        self._stop_sending(why)
        message = f"{why} with {open_streams} requests in flight" + (f", after: {announced}" if announced else "")
        now_s = time.monotonic()
        for stream in list(self._streams):
            self._finish(stream, now_s, UNAVAILABLE, message)
        if not self._ready.done():
            self._ready.set_result(None)
        self.abort()
