"""One request whose answer comes in parts: any number of gRPC messages, as Triton answers for decoupled models."""

from __future__ import annotations

from loadtests.generator.http2.stream import GRPC_INTERNAL, PREFIX, PREFIX_BYTES, Stream
from loadtests.generator.parts import Parts
from loadtests.generator.stream_message import error_of, failure_of, read_part
from loadtests.generator.transport import OnFirst
from loadtests.records.record import EMPTY_RESPONSE, OK

_HEAD_BYTES = 4096
"""Of a message that comes in pieces, so much is kept."""


class StreamedAnswer(Stream):
    """`size` and `left` stay 0, so that all DATA comes to `receive`."""

    size = 0
    _missing = 0
    """Bytes that are due of an unfinished message."""
    _head = b""
    _is_final = True
    """Whether the last message that says so was the model's final response; some servers never say."""

    def __init__(self, index: int, payload: int, on_first: OnFirst) -> None:
        super().__init__(index, payload)
        self._parts = Parts()
        self._on_first = on_first

    def receive(self, body: bytes, now_s: float) -> bool:
        if not self.has_headers:
            self._fail("the answer began without headers")
        before, position = self._parts.count, 0
        if self._missing:
            position = min(self._missing, len(body))
            self._head += body[: min(position, _HEAD_BYTES - len(self._head))]
            self._missing -= position
            if self._missing:
                return position > 0
            self._read(self._head, now_s)
        elif self._prefix:
            body, self._prefix = self._prefix + body, b""
        size = len(body)
        while size - position >= PREFIX_BYTES and self.failure is None:
            compressed, length = PREFIX.unpack_from(body, position)
            if compressed:
                self._fail(f"the answer has the flag {compressed}, though the request allows no compression")
            start = position + PREFIX_BYTES
            position = start + length
            if position > size:
                self._missing, self._head = position - size, body[start : start + _HEAD_BYTES]
                return True
            self._read(body[start:position], now_s)
        self._prefix = b"" if self.failure else body[position:]
        return self._parts.count > before

    def _read(self, message: bytes, now_s: float) -> None:
        if (words := error_of(message)) is not None:
            self.failure = self.failure or failure_of(words)
        elif self.failure is None:
            has_outputs, final = read_part(message)
            if final is not None:
                self._is_final = final
            if has_outputs:
                self._parts.add(now_s)
                if self._parts.count == 1:
                    self._on_first(self.index, self._parts)

    def defect(self) -> tuple[int, str]:
        if self.failure:
            return self.failure
        if self._missing or self._prefix:
            return GRPC_INTERNAL, "the answer ended in the middle of a message"
        if not self._is_final:
            return GRPC_INTERNAL, "the answer ended without the model's final response"
        return (OK, "") if self._parts.count else (EMPTY_RESPONSE, "the answer has no part")
