"""Generated frames of a server against the HTTP/2 transport, with grpc.aio as the oracle: both call the same requests
answered, in as many parts where they are streamed.

`FATHOM_FUZZ_SEED` chooses other frames; hypothesis prints the smallest script that fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence

import pytest
from exchange import ANSWER, HEADERS_OK, OVERLOADED, PART, WITHOUT_OUTPUTS, Answers, exchange
from grpc_transport import GrpcTransport
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from loadtests.generator.http2 import Http2Transport
from loadtests.generator.http2 import frames as h2
from loadtests.generator.parts import Parts
from loadtests.records.record import DEADLINE_EXCEEDED, OK

SEED = int(os.environ.get("FATHOM_FUZZ_SEED", "1"))
PAYLOADS = (0, 1, 1)
"""Of the requests of a script; the answer to 1 is streamed."""
STREAMS = (1, 3, 5)
HANGS_S = 0.5
"""So long grpc.aio is waited for, which hangs at some frames of a stream. Our transport itself has no deadline."""

_BREACH = "the server broke HTTP/2: "
STRICTER = (
    "the answer began without headers",
    "HTTP status missing",
    "the answer ended in the middle of a message",
    *(_BREACH + what for what in ("stream", "a frame of type", "PUSH_PROMISE", "trailers that do not end")),
)
"""How our message begins where grpc.aio overlooks what HTTP/2 or gRPC forbids. Nothing is the other way round.

What grpc.aio does not know (padded DATA, informational headers, a header table of 0) is left to `test_http2_peers`.
"""


def text(name: bytes, value: bytes) -> bytes:
    """A header field, literal and without indexing."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def trailers(status: bytes) -> bytes:
    return text(b"grpc-status", status)


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


own_streams = st.sampled_from(STREAMS)
any_stream = st.sampled_from((*STREAMS, *STREAMS, 0, 2, 7, (1 << 31) | 1))
header_blocks = st.sampled_from(
    (
        *[HEADERS_OK] * 6,
        text(b":status", b"503"),
        text(b"content-type", b"application/grpc"),
        b"\x20" + HEADERS_OK,
        b"\x88" + text(b"x", b"y" * 100),
        b"\xff\xff\xff",
        b"\xbf",
    )
)
trailer_blocks = st.sampled_from(
    (*[trailers(b"0")] * 6, trailers(b"13"), trailers(b"99"), trailers(b"abc"), text(b"x", b"y"), b"\xc0", b"\x88")
)
bodies = st.one_of(
    st.just(ANSWER),
    st.just(ANSWER),
    st.just(b"\0" + number(300) + bytes(300)),
    st.sampled_from(
        (
            ANSWER[:4],
            ANSWER[:-1],
            ANSWER + b"!",
            ANSWER * 2,
            b"\1" + ANSWER[1:],
            b"\x7a" + ANSWER[1:],
            b"\0" + number(0),
            b"\0" + number(1 << 31) + b"x",
            b"",
            PART,
            PART + WITHOUT_OUTPUTS,
            PART * 3,
            PART * 2 + PART[:-1],
            PART + OVERLOADED,
            OVERLOADED + PART,
            WITHOUT_OUTPUTS,
            PART + b"\0" + number(20_000) + bytes(20_000),
        )
    ),
    st.binary(max_size=20),
)


@st.composite
def answers(draw: st.DrawFn) -> list[bytes]:
    """The frames of one answer."""
    stream, body = draw(own_streams), draw(bodies)
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=2)))
    pieces = [body[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    frames = headers(draw, stream, draw(header_blocks), 0)
    frames += [h2.frame(h2.DATA, draw(st.sampled_from((0, 0, 0, 0, 0, 1))), stream, piece) for piece in pieces]
    frames += headers(draw, stream, draw(trailer_blocks), draw(st.sampled_from((1, 1, 1, 1, 0))))
    if draw(st.integers(0, 4)) == 0:
        del frames[draw(st.integers(0, len(frames) - 1))]
    return frames


def headers(draw: st.DrawFn, stream: int, block: bytes, flags: int) -> list[bytes]:
    """A header list in one frame, or with CONTINUATION."""
    if draw(st.integers(0, 5)):
        return [h2.frame(h2.HEADERS, flags | h2.END_HEADERS, stream, block)]
    middle = draw(st.integers(0, len(block)))
    return [
        h2.frame(h2.HEADERS, flags, stream, block[:middle]),
        h2.frame(h2.CONTINUATION, h2.END_HEADERS, stream, block[middle:]),
    ]


good_answers = st.builds(
    lambda stream, cut: [
        h2.frame(h2.HEADERS, h2.END_HEADERS, stream, HEADERS_OK),
        h2.frame(h2.DATA, 0, stream, ANSWER[:cut]),
        h2.frame(h2.DATA, 0, stream, ANSWER[cut:]),
        h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, trailers(b"0")),
    ],
    own_streams,
    st.integers(0, len(ANSWER)),
)
harmless = st.one_of(
    st.builds(h2.frame, st.just(h2.PING), st.sampled_from((0, 1)), st.just(0), st.binary(min_size=8, max_size=8)),
    st.builds(
        lambda key, value: h2.settings_frame({key: value}),
        st.sampled_from((1, 3, 4, 6, 99)),
        st.sampled_from((0, 1, 100, 4096, 65_535)),
    ),
    st.builds(lambda s, by: h2.frame(h2.WINDOW_UPDATE, 0, s, number(by)), own_streams, st.integers(1, 1000)),
    st.builds(h2.frame, st.integers(10, 255), st.integers(0, 255), any_stream, st.binary(max_size=10)),
    st.builds(lambda s: h2.frame(h2.PRIORITY_FRAME, 0, s, bytes(5)), own_streams),
)
endings = st.one_of(
    st.builds(lambda s, code: h2.frame(h2.RST_STREAM, 0, s, number(code)), own_streams, st.integers(0, 12)),
    st.builds(
        lambda last, code: h2.frame(h2.GOAWAY, 0, 0, number(last) + number(code)),
        st.sampled_from((0, 1, 3, 5, (1 << 31) - 1)),
        st.integers(0, 12),
    ),
)
# grpcio 1.85 aborts its process at a GOAWAY whose code is 13 or higher, so that none has such a code here.
broken = st.one_of(
    st.builds(
        h2.frame,
        st.sampled_from([kind for kind in range(10) if kind not in (h2.DATA, h2.GOAWAY)]),
        st.integers(0, 255),
        any_stream,
        st.binary(max_size=30),
    ),
    st.builds(h2.frame, st.just(h2.DATA), st.sampled_from((0, 1, 0xF7)), any_stream, st.binary(max_size=30)),
    st.builds(h2.frame, st.just(h2.GOAWAY), st.integers(0, 255), any_stream, st.binary(max_size=4)),
)
segments = st.one_of(good_answers, good_answers, good_answers, answers(), answers(), st.lists(harmless, max_size=8))
scripts = st.lists(
    st.one_of(*[segments] * 6, st.lists(st.one_of(endings, broken), max_size=1)), min_size=2, max_size=12
).map(lambda parts: [frame for part in parts for frame in part])


async def played(kind: type, frames: Sequence[bytes]) -> tuple[Answers, dict[int, Parts]]:
    """What becomes of requests to a server that takes one connection, sends these frames at once, and ends."""

    async def follow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.close()
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await reader.readexactly(len(h2.PREFACE))
                writer.write(h2.settings_frame({}))
                ended = 0
                while ended < len(PAYLOADS):
                    word, flags, _ = h2.FRAME.unpack(await reader.readexactly(9))
                    await reader.readexactly(word >> 8)
                    ended += word & 0xFF == h2.DATA and flags & h2.END_STREAM
                writer.write(b"".join(frames))
                writer.write_eof()
                while await reader.read(1 << 16):
                    pass
        finally:
            writer.transport.abort()  # also when the loop ends first, and cancels this

    server = await asyncio.start_server(follow, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    parts: dict[int, Parts] = {}
    answers = await exchange(kind, address, [b"x", b"x"], PAYLOADS, timeout_s=HANGS_S, streamed=[1], parts=parts)
    return answers, parts


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield runner


def compare(loop: asyncio.Runner, number: int, examples: int) -> tuple[int, int]:
    """Plays so many scripts of a seed; returns how many frames they had, and how many requests were answered."""
    played_frames = answered = 0

    @seed(number)
    @settings(max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(scripts)
    def play(frames: list[bytes]) -> None:
        nonlocal played_frames, answered
        ours, our_parts = loop.run(played(Http2Transport, frames))
        theirs, their_parts = loop.run(played(GrpcTransport, frames))
        played_frames += len(frames)
        for request, (status, message) in ours.items():
            answered += status == OK
            if theirs[request][0] == DEADLINE_EXCEEDED:
                continue  # grpc.aio hung, or this machine was busy: it says nothing of the frames
            excused = status != OK and message.startswith(STRICTER)
            assert (status == OK) == (theirs[request][0] == OK) or excused, (frames, ours, theirs)
            if status == theirs[request][0] == OK and PAYLOADS[request]:
                assert our_parts[request].count == their_parts[request].count, frames

    play()
    return played_frames, answered


def test_frames_of_a_broken_server_end_as_with_grpc(loop):
    frames, answered = compare(loop, SEED, 80)
    assert frames > 800
    assert answered > 20


@pytest.mark.slow
def test_a_hundred_thousand_frames_end_as_with_grpc(loop):
    frames, number = 0, SEED
    while frames < 100_000:
        frames += compare(loop, number, 1000)[0]
        number += 1
    print(f"\n{frames} frames of the seeds {SEED} to {number - 1}")
