"""The parts of HTTP/2 that gRPC needs: frames (RFC 9113) and header blocks (RFC 7541), each made or read once."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

DATA, HEADERS, PRIORITY_FRAME, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 0, 1, 3, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11
OUR_FAULTS = {
    PROTOCOL_ERROR: "PROTOCOL_ERROR",
    FLOW_CONTROL_ERROR: "FLOW_CONTROL_ERROR",
    FRAME_SIZE_ERROR: "FRAME_SIZE_ERROR",
    COMPRESSION_ERROR: "COMPRESSION_ERROR",
}
"""Codes with which a server says that we broke HTTP/2."""
LARGEST_WINDOW = (1 << 31) - 1
SMALLEST_FRAME, LARGEST_FRAME = 1 << 14, (1 << 24) - 1
"""What a peer may announce as its largest frame (RFC 9113, 6.5.2); ours is the smallest."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME = struct.Struct(">IBI")
"""The frame header: length (24 bits) and type (8 bits) share the first word, then flags, then the stream."""
_SIZES = {PRIORITY_FRAME: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_OF_A_STREAM = {DATA, HEADERS, PRIORITY_FRAME, RST_STREAM, CONTINUATION}
_OF_THE_CONNECTION = {SETTINGS, PING, GOAWAY}
_SETTING = struct.Struct(">HI")
TABLE_BYTES = 4096
_GRPC_UNKNOWN, _GRPC_LAST = 2, 16
_GRPC_OF_HTTP = {"400": 13, "401": 16, "403": 7, "404": 12, "429": 14, "502": 14, "503": 14, "504": 14}
"""What gRPC makes of an answer without a status (doc/http-grpc-status-mapping.md of gRPC)."""
_MOST_BLOCKS, _LONGEST_BLOCK = 1000, 1 << 10
"""Of what is remembered."""


class ProtocolError(Exception):
    """What the server sent is no HTTP/2, or not what HTTP/2 allows."""


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return FRAME.pack(len(body) << 8 | kind, flags, stream) + body


def settings_frame(values: Mapping[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(key, value) for key, value in values.items()))


def settings_of(body: bytes) -> dict[int, int]:
    """The values of a SETTINGS frame. Raises ProtocolError."""
    if len(body) % _SETTING.size:
        raise ProtocolError(f"SETTINGS of {len(body)} bytes")
    values = dict(_SETTING.iter_unpack(body))
    if not SMALLEST_FRAME <= (size := values.get(MAX_FRAME_SIZE, SMALLEST_FRAME)) <= LARGEST_FRAME:
        raise ProtocolError(f"SETTINGS_MAX_FRAME_SIZE {size}")
    if (window := values.get(INITIAL_WINDOW_SIZE, 0)) > LARGEST_WINDOW:
        raise ProtocolError(f"SETTINGS_INITIAL_WINDOW_SIZE {window}")
    return values


def check_shape(kind: int, flags: int, stream: int, length: int) -> None:
    """Raises ProtocolError for a frame whose stream or length its kind cannot have."""
    if kind == PUSH_PROMISE:
        raise ProtocolError("PUSH_PROMISE, which we switched off")
    if (kind in _OF_A_STREAM and not stream) or (kind in _OF_THE_CONNECTION and stream):
        raise ProtocolError(f"a frame of type {kind} on stream {stream}")
    if length != _SIZES.get(kind, length) or (kind == SETTINGS and flags & ACK and length):
        raise ProtocolError(f"a frame of type {kind} with {length} bytes")


def number_of(body: bytes) -> int:
    """The first four bytes of a frame as a number. Raises ProtocolError."""
    if len(body) < 4:
        raise ProtocolError(f"a frame of {len(body)} bytes where 4 are due")
    return int.from_bytes(body[:4], "big")


def unpadded(flags: int, body: bytes) -> bytes:
    """The content of a DATA or HEADERS frame, without padding and priority. Raises ProtocolError."""
    padding = body[0] if flags & PADDED and body else 0
    start = (1 if flags & PADDED else 0) + (5 if flags & PRIORITY else 0)
    if len(body) - padding < start:
        raise ProtocolError(f"{padding} bytes of padding in a frame of {len(body)}")
    return body[start : len(body) - padding]


class RequestHeaders:
    """The header list that every request of a connection has, but for the method; `metadata` are the caller's own."""

    def __init__(
        self,
        authority: str,
        methods: Sequence[str],
        timeout_s: float,
        *,
        scheme: str = "http",
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        before = [(":method", "POST"), (":scheme", scheme)]
        after = [
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "fathom-loadtest"),
            ("grpc-timeout", f"{max(int(timeout_s * 1e3), 1)}m"),
            *metadata,
        ]
        # With several methods the server's table is to be the same whichever comes first: no path is put into it.
        self._lists = [[*before, (":path", method, len(methods) > 1), *after] for method in methods]

    def blocks(self, table_bytes: int) -> list[tuple[bytes, bytes]]:
        """For each method, the block of a connection's first request, and that of all later ones, which refer to the
        first's entries.

        Too small a table at the server, or too large a header, would evict what later blocks refer to: then every
        block spells it all out.
        """
        return [_blocks(headers, table_bytes) for headers in self._lists]


def _blocks(headers: Sequence[tuple[Any, ...]], table_bytes: int) -> tuple[bytes, bytes]:
    from hpack import Encoder

    for table in (TABLE_BYTES, 0):
        encoder = Encoder()
        encoder.header_table_size = table
        first, second, third = (encoder.encode(headers) for _ in range(3))
        if table <= table_bytes and second == third:
            break
    return first, second


class ResponseHeaders:
    """Decodes each distinct block once; sound because we allow the server no dynamic table, so blocks have no state."""

    def __init__(self) -> None:
        from hpack import Decoder

        self._decoder = Decoder()
        self._decoder.max_allowed_table_size = 0
        self._decoder.header_table_size = 0
        self._known: dict[bytes, tuple[int, str, str]] = {}

    def read(self, block: bytes) -> tuple[int, str, str]:
        """The gRPC status and message (without a status what the HTTP status stands for), and the HTTP status.

        Raises ProtocolError.
        """
        found = self._known.get(block)
        if found is None:
            found = self._decode(block)
            if len(self._known) < _MOST_BLOCKS and len(block) <= _LONGEST_BLOCK:  # messages may differ per request
                self._known[block] = found
        return found

    def _decode(self, block: bytes) -> tuple[int, str, str]:
        from hpack import HPACKError

        try:
            fields = {_text(name): _text(value) for name, value in self._decoder.decode(block)}
        except (HPACKError, ValueError, IndexError) as error:
            raise ProtocolError(f"header block: {str(error).partition(':')[0]}") from None
        http = fields.get(":status", "")
        if (status := fields.get("grpc-status")) is None:
            return (
                _GRPC_OF_HTTP.get(http, _GRPC_UNKNOWN),
                f"HTTP status {http or 'missing'} without a gRPC status",
                http,
            )
        code = int(status) if status.isascii() and status.isdigit() and len(status) <= 2 else _GRPC_LAST + 1
        message = unquote(fields.get("grpc-message", ""))
        return (
            (code, message, http) if code <= _GRPC_LAST else (_GRPC_UNKNOWN, f"gRPC status {status!r} {message}", http)
        )


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
