"""The HTTP/2 transport against the official gRPC server, and against scripted peers that do what it rarely does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_transport import GrpcTransport

from loadtests.generator import http2_frames as h2
from loadtests.generator.http2 import Http2Transport
from loadtests.generator.transport import METHOD
from loadtests.records.record import EMPTY_RESPONSE, OK, UNAVAILABLE

TRANSPORTS = [Http2Transport, GrpcTransport]
ECHO = b"echo "


@pytest.fixture(scope="module")
def echo_server():
    """Answers `echo ...` with itself, `empty` with nothing, `fail ...` with an error, `sleep` after half a second."""

    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request.startswith(b"fail "):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, request[5:].decode())
        if request == b"sleep":
            time.sleep(0.5)
        return b"" if request == b"empty" else request

    server = grpc.server(
        ThreadPoolExecutor(4),
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    method = grpc.unary_unary_rpc_method_handler(handle)
    service, name = METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {name: method})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


async def exchange(kind, address, payloads, sends, *, channels=1, timeout_s=5.0, wait_s=10.0):
    """Sends the numbered payloads and returns {index: (status, message)}."""
    answers: dict[int, tuple[int, str]] = {}
    done = asyncio.Event()

    def on_done(index: int, when_s: float, status: int, message: str) -> None:
        answers[index] = status, message
        if len(answers) == len(sends):
            done.set()

    transport = kind(address, payloads, on_done, channels=channels, timeout_s=timeout_s)
    await transport.open()
    try:
        for index, payload in enumerate(sends):
            transport.send(index, payload)
        transport.flush()
        await asyncio.wait_for(done.wait(), wait_s)
    finally:
        await transport.close()
    return answers


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_answers_errors_and_empty_bodies(echo_server, kind):
    payloads = [ECHO, b"empty", "fail größer als 100 % \u2713".encode()]
    answers = asyncio.run(exchange(kind, echo_server, payloads, [0, 1, 2, 0]))
    assert answers[0] == answers[3] == (OK, "")
    assert answers[1][0] == EMPTY_RESPONSE
    assert answers[2] == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "größer als 100 % \u2713")


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.parametrize("size", [0, 16_378, 16_379, 16_380, 65_530, 3_000_000])
def test_bodies_of_any_size_pass_flow_control_both_ways(echo_server, kind, size):
    payloads = [ECHO + bytes(size)]
    answers = asyncio.run(exchange(kind, echo_server, payloads, [0] * 6, channels=2))
    assert set(answers.values()) == {(OK, "")}


def test_many_requests_on_several_channels(echo_server):
    answers = asyncio.run(exchange(Http2Transport, echo_server, [ECHO, ECHO * 99], [0, 1] * 400, channels=3))
    assert set(answers.values()) == {(OK, "")}


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_the_server_is_told_the_deadline(echo_server, kind):
    answers = asyncio.run(exchange(kind, echo_server, [b"sleep"], [0], timeout_s=0.2))
    assert answers[0][0] in (grpc.StatusCode.DEADLINE_EXCEEDED.value[0], grpc.StatusCode.CANCELLED.value[0])


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_nobody_listens(kind):
    with pytest.raises(OSError):
        asyncio.run(exchange(kind, "127.0.0.1:9", [ECHO], [0], timeout_s=0.2))


def test_cancelled_requests_are_not_reported(echo_server):
    async def run() -> list[int]:
        seen: list[int] = []
        transport = Http2Transport(
            echo_server, [b"sleep", ECHO], lambda index, *_: seen.append(index), channels=1, timeout_s=5
        )
        await transport.open()
        transport.send(0, 0)
        transport.flush()
        await asyncio.sleep(0.05)
        transport.cancel(0)
        transport.send(1, 1)
        transport.flush()
        await asyncio.sleep(0.7)
        await transport.close()
        return seen

    assert asyncio.run(run()) == [1]


# -- scripted peers --------------------------------------------------------------------------------------------------

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STATUS_OK = b"\x88" + b"\x00\x0bgrpc-status\x010"  # :status 200, and a literal without indexing
ANSWER = b"\0\0\0\0\5hello"


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
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


async def against(script: Script, payloads, sends, settings=None):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(h2.PREFACE))
        writer.write(h2.settings_frame(settings or {}))
        try:
            await script(reader, writer)
            await asyncio.sleep(5)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await exchange(Http2Transport, f"127.0.0.1:{port}", payloads, sends, timeout_s=3, wait_s=3)


def answer(stream: int) -> bytes:
    return (
        h2.frame(h2.HEADERS, h2.END_HEADERS, stream, b"\x88")
        + h2.frame(h2.DATA, 0, stream, ANSWER)
        + h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, STATUS_OK)
    )


def test_tiny_windows_and_their_growth():
    seen = []

    async def script(reader, writer):
        received, stream = b"", 1
        while True:
            kind, flags, stream, content = await read_frame(reader)
            if kind != h2.DATA:
                continue
            assert len(content) <= 100
            received += content
            if flags & h2.END_STREAM:
                break
            more = len(content).to_bytes(4, "big")
            writer.write(h2.frame(h2.WINDOW_UPDATE, 0, stream, more) + h2.frame(h2.WINDOW_UPDATE, 0, 0, more))
        seen.append(received)
        writer.write(answer(stream))

    payload = bytes(range(256)) * 40
    answers = asyncio.run(against(script, [payload], [0], {h2.INITIAL_WINDOW_SIZE: 100}))
    assert answers[0] == (OK, "")
    assert seen[0] == b"\0" + len(payload).to_bytes(4, "big") + payload


def test_a_window_that_shrinks_in_the_middle():
    async def script(reader, writer):
        writer.write(h2.settings_frame({h2.INITIAL_WINDOW_SIZE: 200_000}))
        stream, body = 1, b""
        writer.write(h2.frame(h2.WINDOW_UPDATE, 0, 0, (1_000_000).to_bytes(4, "big")))
        stream, body = await read_request(reader)
        assert len(body) == 150_005
        writer.write(answer(stream))

    assert asyncio.run(against(script, [bytes(150_000)], [0], {h2.INITIAL_WINDOW_SIZE: 10}))[0] == (OK, "")


def test_padding_priority_continuation_and_frames_in_pieces():
    async def script(reader, writer):
        stream, _ = await read_request(reader)
        padded = b"\3" + b"\0\0\0\0\x10" + b"\x88" + b"\0\0\0"
        bytes_out = h2.frame(h2.HEADERS, h2.END_HEADERS | h2.PADDED | h2.PRIORITY, stream, padded)
        bytes_out += h2.frame(h2.DATA, h2.PADDED, stream, b"\2" + ANSWER + b"\0\0")
        bytes_out += h2.frame(h2.HEADERS, h2.END_STREAM, stream, STATUS_OK[:4])
        bytes_out += h2.frame(h2.CONTINUATION, h2.END_HEADERS, stream, STATUS_OK[4:])
        for at in range(len(bytes_out)):
            writer.write(bytes_out[at : at + 1])
            await writer.drain()

    assert asyncio.run(against(script, [b"x"], [0]))[0] == (OK, "")


def test_a_body_in_small_pieces_is_a_body():
    async def script(reader, writer):
        stream, _ = await read_request(reader)
        writer.write(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, b"\x88"))
        for piece in (ANSWER[:2], ANSWER[2:5], ANSWER[5:8], ANSWER[8:]):
            writer.write(h2.frame(h2.DATA, 0, stream, piece))
        writer.write(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, STATUS_OK))

    assert asyncio.run(against(script, [b"x"], [0]))[0] == (OK, "")


def test_pings_are_answered():
    pongs = []

    async def script(reader, writer):
        stream, _ = await read_request(reader)
        writer.write(h2.frame(h2.PING, 0, 0, b"12345678"))
        while True:
            kind, flags, _, content = await read_frame(reader)
            if kind == h2.PING:
                pongs.append((flags, content))
                writer.write(answer(stream))
                return

    assert asyncio.run(against(script, [b"x"], [0]))[0] == (OK, "")
    assert pongs == [(h2.ACK, b"12345678")]


@pytest.mark.parametrize(
    ("sent", "status", "says"),
    [
        (lambda s: h2.frame(h2.RST_STREAM, 0, s, (7).to_bytes(4, "big")), UNAVAILABLE, ""),
        (lambda s: h2.frame(h2.RST_STREAM, 0, s, (8).to_bytes(4, "big")), 1, ""),
        (lambda s: h2.frame(h2.GOAWAY, 0, 0, bytes(8) + b"too_many_pings"), UNAVAILABLE, "too_many_pings"),
        (lambda s: h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, s, b"\x8d"), 2, "404"),
        (lambda s: h2.frame(h2.DATA, h2.END_STREAM, s, ANSWER), 13, ""),
    ],
    ids=["refused", "cancelled", "goaway", "not grpc", "no trailers"],
)
def test_ways_of_not_answering(sent, status, says):
    async def script(reader, writer):
        stream, _ = await read_request(reader)
        writer.write(sent(stream))

    found, message = asyncio.run(against(script, [b"x"], [0]))[0]
    assert found == status
    assert says in message


def test_a_closed_connection_fails_what_is_open():
    async def script(reader, writer):
        await read_request(reader)
        writer.close()

    answers = asyncio.run(against(script, [b"x"], [0, 0]))
    assert {status for status, _ in answers.values()} == {UNAVAILABLE}


@pytest.mark.parametrize("table_bytes", [0, 4096])
def test_later_header_blocks_mean_the_same_as_the_first(table_bytes):
    from hpack import Decoder

    first, later = h2.RequestHeaders("host:1", METHOD, 2.5).blocks(table_bytes)
    decoder = Decoder()
    decoder.max_allowed_table_size = table_bytes
    lists = [decoder.decode(block) for block in (first, later, later, later)]
    assert all(found == lists[0] for found in lists)
    assert dict(lists[0])[":path"] == METHOD
    assert dict(lists[0])["grpc-timeout"] == "2500m"
    assert (len(later) < 20) == (table_bytes > 0)
