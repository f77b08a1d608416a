"""The requests of one HTTP/2 connection, from their start until they are answered or cancelled, and its way out."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Container, Mapping

from loadtests.generator.http2 import frames as h2
from loadtests.generator.http2.frames import END_HEADERS, HEADERS, frame
from loadtests.generator.http2.stream import Stream
from loadtests.generator.http2.streamed import StreamedAnswer
from loadtests.generator.http2.uploads import Uploads
from loadtests.generator.transport import OnFirst

LAST_STREAM = (1 << 31) - 1
_JOIN_BELOW = 1 << 17
Head = tuple[bytes, bytes]
"""The HEADERS frame of a request, before and after the number of its stream."""
Heads = tuple[Head, ...]
"""Of a request with one answer, and of one that is answered in parts."""


class Http2Requests(asyncio.Protocol):
    """Sends the numbered `bodies`, which are whole gRPC messages; those of `streamed` are answered in parts. What comes
    back is for the subclass."""

    def __init__(self, bodies: Mapping[int, bytes], streamed: Container[int], on_first: OnFirst) -> None:
        self._bodies = bodies
        self._streamed = streamed
        self._on_first = on_first
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes | memoryview] = []
        self._out_bytes = 0
        self._next_stream = 1
        self._most_streams = LAST_STREAM
        self._streams: dict[int, Stream] = {}
        self._stream_of: dict[int, int] = {}
        self._uploads = Uploads(self._write)
        self._fruitless = 0  # frames of the server since the last answer that brought none nearer
        self._heads: Heads = ()
        self._later_heads: Heads = ()

    @property
    def has_open(self) -> bool:
        """Whether requests wait for their answers."""
        return bool(self._streams)

    @abstractmethod
    def _stop_sending(self, why: str) -> None:
        """No more requests can be sent."""

    def send(self, index: int, payload: int) -> bool:
        """Starts a request, which may leave only at the next `flush`; false when there is no room for another."""
        if len(self._streams) >= self._most_streams:
            return False
        stream = self._next_stream
        self._next_stream = stream + 2
        if payload in self._streamed:
            self._streams[stream] = StreamedAnswer(index, payload, self._on_first)
            header_start, block = self._heads[1]
        else:
            self._streams[stream] = Stream(index, payload)
            header_start, block = self._heads[0]
        self._stream_of[index] = stream
        number = stream.to_bytes(4, "big")
        body = self._bodies[payload]
        size = len(body)
        uploads = self._uploads
        if size <= uploads.window and size <= uploads.at_once and not uploads.waiting:
            uploads.window -= size
            request = b"".join((header_start, number, block, size.to_bytes(3, "big"), b"\0\1", number, body))
            self._out.append(request)
            self._out_bytes += len(request)
        else:
            self._write(header_start + number + block)
            uploads.add(stream, body)
            uploads.send()
        self._heads = self._later_heads
        if self._next_stream > LAST_STREAM:
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
        self._uploads.waiting.pop(stream, None)
        self._fruitless = 0
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

    def pause_writing(self) -> None:
        self._uploads.pause(True)

    def resume_writing(self) -> None:
        self._uploads.pause(False)
        self._uploads.send()
        self.flush()


def head(block: bytes) -> Head:
    """The head of a HEADERS frame with this block."""
    return (len(block) << 8 | HEADERS).to_bytes(4, "big") + bytes([END_HEADERS]), block
