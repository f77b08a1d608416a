"""The HTTP/2 transport against scripted peers that do what a gRPC server rarely does, beside grpc.aio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from exchange import ANSWER, HEADERS_OK, STATUS_OK, against, answer, goaway, read_frame, read_request, with_peer
from grpc_transport import GrpcTransport
from hpack import Decoder

from loadtests import Slo
from loadtests.generator.http2 import Http2Transport
from loadtests.generator.http2 import frames as h2
from loadtests.generator.messages import EarlyStop, Limits
from loadtests.generator.open_loop import OpenLoopRun
from loadtests.judge.judge import evaluate
from loadtests.records.point import Probe
from loadtests.records.record import DEADLINE_EXCEEDED, EMPTY_RESPONSE, OK, UNAVAILABLE
from loadtests.workload.schedule import constant, payload_choices

TRANSPORTS = [Http2Transport, GrpcTransport]


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
        bytes_out += h2.frame(h2.HEADERS, h2.END_STREAM, stream, STATUS_OK[1:5])
        bytes_out += h2.frame(h2.CONTINUATION, h2.END_HEADERS, stream, STATUS_OK[5:])
        for at in range(len(bytes_out)):
            writer.write(bytes_out[at : at + 1])
            await writer.drain()

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


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (lambda s: h2.frame(h2.RST_STREAM, 0, s, (7).to_bytes(4, "big")), UNAVAILABLE),
        (lambda s: h2.frame(h2.RST_STREAM, 0, s, (8).to_bytes(4, "big")), 1),
        (lambda s: goaway(0), UNAVAILABLE),
        (lambda s: goaway(0, h2.ENHANCE_YOUR_CALM, b"too_many_pings"), UNAVAILABLE),
        (lambda s: h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, s, b"\x8d"), 12),
    ],
    ids=["refused", "cancelled", "goaway", "goaway with an error", "not grpc"],
)
def test_ways_of_not_answering(sent, status, kind):
    async def script(reader, writer):
        while True:
            stream, _ = await read_request(reader)
            writer.write(sent(stream))

    found, message = asyncio.run(against(script, [b"x"], [0], kind=kind))[0]
    assert found == status, message


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_a_closed_connection_fails_what_is_open(kind):
    async def script(reader, writer):
        await read_request(reader)
        await read_request(reader)
        writer.close()

    answers = asyncio.run(against(script, [b"x"], [0, 0], kind=kind))
    assert {status for status, _ in answers.values()} == {UNAVAILABLE}


async def answer_all(reader, writer):
    """A peer as it should be."""
    while True:
        stream, _ = await read_request(reader)
        writer.write(answer(stream))


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_what_the_server_never_looked_at_is_sent_again_once(kind):
    async def drain(reader, writer):
        for _ in range(3):
            await read_request(reader)
        writer.write(goaway((1 << 31) - 1) + goaway(1) + answer(1))

    answers = asyncio.run(against([drain, answer_all], [b"x"], [0, 0, 0], kind=kind))
    assert set(answers.values()) == {(OK, "")}


def test_a_request_that_no_server_looks_at_has_failed():
    seen = []

    async def drain(reader, writer):
        seen.append(await read_request(reader))
        writer.write(goaway(0))

    answers = asyncio.run(against(drain, [b"x"], [0]))
    assert answers[0][0] == UNAVAILABLE
    assert len(seen) == 2


def limited(limit: int):
    """A peer whose connections take so many requests at once, and which looks whether they do."""

    async def script(reader, writer):
        streams = [(await read_request(reader))[0] for _ in range(limit)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                while True:
                    assert (await read_frame(reader))[0] != h2.HEADERS
        writer.write(b"".join(map(answer, streams)))
        await answer_all(reader, writer)

    async def after_the_acknowledgement(reader, writer):
        while (await read_frame(reader))[:2] != (h2.SETTINGS, h2.ACK):
            pass
        await script(reader, writer)

    return after_the_acknowledgement


@pytest.mark.parametrize(("kind", "options"), [(Http2Transport, {"most_connections": 1}), (GrpcTransport, {})])
def test_requests_beyond_the_limit_of_streams_wait(kind, options):
    answers = asyncio.run(against(limited(2), [b"x"], [0] * 9, {h2.MAX_CONCURRENT_STREAMS: 2}, kind=kind, **options))
    assert set(answers.values()) == {(OK, "")}


def test_more_connections_are_opened_where_streams_are_limited():
    transports = []
    scripts = [limited(2), answer_all]
    settings = {h2.MAX_CONCURRENT_STREAMS: 2}
    answers = asyncio.run(against(scripts, [b"x"], [0] * 40, settings, transports=transports))
    assert set(answers.values()) == {(OK, "")}
    assert transports[0].connections > 2


def test_a_lost_connection_among_several_fails_its_requests_and_is_replaced():
    accepted = []

    async def scenario():
        async def serve(reader, writer):
            accepted.append(writer)
            doomed = len(accepted) == 1
            await reader.readexactly(len(h2.PREFACE))
            writer.write(h2.settings_frame({}))
            try:
                if doomed:
                    await read_request(reader)
                    await read_request(reader)
                    writer.transport.abort()
                await answer_all(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        statuses, messages = {}, {}

        def on_done(index, when_s, status, message):
            statuses[index], messages[index] = status, message

        async with server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            transport = Http2Transport(address, [b"x"], on_done, channels=2, timeout_s=3)
            await transport.open()
            for first in (0, 4):
                for index in range(first, first + 4):
                    transport.send(index, 0)
                transport.flush()
                while len(statuses) < first + 4 or len(accepted) < 3:
                    await asyncio.sleep(0.01)
                assert not transport.lost
            await transport.close()
        return statuses, messages

    statuses, messages = asyncio.run(asyncio.wait_for(scenario(), 10))
    failed = [index for index, status in statuses.items() if status == UNAVAILABLE]
    assert len(failed) == 2
    assert max(failed) < 4
    assert all("connection" in messages[index] for index in failed)
    assert [statuses[index] for index in range(4, 8)] == [OK] * 4


def message(length: int, content: bytes, flag: int = 0) -> bytes:
    """With gRPC's prefix."""
    return bytes([flag]) + length.to_bytes(4, "big") + content


def headed(block: bytes, body: bytes) -> Callable[[int], bytes]:
    """An answer with these first headers and this body, and the status OK."""
    return lambda s: (
        h2.frame(h2.HEADERS, h2.END_HEADERS, s, block)
        + h2.frame(h2.DATA, 0, s, body)
        + h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, s, STATUS_OK[1:])
    )


HTTP_503 = b"\x08\x03503"


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (headed(HEADERS_OK, message(1_000_000, b"abc")), 13),
        (headed(HEADERS_OK, message(3, b"abc", flag=1)), 13),
        (headed(HEADERS_OK, message(3, b"abc", flag=122)), 13),
        (headed(HEADERS_OK, message(3, b"abc")[:3]), 13),
        (headed(HEADERS_OK, message(0, b"")), EMPTY_RESPONSE),
        (headed(HTTP_503, message(3, b"abc")), UNAVAILABLE),
    ],
    ids=["too short", "compressed", "an unknown flag", "half a prefix", "empty", "HTTP 503"],
)
def test_an_answer_that_breaks_grpc_is_an_error_of_its_request(sent, status, kind):
    async def script(reader, writer):
        first, _ = await read_request(reader)
        second, _ = await read_request(reader)
        writer.write(sent(first) + answer(second))
        await reader.read()

    answers = asyncio.run(against(script, [b"x"], [0, 0], kind=kind))
    # grpc.aio gives None for an answer that it cannot read, and the status OK.
    assert answers[0][0] in ((status,) if kind is Http2Transport else (status, EMPTY_RESPONSE)), answers
    assert answers[1] == (OK, "")


@pytest.mark.parametrize("body", [message(3, b"abcd"), message(3, b"abc") * 2, message(1, b"a") + bytes(1 << 13)])
def test_bytes_behind_the_answer_are_an_error(body):
    async def script(reader, writer):
        first, _ = await read_request(reader)
        second, _ = await read_request(reader)
        writer.write(headed(HEADERS_OK, body)(first) + answer(second))

    answers = asyncio.run(against(script, [b"x"], [0, 0]))
    assert answers[0][0] == 13
    assert answers[1] == (OK, "")


def test_informational_headers_are_passed_over():
    async def script(reader, writer):
        stream, _ = await read_request(reader)
        writer.write(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, b"\x08\x03103") + answer(stream))

    assert asyncio.run(against(script, [b"x"], [0]))[0] == (OK, "")


@pytest.mark.parametrize("table_bytes", [0, 100])
def test_a_header_table_that_shrinks_in_the_middle(table_bytes):
    seen = []

    async def script(reader, writer):
        decoder = Decoder()
        kind, acknowledged = None, 0
        while len(seen) < 3:
            kind, flags, stream, content = await read_frame(reader)
            if kind == h2.HEADERS:
                seen.append(dict(decoder.decode(content)))
                writer.write(answer(stream))
                if len(seen) == 1:
                    writer.write(h2.settings_frame({h2.HEADER_TABLE_SIZE: table_bytes}))
            elif kind == h2.SETTINGS and flags & h2.ACK:
                acknowledged += 1
                if acknowledged == 2:
                    decoder.max_allowed_table_size = table_bytes

    async def run(address):
        done = asyncio.Queue()
        transport = Http2Transport(address, [b"x"], lambda *found: done.put_nowait(found), channels=1, timeout_s=3)
        await transport.open()
        found = []
        for index in range(3):
            transport.send(index, 0)
            transport.flush()
            found.append(await done.get())
            await asyncio.sleep(0.05)  # for SETTINGS
        await transport.close()
        return found

    found = asyncio.run(asyncio.wait_for(with_peer(script, run), 10))
    assert [status for _, _, status, _ in found] == [OK] * 3
    assert seen[0] == seen[1] == seen[2]


def ready_made(*frames: bytes) -> bytes:
    """Of one piece, some 256 kB of them."""
    piece = b"".join(frames)
    return piece * ((1 << 18) // len(piece))


ENDLESS = {
    "ping": lambda s: ready_made(h2.frame(h2.PING, 0, 0, bytes(8))),
    "settings": lambda s: ready_made(h2.settings_frame({})),
    "window updates": lambda s: ready_made(h2.frame(h2.WINDOW_UPDATE, 0, s, b"\0\0\0\1")),
    "data of no bytes": lambda s: ready_made(h2.frame(h2.DATA, 0, s)),
    "unknown frames": lambda s: ready_made(h2.frame(0xBB, 0, s)),
    "informational headers": lambda s: ready_made(h2.frame(h2.HEADERS, h2.END_HEADERS, s, b"\x08\x03103")),
    "a header list": lambda s: h2.frame(h2.HEADERS, 0, s) + ready_made(h2.frame(h2.CONTINUATION, 0, s, b"\x88")),
    "an empty header list": lambda s: h2.frame(h2.HEADERS, 0, s) + ready_made(h2.frame(h2.CONTINUATION, 0, s)),
    "data of streams never opened": lambda s: ready_made(h2.frame(h2.DATA, 0, s + 2, b"123456")),
}


@pytest.mark.parametrize("which", ENDLESS)
def test_what_a_server_sends_without_an_end_ends_its_connection(which):
    async def script(reader, writer):
        stream, _ = await read_request(reader)
        flood = ENDLESS[which](stream)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(flood)
                await writer.drain()

    answers = asyncio.run(against(script, [b"x"], [0]))
    assert answers[0][0] == UNAVAILABLE
    assert "HTTP/2" in answers[0][1]


@pytest.mark.parametrize("pause_s", [0.0, 0.01], ids=["endless bytes", "a slow drip"])
def test_deadlines_fire_whatever_arrives(pause_s):
    async def script(reader, writer):
        stream, _ = await read_request(reader)
        writer.write(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, HEADERS_OK))
        writer.write(h2.frame(h2.DATA, 0, stream, message((1 << 32) - 1, b"")))
        piece = h2.frame(h2.DATA, 0, stream, bytes(1 if pause_s else h2.SMALLEST_FRAME))
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    async def run(address):
        def make_transport(*reports):
            return Http2Transport(address, [b"x"], *reports, channels=1, timeout_s=0.2)

        run = OpenLoopRun(
            constant(100, count=5),
            payload_choices(5, 1, seed=0),
            Limits(100),
            timeout_s=0.2,
            make_transport=make_transport,
        )
        await run.transport.open()
        return await run.run()

    record, _ = asyncio.run(asyncio.wait_for(with_peer(script, run), 10))
    assert set(record.status.tolist()) == {DEADLINE_EXCEEDED}


def test_a_server_that_ends_every_connection_at_once_is_not_connected_to_in_a_row():
    made = []

    async def script(reader, writer):
        made.append(writer)
        while (await read_frame(reader))[:2] != (h2.SETTINGS, h2.ACK):
            pass
        writer.write(h2.frame(h2.PING, 0, 0, b""))
        await reader.read()

    async def run(address):
        transport = Http2Transport(address, [b"x"], lambda *_: None, channels=1, timeout_s=3)
        await transport.open()
        await asyncio.sleep(0.5)
        await transport.close()

    asyncio.run(asyncio.wait_for(with_peer(script, run), 10))
    assert 2 <= len(made) <= 12


def test_a_server_that_does_not_read_is_not_written_to_without_end():
    """Its window is the largest there is, so that only our own bound holds back."""

    async def script(reader, writer):
        writer.write(h2.frame(h2.WINDOW_UPDATE, 0, 0, (h2.LARGEST_WINDOW - 65_535).to_bytes(4, "big")))
        await asyncio.sleep(60)

    async def run(address):
        transport = Http2Transport(address, [bytes(1 << 20)], lambda *_: None, channels=1, timeout_s=3)
        await transport.open()
        for index in range(100):
            transport.send(index, 0)
            transport.flush()
            await asyncio.sleep(0)
        unwritten = sum(one._transport.get_write_buffer_size() for one in transport._usable)
        await transport.close()
        return unwritten

    settings = {h2.INITIAL_WINDOW_SIZE: h2.LARGEST_WINDOW, h2.MAX_FRAME_SIZE: h2.LARGEST_FRAME}
    assert asyncio.run(asyncio.wait_for(with_peer(script, run, settings), 10)) < 1 << 25


@pytest.mark.parametrize(
    ("code", "ours"),
    [(h2.NO_ERROR, False), (h2.ENHANCE_YOUR_CALM, False), (2, False), *((c, True) for c in h2.OUR_FAULTS)],
)
def test_what_the_server_calls_a_breach_of_http2_is_our_fault(code, ours):
    transports = []

    async def script(reader, writer):
        stream, _ = await read_request(reader)
        writer.write(goaway(stream, code))
        writer.close()

    answers = asyncio.run(against(script, [b"x"], [0], transports=transports))
    assert answers[0][0] == UNAVAILABLE
    assert bool(transports[0].broken) == ours


def test_a_run_that_broke_http2_itself_is_invalid_and_no_failure_of_the_server():
    schedule = constant(100, count=50)

    async def script(reader, writer):
        stream, _ = await read_request(reader)
        writer.write(goaway(stream, h2.COMPRESSION_ERROR))
        writer.close()

    async def run(address):
        def make_transport(*reports):
            return Http2Transport(address, [b"x"], *reports, channels=1, timeout_s=3)

        limits = Limits(max_outstanding=1000, early_stop=(EarlyStop(1000.0, 1),))
        run = OpenLoopRun(schedule, payload_choices(50, 1, seed=0), limits, timeout_s=3, make_transport=make_transport)
        await run.transport.open()
        return await run.run()

    record, outcome = asyncio.run(with_peer(script, run))
    assert "COMPRESSION_ERROR" in outcome.lost
    point = evaluate(Probe(0, "double", 100.0, 50, 5), record, outcome, [Slo.parse("p90=1s")])
    assert point.verdict == "invalid"
    assert outcome.lost in point.reason


@pytest.mark.parametrize(
    "sent",
    [
        lambda s: h2.frame(h2.SETTINGS, 0, 0, bytes(5)),
        lambda s: h2.settings_frame({h2.MAX_FRAME_SIZE: 0}),
        lambda s: h2.settings_frame({h2.INITIAL_WINDOW_SIZE: 1 << 31}),
        lambda s: h2.frame(h2.RST_STREAM, 0, s, b"\0"),
        lambda s: h2.frame(h2.GOAWAY, 0, 0, b""),
        lambda s: h2.frame(h2.WINDOW_UPDATE, 0, 0, b""),
        lambda s: h2.frame(h2.DATA, h2.PADDED, s, b"\x05ab"),
        lambda s: h2.frame(h2.HEADERS, h2.END_HEADERS | h2.PADDED, s, b""),
        lambda s: h2.frame(h2.DATA, 0, s, bytes(h2.SMALLEST_FRAME + 1)),
        lambda s: h2.frame(h2.HEADERS, h2.END_HEADERS, s, b"\xff\xff\xff"),
        lambda s: h2.frame(h2.DATA, 0, 0, ANSWER),
        lambda s: h2.frame(h2.PING, 0, 0, bytes(7)),
        lambda s: h2.frame(h2.SETTINGS, 0, s, b""),
        lambda s: h2.frame(h2.WINDOW_UPDATE, 0, 0, bytes(4)),
        lambda s: 2 * h2.frame(h2.WINDOW_UPDATE, 0, 0, h2.LARGEST_WINDOW.to_bytes(4, "big")),
        lambda s: h2.frame(h2.PUSH_PROMISE, h2.END_HEADERS, s, bytes(4)),
        lambda s: h2.frame(h2.RST_STREAM, 0, s + 2, bytes(4)),
        lambda s: h2.frame(h2.CONTINUATION, h2.END_HEADERS, s, b""),
        lambda s: h2.frame(h2.HEADERS, 0, s, b"") + h2.frame(h2.PING, 0, 0, bytes(8)),
        lambda s: 2 * h2.frame(h2.HEADERS, h2.END_HEADERS, s, HEADERS_OK),
        lambda s: h2.frame(h2.HEADERS, h2.END_HEADERS, s, b"\x3f\xe1\x1f"),
        lambda s: h2.frame(h2.HEADERS, 0, s, b"") + 5 * h2.frame(h2.CONTINUATION, 0, s, bytes(h2.SMALLEST_FRAME)),
    ],
    ids=[
        "settings of five bytes",
        "frames of no bytes",
        "a window beyond the largest",
        "a reset without a code",
        "an empty goaway",
        "an empty window update",
        "more padding than frame",
        "no padding length",
        "a frame beyond our limit",
        "a broken header block",
        "data of no stream",
        "a ping of seven bytes",
        "settings of a stream",
        "a window update of nothing",
        "a window beyond the largest, in two steps",
        "a push",
        "a reset of a stream never opened",
        "a continuation of nothing",
        "a header list that is interrupted",
        "trailers that do not end",
        "a header table that we do not allow",
        "an endless header list",
    ],
)
def test_a_server_that_breaks_http2_fails_its_requests(sent):
    transports = []

    async def script(reader, writer):
        stream, _ = await read_request(reader)
        writer.write(sent(stream))

    answers = asyncio.run(against([script, answer_all], [b"x"], [0], transports=transports))
    assert answers[0][0] == UNAVAILABLE
    assert "HTTP/2" in answers[0][1]
    assert not transports[0].broken


def test_a_status_that_is_no_number_is_unknown():
    async def script(reader, writer):
        stream, _ = await read_request(reader)
        trailers = b"\x00\x0bgrpc-status\x03999"
        writer.write(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, HEADERS_OK) + h2.frame(h2.DATA, 0, stream, ANSWER))
        writer.write(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, trailers))

    assert asyncio.run(against(script, [b"x"], [0]))[0][0] == 2


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.9\r\n"])
def test_what_is_no_http2_cannot_be_connected_to(said):
    async def scenario():
        async def serve(reader, writer):
            writer.write(said)
            await reader.read()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(OSError):
                await Http2Transport(address, [b"x"], lambda *_: None, channels=2, timeout_s=3).open()

    asyncio.run(asyncio.wait_for(scenario(), 10))
