"""Request bodies of one HTTP/2 connection that did not fit the flow-control windows at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadtests.generator.http2_frames import DATA, END_STREAM, FRAME


@dataclass
class _Upload:
    body: memoryview
    window: int


class Uploads:
    """Bodies that wait, oldest first; windows and sizes are in bytes."""

    def __init__(self, write: Callable[[bytes | memoryview], None]) -> None:
        self._write = write
        self.waiting: dict[int, _Upload] = {}
        """By stream."""

    def add(self, stream: int, body: bytes, window: int) -> None:
        """`window` is the stream's own."""
        self.waiting[stream] = _Upload(memoryview(body), window)

    def widen(self, increment: int, stream: int | None = None) -> None:
        """The window of one stream, or those of all; `increment` may be below zero."""
        chosen = self.waiting.values() if stream is None else filter(None, [self.waiting.get(stream)])
        for upload in chosen:
            upload.window += increment

    def send(self, window: int, max_frame: int) -> int:
        """As much as the windows allow; returns what is left of the connection's `window`."""
        for stream, upload in list(self.waiting.items()):
            while window > 0 and upload.window > 0:
                size = min(len(upload.body), window, upload.window, max_frame)
                last = size == len(upload.body)
                self._write(FRAME.pack(size << 8 | DATA, END_STREAM if last else 0, stream))
                self._write(upload.body[:size])
                window -= size
                upload.window -= size
                upload.body = upload.body[size:]
                if last:
                    del self.waiting[stream]
                    break
            if window <= 0:
                break
        return window
