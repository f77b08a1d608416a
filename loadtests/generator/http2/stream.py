"""One request on an HTTP/2 connection, and how far its answer has come: headers, one gRPC message, trailers."""

from __future__ import annotations

import struct

from loadtests.records.record import EMPTY_RESPONSE

PREFIX, PREFIX_BYTES = struct.Struct(">BI"), 5
"""gRPC puts a flag and the length in front of every message."""
NOTHING, IN_PREFIX = -1, -2
GRPC_INTERNAL = 13


class Stream:
    """`size` is the length of the answer's message, and `left` the bytes of it that are due.

    Before, `size` is NOTHING, or IN_PREFIX when the prefix has come in part. `failure` is the status and message of an
    answer that gRPC does not allow, while its connection is in order.
    """

    has_headers = False  # defaults of the class cost a request nothing
    size = NOTHING
    left = 0
    failure: tuple[int, str] | None = None
    _prefix = b""

    def __init__(self, index: int, payload: int) -> None:
        self.index = index
        self.payload = payload

    def receive(self, body: bytes, now_s: float) -> bool:
        """Counts bytes of the answer, however they are cut; returns whether they bring its end nearer."""
        useful = bool(body) and self.failure is None
        if not self.has_headers:
            self._fail("the answer began without headers")
        if self.size < 0:
            missing = PREFIX_BYTES - len(self._prefix)
            self._prefix += body[:missing]
            if len(self._prefix) < PREFIX_BYTES:
                self.size = IN_PREFIX if self._prefix else NOTHING
                return useful
            compressed, self.size = PREFIX.unpack(self._prefix)
            if compressed:
                self._fail(f"the answer has the flag {compressed}, though the request allows no compression")
            self.left = self.size
            body = body[missing:]
        if len(body) > self.left:
            self._fail(f"the answer is longer than the {self.size} bytes that it announced")
        self.left = max(self.left - len(body), 0)
        return useful

    def _fail(self, why: str) -> None:
        self.failure = self.failure or (GRPC_INTERNAL, why)

    def defect(self) -> tuple[int, str]:
        """What the request ends with when the server said OK, and the answer does not count."""
        if self.failure:
            return self.failure
        if self.left or self.size == IN_PREFIX:
            return GRPC_INTERNAL, "the answer ended in the middle of its message"
        return EMPTY_RESPONSE, "the answer has no body"
