"""The parts of HTTP/2 that gRPC needs: frames (RFC 9113) and header blocks (RFC 7541), each made or read once."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 4, 5
REFUSED_STREAM, CANCEL = 7, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME = struct.Struct(">IBI")
"""The frame header: length (24 bits) and type (8 bits) share the first word, then flags, then the stream."""
_SETTING = struct.Struct(">HI")
_TABLE_BYTES = 4096
_GRPC_UNKNOWN = 2
_MOST_BLOCKS = 1000


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return FRAME.pack(len(body) << 8 | kind, flags, stream) + body


def settings_frame(values: Mapping[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(key, value) for key, value in values.items()))


def settings_of(body: bytes) -> Iterator[tuple[int, int]]:
    """Key and value pairs of a SETTINGS frame."""
    return _SETTING.iter_unpack(body)  # type: ignore[return-value]


class RequestHeaders:
    """The header list that every request of a connection has."""

    def __init__(self, authority: str, method: str, timeout_s: float) -> None:
        self._headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "fathom-loadtest"),
            ("grpc-timeout", f"{max(int(timeout_s * 1e3), 1)}m"),
        ]

    def blocks(self, table_bytes: int) -> tuple[bytes, bytes]:
        """The block of a connection's first request, and that of all later ones, which refer to the first's entries.

        Too small a table at the server would evict what later blocks refer to: then every block spells it all out.
        """
        from hpack import Encoder

        encoder = Encoder()
        encoder.header_table_size = _TABLE_BYTES if table_bytes >= _TABLE_BYTES else 0
        first = encoder.encode(self._headers)
        return first, encoder.encode(self._headers)


class ResponseHeaders:
    """Decodes each distinct block once; sound because we allow the server no dynamic table, so blocks have no state."""

    def __init__(self) -> None:
        from hpack import Decoder

        self._decoder = Decoder()
        self._decoder.max_allowed_table_size = 0
        self._decoder.header_table_size = 0
        self._known: dict[bytes, tuple[int, str]] = {}

    def status(self, block: bytes) -> tuple[int, str]:
        """The gRPC status and message; UNKNOWN for a block without a status (a response's first, not its last)."""
        found = self._known.get(block)
        if found is None:
            found = self._decode(block)
            if len(self._known) < _MOST_BLOCKS:  # messages may differ per request
                self._known[block] = found
        return found

    def _decode(self, block: bytes) -> tuple[int, str]:
        fields = {_text(name): _text(value) for name, value in self._decoder.decode(block)}
        if "grpc-status" in fields:
            return int(fields["grpc-status"]), unquote(fields.get("grpc-message", ""))
        return _GRPC_UNKNOWN, f"HTTP status {fields.get(':status', 'missing')} without a gRPC status"


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
