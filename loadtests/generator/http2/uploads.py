"""What of the request bodies an HTTP/2 server takes now, and those that wait until it takes more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadtests.generator.http2.frames import DATA, END_STREAM, FRAME, LARGEST_WINDOW, SMALLEST_FRAME, ProtocolError

DEFAULT_WINDOW = 65_535


@dataclass
class _Upload:
    body: memoryview
    granted: int = 0
    """Its stream's window, beyond what every stream begins with."""


class Uploads:
    """Bodies that wait, oldest first; windows and sizes are in bytes."""

    def __init__(self, write: Callable[[bytes | memoryview], None]) -> None:
        self._write = write
        self._initial_window = DEFAULT_WINDOW
        self._max_frame = SMALLEST_FRAME
        self._is_paused = False
        self.window = DEFAULT_WINDOW
        """Of the connection."""
        self.at_once = 0
        """The largest body that a new stream takes in one frame; below zero while nothing can be written."""
        self.waiting: dict[int, _Upload] = {}
        """By stream."""
        self._measure()

    def allow(self, *, initial_window: int | None = None, max_frame: int | None = None) -> None:
        """What SETTINGS changed: it counts for streams that are open, too."""
        self._initial_window = self._initial_window if initial_window is None else initial_window
        self._max_frame = self._max_frame if max_frame is None else max_frame
        self._measure()

    def pause(self, is_paused: bool) -> None:
        """The server reads so slowly that nothing more is to be written, or reads again."""
        self._is_paused = is_paused
        self._measure()

    def _measure(self) -> None:
        self.at_once = -1 if self._is_paused else min(self._initial_window, self._max_frame)

    def add(self, stream: int, body: bytes) -> None:
        self.waiting[stream] = _Upload(memoryview(body))

    def widen(self, stream: int, increment: int) -> bool:
        """The window of a stream, or of the connection (0); false when nothing waits for that. Raises ProtocolError."""
        if increment == 0:
            raise ProtocolError("a window update of 0 bytes")
        if stream == 0:
            self.window += increment
            if self.window > LARGEST_WINDOW:
                raise ProtocolError(f"a window of {self.window} bytes")
            return bool(self.waiting)
        if upload := self.waiting.get(stream):
            upload.granted += increment
        return upload is not None

    def send(self) -> None:
        """Send as much as the windows allow."""
        for stream, upload in list(self.waiting.items()):
            while not self._is_paused:
                size = min(len(upload.body), self.window, self._initial_window + upload.granted, self._max_frame)
                if size <= 0:
                    break
                last = size == len(upload.body)
                self._write(FRAME.pack(size << 8 | DATA, END_STREAM if last else 0, stream))
                self._write(upload.body[:size])
                self.window -= size
                upload.granted -= size
                upload.body = upload.body[size:]
                if last:
                    del self.waiting[stream]
                    break
            if self.window <= 0:
                break
