"""Answers in parts: of scripted peers that cut, flood and lie, beside grpc.aio, and what a run makes of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from exchange import (
    HEADERS_OK,
    OVERLOADED,
    PART,
    STATUS_OK,
    WITHOUT_OUTPUTS,
    against,
    answer,
    goaway,
    message,
    read_frame,
    read_request,
    with_peer,
)
from grpc_transport import GrpcTransport
from hpack import Decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from loadtests.generator.continuous import ContinuousRun
from loadtests.generator.http2 import Http2Transport
from loadtests.generator.http2 import frames as h2
from loadtests.generator.messages import Batch, EarlyStop, Limits
from loadtests.generator.open_loop import OpenLoopRun
from loadtests.generator.parts import Parts, Timelines
from loadtests.generator.stream_message import error_of, failure_of, read_part
from loadtests.generator.transport import METHOD, STREAM_METHOD
from loadtests.records.record import (
    DEADLINE_EXCEEDED,
    EMPTY_RESPONSE,
    MOST_TIMELINES,
    OK,
    UNANSWERED,
    UNAVAILABLE,
    Record,
)
from loadtests.workload.mix import ModelMix
from loadtests.workload.schedule import constant, payload_choices

INVALID_ARGUMENT, INTERNAL = 3, 13
TRAILERS = h2.END_HEADERS | h2.END_STREAM
LONG = message(b"\x12\xa4\x9c\x01*\xa0\x9c\x01" + bytes(20_000))
"""A part whose output alone is longer than a frame may be."""


def begun(stream: int, *pieces: bytes, end: bytes = b"") -> bytes:
    """An answer with a DATA frame for each piece, and how it ends."""
    data = b"".join(h2.frame(h2.DATA, 0, stream, piece) for piece in pieces)
    return h2.frame(h2.HEADERS, h2.END_HEADERS, stream, HEADERS_OK) + data + end


def whole(*pieces: bytes, trailers: bytes = STATUS_OK[1:]) -> Callable[[int], bytes]:
    return lambda stream: begun(stream, *pieces, end=h2.frame(h2.HEADERS, TRAILERS, stream, trailers))


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def marked(final: bool, *, outputs: bool = True) -> bytes:
    """A message that says whether it is the model's final response."""
    told = service_pb2.ModelStreamInferResponse()
    told.infer_response.model_name = "m"
    told.infer_response.parameters["triton_final_response"].bool_param = final
    if outputs:
        told.infer_response.outputs.add(name="text")
    return message(told.SerializeToString())


ANSWERS: dict[str, tuple[Callable[[int], bytes], int, int]] = {
    "a part in each frame": (whole(PART, PART, PART), OK, 3),
    "all parts in one frame": (whole(PART * 3), OK, 3),
    "a byte in each frame": (whole(*cut(PART * 3, 1)), OK, 3),
    "a part that ends in the middle of a frame": (whole(PART + PART[:7], PART[7:] + PART), OK, 3),
    "a prefix over two frames": (whole(PART + PART[:2], PART[2:]), OK, 2),
    "a part of several frames": (whole(PART, *cut(LONG, 10_000), PART), OK, 3),
    "a message without outputs behind the parts": (whole(PART, WITHOUT_OUTPUTS), OK, 1),
    "messages without outputs between them": (whole(WITHOUT_OUTPUTS, PART, WITHOUT_OUTPUTS * 2, PART), OK, 2),
    "parts and the final response": (whole(marked(False), marked(True)), OK, 2),
    "parts and a final response without outputs": (whole(marked(False), marked(True, outputs=False)), OK, 1),
    "parts without the final response": (whole(marked(False), marked(False)), INTERNAL, 2),
    "a final response, and another part that is none": (whole(marked(True), marked(False)), INTERNAL, 2),
    "no message": (whole(), EMPTY_RESPONSE, 0),
    "nothing but a message without outputs": (whole(WITHOUT_OUTPUTS), EMPTY_RESPONSE, 0),
    "empty messages": (whole(message(b"") * 3), EMPTY_RESPONSE, 0),
    "an error alone": (whole(OVERLOADED), UNAVAILABLE, 0),
    "an error behind parts": (whole(PART, PART, OVERLOADED), UNAVAILABLE, 2),
    "a part behind an error": (whole(PART, OVERLOADED, PART), UNAVAILABLE, 1),
    "an error of several frames": (whole(PART, *cut(OVERLOADED, 3)), UNAVAILABLE, 1),
    "an end in the middle of a part": (whole(PART, PART[:-1]), INTERNAL, 1),
    "an end in the middle of a prefix": (whole(PART, PART[:3]), INTERNAL, 1),
    "a compressed part": (whole(PART, message(b"x", flag=1)), INTERNAL, 1),
    "an unknown flag": (whole(PART, message(b"x", flag=7), PART), INTERNAL, 1),
    "trailers with an error": (whole(PART, trailers=b"\x00\x0bgrpc-status\x0214"), UNAVAILABLE, 1),
    "no trailers": (lambda s: begun(s, PART, end=h2.frame(h2.DATA, h2.END_STREAM, s, PART)), INTERNAL, 2),
    "trailers without a status": (whole(PART, trailers=b"\x00\x01x\x01y"), 2, 1),
    "a reset": (lambda s: begun(s, PART, end=h2.frame(h2.RST_STREAM, 0, s, bytes([0, 0, 0, 2]))), INTERNAL, 1),
    "a cancellation": (lambda s: begun(s, PART, end=h2.frame(h2.RST_STREAM, 0, s, bytes([0, 0, 0, 8]))), 1, 1),
    "trailers alone": (lambda s: h2.frame(h2.HEADERS, TRAILERS, s, STATUS_OK), EMPTY_RESPONSE, 0),
}
"""What a server sends for a streamed request, the status of that and how many parts it counts."""


OF_BOTH = [case for case, (_, status, _) in ANSWERS.items() if status in (OK, EMPTY_RESPONSE, UNAVAILABLE)]
"""grpc.aio overlooks a part that is cut off and an unknown flag, and drops parts before a reset."""


@pytest.mark.parametrize(
    ("case", "kind"), [*((case, Http2Transport) for case in ANSWERS), *((case, GrpcTransport) for case in OF_BOTH)]
)
def test_an_answer_in_parts(case, kind):
    sent, status, count = ANSWERS[case]
    parts: dict[int, Parts] = {}

    async def script(reader, writer):
        first, _ = await read_request(reader)
        second, _ = await read_request(reader)
        writer.write(sent(first) + whole(PART)(second))
        await reader.read()

    answers = asyncio.run(against(script, [b"x"], [0, 0], streamed=[0], kind=kind, parts=parts))
    assert answers[0][0] == status
    assert (parts[0].count if 0 in parts else 0) == count
    assert answers[1] == (OK, "")
    assert parts[1].count == 1


@pytest.mark.parametrize("ending", [b"", goaway(0), goaway(1)], ids=["closed", "unseen by its word", "announced"])
def test_a_connection_that_ends_in_the_middle_of_a_stream(ending):
    async def script(reader, writer):
        stream, _ = await read_request(reader)
        writer.write(begun(stream, PART, PART) + ending)
        await writer.drain()
        writer.close()

    answers = asyncio.run(against(script, [b"x"], [0], streamed=[0]))
    assert answers[0][0] == UNAVAILABLE


def test_parts_without_outputs_have_an_end():
    async def script(reader, writer):
        stream, _ = await read_request(reader)
        writer.write(begun(stream, PART))
        flood = h2.frame(h2.DATA, 0, stream, WITHOUT_OUTPUTS) * 1000
        while not writer.transport.is_closing():
            writer.write(flood)
            await writer.drain()

    answers = asyncio.run(against(script, [b"x"], [0], streamed=[0]))
    assert answers[0][0] == UNAVAILABLE
    assert "HTTP/2" in answers[0][1]


def test_a_long_stream_is_no_flood():
    """Pings between many parts bring no answer nearer, and yet are fewer than the parts."""
    parts: dict[int, Parts] = {}

    async def script(reader, writer):
        stream, _ = await read_request(reader)
        pair = h2.frame(h2.DATA, 0, stream, PART) + h2.frame(h2.PING, 0, 0, bytes(8))
        writer.write(begun(stream) + pair * 12_000 + h2.frame(h2.HEADERS, TRAILERS, stream, STATUS_OK[1:]))
        while await reader.read(1 << 16):
            pass

    assert asyncio.run(against(script, [b"x"], [0], streamed=[0], parts=parts))[0] == (OK, "")
    assert parts[0].count == 12_000


@pytest.mark.parametrize("sends", [[0, 1, 0, 1, 1], [1, 0, 1, 0]])
def test_streams_and_ordinary_requests_share_a_connection(sends):
    """Whichever comes first, the server's table of headers serves both."""
    paths = []

    async def script(reader, writer):
        decoder = Decoder()
        for _ in sends:
            kind = h2.SETTINGS
            while kind != h2.HEADERS:
                kind, _, stream, content = await read_frame(reader)
            paths.append(dict(decoder.decode(content))[":path"])
            writer.write(whole(PART, PART)(stream) if paths[-1] == STREAM_METHOD else answer(stream))
        await reader.read()

    answers = asyncio.run(against(script, [b"x", b"y"], sends, streamed=[1]))
    assert [status for status, _ in answers.values()] == [OK] * len(sends)
    assert paths == [STREAM_METHOD if payload else METHOD for payload in sends]


# What a message says.


@pytest.mark.parametrize(
    ("words", "failure"),
    [
        ("Exceeds maximum queue size", (UNAVAILABLE, "Exceeds maximum queue size")),
        ("the count ran out", (INTERNAL, "the count ran out")),
        ("INVALID_ARG: the count is 0", (INVALID_ARGUMENT, "the count is 0")),
    ],
)
def test_an_error_has_the_status_of_its_words(words, failure):
    told = service_pb2.ModelStreamInferResponse(error_message=words)
    told.infer_response.id = "1"
    assert error_of(told.SerializeToString()) == words
    assert failure_of(words) == failure


names = st.sampled_from(["", "m", "triton_final_response", "n" * 130, "\xe9" * 70])
responses = st.builds(
    lambda model, number, parameters, outputs, value: service_pb2.ModelInferResponse(
        model_name=model,
        id=number,
        parameters={name: service_pb2.InferParameter(bool_param=value) for name in parameters},
        outputs=[service_pb2.ModelInferResponse.InferOutputTensor(name=name) for name in outputs],
        raw_output_contents=[b"content" for _ in outputs],
    ),
    names,
    names,
    st.lists(names, max_size=3),
    st.lists(names, max_size=2),
    st.booleans(),
)


def is_final(response) -> bool | None:
    """As protobuf reads it."""
    marks = response.parameters
    return marks["triton_final_response"].bool_param if "triton_final_response" in marks else None


@settings(max_examples=60, deadline=None)
@given(responses, names, st.integers(2, 600))
def test_what_is_read_of_a_message_is_what_protobuf_reads(response, words, kept):
    """Also of the beginning of a long one."""
    told = service_pb2.ModelStreamInferResponse(infer_response=response, error_message=words)
    content = told.SerializeToString()
    assert error_of(content) == (words or None)
    if not words:
        assert read_part(content) == (bool(response.outputs), is_final(response))
        assert read_part(content[:kept])[0] or not response.outputs or len(content) <= kept


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40))
def test_no_message_is_too_odd_to_read(content):
    error_of(content)
    read_part(content)


# What a run makes of it: with a transport without a network.


class Told:
    """A transport that answers at each flush, as `answers` has it by the number of the payload: parts, and a status."""

    lost, broken, connections = False, "", 1

    def __init__(self, on_done, on_first, answers) -> None:
        self._on_done, self._on_first, self._answers = on_done, on_first, answers
        self._sent: list[tuple[int, int]] = []
        self.cancelled: list[int] = []

    async def open(self) -> None:
        pass

    def send(self, index: int, payload: int) -> None:
        self._sent.append((index, payload))

    def flush(self) -> None:
        sent, self._sent = self._sent, []
        asyncio.get_running_loop().call_soon(self._answer, sent)

    def _answer(self, sent: list[tuple[int, int]]) -> None:
        now_s = asyncio.get_running_loop().time()
        for index, payload in sent:
            times_s, status = self._answers[payload]
            parts = Parts()
            for number, after_s in enumerate(times_s):
                parts.add(now_s + after_s)
                if number == 0:
                    self._on_first(index, parts)
            if status is not None:
                self._on_done(index, now_s + (times_s[-1] if times_s else 0.0), status, "")

    def cancel(self, index: int) -> None:
        self.cancelled.append(index)

    async def close(self) -> None:
        pass


SLOW, QUICK, FAILED, ENDLESS = ((5.0, 5.1, 5.4), OK), ((0.0, 1.0), OK), ((), UNAVAILABLE), ((0.0, 0.5), None)


def run(answers, limits: Limits, *, requests: int = 40, timeout_s: float = 10.0):
    transports = []

    def make_transport(*reports):
        transports.append(Told(*reports, answers))
        return transports[0]

    async def fire():
        choices = payload_choices(requests, len(answers), seed=0)
        firing = OpenLoopRun(
            constant(1000, count=requests), choices, limits, timeout_s=timeout_s, make_transport=make_transport
        )
        return await firing.run()

    record, outcome = asyncio.run(fire())
    return record, outcome, transports[0]


def test_a_run_records_first_part_longest_gap_and_parts():
    record, outcome, _ = run([SLOW], Limits(100, cooldown=10))
    assert len(record) == 30
    assert record.parts.tolist() == [3] * 30
    assert record.gap_s == pytest.approx(0.3)
    assert record.done_s - record.first_s == pytest.approx(0.4)
    assert record.itl_ms() == pytest.approx(200)
    assert np.all(record.ttft_ms() >= 5000)
    assert outcome.stopped == ""
    assert sorted(record.timelines) == list(range(30 - MOST_TIMELINES, 30))
    assert record.timelines[29] - record.first_s[29] == pytest.approx([0, 0.1, 0.4])


OVER = {
    "first parts that are late": EarlyStop(4000.0, 5, "ttft"),
    "too long from part to part": EarlyStop(199.0, 5, "itl"),
    "a gap over the limit": EarlyStop(299.0, 5, "gap"),
    "whole answers that are late": EarlyStop(5000.0, 5),
    "only this model's requests": EarlyStop(4000.0, 5, "ttft", (0, 1)),
}
"""Limits that slow streams are over."""
WITHIN = (
    EarlyStop(60_000.0, 1, "ttft"),
    EarlyStop(201.0, 1, "itl"),
    EarlyStop(301.0, 1, "gap"),
    EarlyStop(60_000.0, 1),
    EarlyStop(4000.0, 41, "ttft"),  # too few are over it
    EarlyStop(4000.0, 1, "ttft", (1, 2)),  # another model's requests
)


@pytest.mark.parametrize("case", OVER)
def test_a_run_stops_when_a_limit_is_out_of_reach(case):
    assert run([SLOW], Limits(1000, (*WITHIN, OVER[case])))[1].stopped == "hopeless"


def test_a_run_within_its_limits_goes_on():
    assert run([SLOW], Limits(1000, WITHIN))[1].stopped == ""


@pytest.mark.parametrize("measure", ["ttft", "itl"])
def test_requests_that_fail_are_over_every_limit(measure):
    assert run([FAILED], Limits(1000, (EarlyStop(60_000.0, 40, measure),)))[1].stopped == "hopeless"


def test_a_late_stream_that_fails_is_counted_once():
    answers = [((5.0, 5.1), UNAVAILABLE)]
    assert run(answers, Limits(1000, (EarlyStop(1000.0, 41, "ttft"),)))[1].stopped == ""


def test_streams_that_still_run_at_a_stop_keep_their_first_part():
    answers = [ENDLESS, SLOW]
    record, outcome, transport = run(answers, Limits(1000, (EarlyStop(199.0, 5, "itl"),)), timeout_s=0.5)
    assert outcome.stopped == "hopeless"
    running = record.status == UNANSWERED
    assert running.any()
    assert np.isfinite(record.first_s[running]).all()
    assert set(transport.cancelled) >= set(np.flatnonzero(running).tolist())


def test_a_stream_past_its_deadline_is_cancelled_at_the_server():
    seen = []

    async def script(reader, writer):
        stream, _ = await read_request(reader)
        writer.write(begun(stream))
        for _ in itertools.count():
            writer.write(h2.frame(h2.DATA, 0, stream, PART))
            try:
                kind, _, number, content = await asyncio.wait_for(read_frame(reader), 0.02)
            except TimeoutError:
                continue
            if kind == h2.RST_STREAM:
                seen.append((number, int.from_bytes(content, "big")))
                return

    async def fire(address):
        def make_transport(*reports):
            return Http2Transport(address, [b"x"], *reports, channels=1, timeout_s=0.3, streamed=[0])

        firing = OpenLoopRun(
            constant(100, count=1),
            payload_choices(1, 1, seed=0),
            Limits(10),
            timeout_s=0.3,
            make_transport=make_transport,
        )
        await firing.transport.open()
        found = await firing.run()
        while not seen:
            await asyncio.sleep(0.01)
        return found

    record, _ = asyncio.run(asyncio.wait_for(with_peer(script, fire), 10))
    assert record.status.tolist() == [DEADLINE_EXCEEDED]
    assert record.parts[0] > 2
    assert seen == [(1, h2.CANCEL)]


def test_only_the_streams_that_began_last_are_followed():
    followed, parts = Timelines(), [Parts() for _ in range(MOST_TIMELINES + 3)]
    for index, one in enumerate(parts):
        one.add(float(index))
        followed.follow(index, one)
        one.add(index + 0.5)
    assert list(followed.times()) == list(range(3, MOST_TIMELINES + 3))
    assert followed.times()[3] == [3.0, 3.5]


def test_a_batch_carries_the_parts_of_its_requests():
    """With those of a run without an end, also beside requests that are answered at once."""
    batches: list[Batch] = []

    async def fire():
        continuous = ContinuousRun(
            ModelMix((1, 1), (0.5, 0.5)),
            lambda *reports: Told(*reports, [QUICK, ((), OK)]),
            lambda batch: batches.append(Batch.unpack(batch.pack())),
            seed=0,
        )
        running = asyncio.ensure_future(continuous.run())
        await asyncio.sleep(0)
        continuous.set_rate(500)
        while sum(len(batch.record) for batch in batches) < 20:
            await asyncio.sleep(0.02)
        continuous.finish()
        await running

    asyncio.run(asyncio.wait_for(fire(), 10))
    record = Record.merge([batch.record for batch in batches])
    streamed = record.model == 0
    assert 0 < streamed.sum() < len(record)
    assert record.parts.tolist() == np.where(streamed, 2, 0).tolist()
    assert record.gap_s[streamed] == pytest.approx(1.0)
    assert (record.done_s - record.first_s)[streamed] == pytest.approx(1.0)
    assert np.isnan(record.first_s[~streamed]).all()
