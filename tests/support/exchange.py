"""Requests sent with a transport of the load generator, and peers that follow a script."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from loadtests.generator.http2 import Http2Transport
from loadtests.generator.http2 import frames as h2
from loadtests.generator.parts import Parts

Result = TypeVar("Result")
Answers = dict[int, tuple[int, str]]
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STATUS_OK = b"\x88" + b"\x00\x0bgrpc-status\x010"  # :status 200, and a literal without indexing
HEADERS_OK = b"\x88" + b"\x00\x0ccontent-type\x10application/grpc"
ANSWER = b"\0\0\0\0\5hello"


def message(content: bytes, flag: int = 0) -> bytes:
    """With gRPC's prefix."""
    return bytes([flag]) + len(content).to_bytes(4, "big") + content


PART = message(b"\x12\x09\x0a\x01m*\x04\x0a\x02no")
"""A ModelStreamInferResponse with a model's name and an output."""
WITHOUT_OUTPUTS = message(b"\x12\x03\x0a\x01m")
OVERLOADED = message(b"\x0a\x1bExceeds maximum queue size!\x12\x00")
"""An error."""


async def exchange(
    kind: Any,
    address: str,
    payloads: Sequence[bytes],
    sends: Sequence[int],
    *,
    channels: int = 1,
    timeout_s: float = 5.0,
    wait_s: float = 10.0,
    transports: list[Any] | None = None,
    parts: dict[int, Parts] | None = None,
    **options: Any,
) -> Answers:
    """Sends the numbered payloads and returns {index: (status, message)}; `transports` receives what sent them, and
    `parts` those of each streamed answer."""
    answers: Answers = {}
    begun = {} if parts is None else parts
    done = asyncio.Event()

    def on_done(index: int, when_s: float, status: int, message: str) -> None:
        assert index not in answers
        answers[index] = status, message
        if len(answers) == len(sends):
            done.set()

    transport = kind(address, payloads, on_done, begun.__setitem__, channels=channels, timeout_s=timeout_s, **options)
    if transports is not None:
        transports.append(transport)
    await transport.open()
    try:
        for index, payload in enumerate(sends):
            transport.send(index, payload)
        transport.flush()
        await asyncio.wait_for(done.wait(), wait_s)
    finally:
        await transport.close()
    return answers


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    """Kind, flags, stream and content."""
    head = await reader.readexactly(9)
    word, flags, stream = h2.FRAME.unpack(head)
    return word & 0xFF, flags, stream, await reader.readexactly(word >> 8)


async def read_request(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next stream that ended, and its body."""
    body = b""
    while True:
        kind, flags, stream, content = await read_frame(reader)
        if kind == h2.DATA:
            body += content
            if flags & h2.END_STREAM:
                return stream, body


def answer(stream: int) -> bytes:
    """A good one."""
    return (
        h2.frame(h2.HEADERS, h2.END_HEADERS, stream, HEADERS_OK)
        + h2.frame(h2.DATA, 0, stream, ANSWER)
        + h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, STATUS_OK[1:])
    )


def goaway(last: int, code: int = 0, detail: bytes = b"") -> bytes:
    """The end of a connection whose streams up to `last` are finished."""
    return h2.frame(h2.GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + detail)


async def with_peer(
    script: Script | Sequence[Script],
    then: Callable[[str], Awaitable[Result]],
    settings: dict[int, int] | None = None,
) -> Result:
    """What `then` makes of the address of a peer that follows a script; of several, each connection takes the next."""
    scripts = list(script) if isinstance(script, Sequence) else [script]
    writers: list[asyncio.StreamWriter] = []
    followed: list[asyncio.Task[None]] = []

    async def follow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(len(h2.PREFACE))
            writer.write(h2.settings_frame(settings or {}))
            await (scripts.pop(0) if len(scripts) > 1 else scripts[0])(reader, writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        followed.append(asyncio.ensure_future(follow(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        return await then(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        for _ in range(5):  # asyncio takes some turns to accept the last connection, and loses it if closed in them
            await asyncio.sleep(0)
        server.close()
        for task in followed:
            task.cancel()
        await asyncio.gather(*followed, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()  # close() would wait until all that is written was read
        await asyncio.sleep(0)  # in which the transports close


async def against(
    script: Script | Sequence[Script],
    payloads: Sequence[bytes],
    sends: Sequence[int],
    settings: dict[int, int] | None = None,
    *,
    kind: Any = Http2Transport,
    **options: Any,
) -> Answers:
    """What `exchange` returns with a peer that follows a script."""

    def then(address: str) -> Awaitable[Answers]:
        return exchange(kind, address, payloads, sends, timeout_s=3, wait_s=6, **options)

    return await with_peer(script, then, settings)
