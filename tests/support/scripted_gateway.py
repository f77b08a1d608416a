"""An HTTP/2 peer that is ready, and answers each inference with the bytes that a test gives: what proxies do and gRPC
servers do not."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from hpack import Decoder, Encoder

from loadtests.generator.http2 import frames as h2

READY = b"\x00\x00\x00\x00\x02\x08\x01"  # ServerReadyResponse(ready=True) as one gRPC message
Script = Callable[[int], bytes | None]  # from the stream's number to what is sent; None closes the connection
CLOSE = b"close"  # at the end of what is sent: close the connection after it


def headers(stream: int, *pairs: tuple[str, str], end: bool = False) -> bytes:
    """A HEADERS frame; `end` for the last frame of its stream."""
    return h2.frame(h2.HEADERS, h2.END_HEADERS | (h2.END_STREAM if end else 0), stream, Encoder().encode(list(pairs)))


def data(stream: int, body: bytes, *, end: bool = False) -> bytes:
    """A DATA frame."""
    return h2.frame(h2.DATA, h2.END_STREAM if end else 0, stream, body)


def reset(stream: int, code: int) -> bytes:
    """An RST_STREAM frame with an error code of RFC 9113."""
    return h2.frame(h2.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last: int, code: int = 0) -> bytes:
    """A GOAWAY frame: streams above `last` were not and will not be processed."""
    return h2.frame(h2.GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big"))


class ScriptedGateway:
    """`with ScriptedGateway(script) as gateway: gateway.address, gateway.inferences, gateway.resets`."""

    def __init__(self, script: Script) -> None:
        self._script, self.inferences, self.resets = script, 0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> ScriptedGateway:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                threading.Thread(target=self._serve, args=[self._listener.accept()[0]], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        decoder = Decoder()
        with connection, connection.makefile("rb") as received, contextlib.suppress(OSError):
            received.read(len(h2.PREFACE))
            connection.sendall(h2.settings_frame({}))
            while head := received.read(h2.FRAME.size):
                word, flags, stream = h2.FRAME.unpack(head)
                body, kind = received.read(word >> 8), word & 0xFF
                if kind == h2.SETTINGS and not flags & h2.ACK:
                    connection.sendall(h2.frame(h2.SETTINGS, h2.ACK, 0))
                elif kind == h2.PING and not flags & h2.ACK:
                    connection.sendall(h2.frame(h2.PING, h2.ACK, 0, body))
                elif kind == h2.RST_STREAM:
                    self.resets += 1
                elif kind == h2.HEADERS:
                    path = dict(decoder.decode(body))[":path"]
                    if not path.endswith(("/ModelInfer", "/ModelStreamInfer")):
                        first = headers(stream, (":status", "200"), ("content-type", "application/grpc"))
                        last = headers(stream, ("grpc-status", "0"), end=True)
                        connection.sendall(first + data(stream, READY) + last)
                        continue
                    self.inferences += 1
                    answer = self._script(stream)
                    if answer is None:
                        return
                    connection.sendall(answer.removesuffix(CLOSE))
                    if answer.endswith(CLOSE):
                        return
