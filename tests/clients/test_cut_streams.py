"""A stream that is cut off, anywhere and by anybody, is an error: it never looks like a whole answer."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import numpy as np
import pytest
from complete_server import complete_server
from python_models import write_counter
from scripted_gateway import CLOSE, ScriptedGateway, data, goaway, headers, reset
from tritonclient.grpc import service_pb2
from waiting import until

from clients import (
    AsyncClient,
    AsyncModel,
    Client,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    Model,
    ModelNotFoundError,
    ModelNotReadyError,
    ModelSpec,
    OverloadedError,
    QueueTimeoutError,
    ServerError,
    TensorSpec,
    UnreachableError,
)

SPEC = ModelSpec("m", "", 0, {}, {"number": TensorSpec("number", "INT32", (1,))}, decoupled=True)
WHOLE = "whole"


def part(number: int | None = None, *, final: bool | None = False, error: str = "") -> bytes:
    """One message of Triton's; `final` None is a server that has no such mark."""
    message = service_pb2.ModelStreamInferResponse(error_message=error)
    if number is not None:
        message.infer_response.outputs.add(name="number", datatype="INT32", shape=[1])
        message.infer_response.raw_output_contents.append(np.int32(number).tobytes())
    if final is not None:
        message.infer_response.parameters["triton_final_response"].bool_param = final
    return framed(message.SerializeToString())


def framed(body: bytes) -> bytes:
    return b"\0" + len(body).to_bytes(4, "big") + body


def begun(stream: int, *messages: bytes, end: bool = False) -> bytes:
    """Headers, and everything so far in one frame."""
    first = headers(stream, (":status", "200"), ("content-type", "application/grpc"))
    return first + data(stream, b"".join(messages), end=end)


def ended(stream: int, status: str = "0", text: str = "") -> bytes:
    return headers(stream, ("grpc-status", status), ("grpc-message", text), end=True)


ONE, TWO, LAST = part(1), part(2), part(2, final=True)
ANSWERS = {
    # what the server sends: (frames, the end: class, status, source, may have run)
    "the last part carries the mark": (lambda s: begun(s, ONE, LAST) + ended(s), WHOLE),
    "the mark comes alone, and is no part": (lambda s: begun(s, ONE, TWO, part(final=True)) + ended(s), WHOLE),
    "a GOAWAY that lets the stream finish": (lambda s: goaway(s) + begun(s, ONE, LAST) + ended(s), WHOLE),
    "OK without the mark": (lambda s: begun(s, ONE, TWO) + ended(s), (ServerError, "OK", "server", True)),
    "OK and nothing else": (lambda s: begun(s) + ended(s), (ServerError, "OK", "server", True)),
    "half a part, and OK": (lambda s: begun(s, ONE, TWO, LAST[:-3]) + ended(s), (ServerError, "OK", "server", True)),
    "more after the mark, without another": (
        lambda s: begun(s, part(1, final=True), TWO) + ended(s),
        (ServerError, "OK", "server", True),
    ),
    "no message": (lambda s: begun(s, framed(b"\xff\xff")) + ended(s), (ServerError, "", "client", True)),
    "no trailers, as HAProxy ends a stream whose server died or was silent": (
        lambda s: begun(s, ONE, TWO, end=True),
        (UnreachableError, "UNKNOWN", "gateway", True),
    ),
    "the connection closes": (lambda s: begun(s, ONE) + CLOSE, (UnreachableError, "UNAVAILABLE", "connection", True)),
    "a GOAWAY, and the connection closes": (
        lambda s: begun(s, ONE) + goaway(s) + CLOSE,
        (UnreachableError, "UNAVAILABLE", "connection", True),
    ),
    "a reset": (lambda s: begun(s, ONE) + reset(s, 2), (UnreachableError, "INTERNAL", "connection", True)),
    "a cancellation of the peer": (
        lambda s: begun(s, ONE) + reset(s, 8),
        (UnreachableError, "CANCELLED", "connection", True),
    ),
    "a gateway's time-out": (
        lambda s: begun(s, ONE) + ended(s, "4", "upstream request timeout"),
        (DeadlineExceededError, "DEADLINE_EXCEEDED", "gateway", True),
    ),
    "no gateway behind it": (
        lambda s: headers(s, (":status", "503"), end=True),
        (UnreachableError, "UNAVAILABLE", "gateway", False),
    ),
    "silence": (lambda s: begun(s, ONE), (DeadlineExceededError, "DEADLINE_EXCEEDED", "client", True)),
    "silence from the beginning": (lambda s: b"", (DeadlineExceededError, "DEADLINE_EXCEEDED", "client", True)),
}


def ask(frames, spec=SPEC, **options) -> tuple[list[int], InferenceError | None]:
    """The parts that came, and the error at their end."""
    numbers: list[int] = []
    with ScriptedGateway(frames) as peer, Client(peer.address) as client:
        try:
            for answer in Model(client, spec).stream(timeout_s=20, **options):
                numbers.append(int(answer["number"][0]))
        except InferenceError as error:
            return numbers, error
    return numbers, None


def ask_async(frames, **options) -> tuple[list[int], InferenceError | None]:
    numbers: list[int] = []

    async def go() -> InferenceError | None:
        async with AsyncClient(peer.address) as client:
            try:
                async for answer in AsyncModel(client, SPEC).stream(timeout_s=20, **options):
                    numbers.append(int(answer["number"][0]))
            except InferenceError as error:
                return error
        return None

    with ScriptedGateway(frames) as peer:
        return numbers, asyncio.run(go())


@pytest.mark.parametrize("how", [ask, ask_async])
@pytest.mark.parametrize("case", ANSWERS)
def test_the_end_of_a_stream(case, how):
    frames, end = ANSWERS[case]
    numbers, error = how(frames, idle_timeout_s=0.3 if case.startswith("silence") else 20)
    if end == WHOLE:
        assert (numbers, error) == ([1, 2], None)
    else:
        assert (type(error), error.status, error.source, error.may_have_run) == end
        assert (error.model, error.endpoint[:10]) == ("m", "127.0.0.1:")


FULL = "[request id: <id_unknown>] Exceeds maximum queue size"
TEXTS = {
    # of Triton 2.51, or of a model that begins with a status: (class, status)
    FULL: (OverloadedError, "UNAVAILABLE"),
    "Request timeout expired": (QueueTimeoutError, "UNAVAILABLE"),
    "UNAVAILABLE: Exceeds maximum queue size: 64 prompts wait": (OverloadedError, "UNAVAILABLE"),
    "Request for unknown model: 'm' is not found": (ModelNotFoundError, "NOT_FOUND"),
    "Request for unknown model: 'm' version 1 is not at ready state": (ModelNotReadyError, "UNAVAILABLE"),
    "[request id: 7] expected 2 inputs but got 0 inputs for model 'm'. Got input(s) []": (
        InvalidInputError,
        "INVALID_ARGUMENT",
    ),
    "unexpected inference input 'x' for model 'm'": (InvalidInputError, "INVALID_ARGUMENT"),
    "INVALID_ARG: the prompt is empty: write one": (InvalidInputError, "INVALID_ARGUMENT"),
    "Stub process 'm_0_0' is not healthy.": (ServerError, ""),
    "the model raised: INVALID_ARG: said its own model": (ServerError, ""),
    "in ensemble 'm', INVALID_ARG: the prompt is empty": (InvalidInputError, "INVALID_ARGUMENT"),
    "INTERNAL: out of memory": (ServerError, "INTERNAL"),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("parts", [0, 1])
def test_a_failure_that_the_server_tells_as_text_keeps_its_class(text, parts):
    numbers, error = ask(lambda s: begun(s, *[ONE] * parts, part(error=text, final=None)) + ended(s))
    assert (numbers, type(error), error.status, error.source) == ([1] * parts, *TEXTS[text], "server")
    assert error.details in (text, re.sub(r"[A-Z_]+: ", "", text, count=1))
    assert error.may_have_run or not parts


FAILED = part(error="it failed")
LEFT = {
    # what the server sends before anybody leaves: (frames, cancelled)
    "a part": (lambda s: begun(s, ONE), True),
    "the last part, and no end yet": (lambda s: begun(s, part(1, final=True)), False),
    "the last part": (lambda s: begun(s, part(1, final=True)) + ended(s), False),
    "a failure": (lambda s: begun(s, ONE, FAILED) + ended(s), False),
    "a failure, after which the stream ends late": (lambda s: begun(s, ONE, FAILED), True),
}


@pytest.mark.parametrize("case", LEFT)
def test_a_stream_is_cancelled_unless_its_server_ends_it_at_that_moment(case):
    """Triton 2.51 may keep a request for ever that is cancelled at its end."""
    frames, cancelled = LEFT[case]
    with ScriptedGateway(frames) as peer, Client(peer.address) as client:
        parts, link = Model(client, SPEC).stream(timeout_s=20), client.rotation().lone.link
        next(parts)
        if "failure" in case:
            with pytest.raises(ServerError) as caught:
                next(parts)
            assert caught.value.details == "it failed"
        del parts
        client.is_ready()  # another request, which comes after a cancellation
        if cancelled:
            until(lambda: peer.resets)
        assert peer.resets == cancelled
        if case != "the last part, and no end yet":
            until(lambda: not link.calls)


@pytest.mark.parametrize("parts", [1, 0])
def test_a_server_without_the_mark_is_believed_for_a_model_that_is_not_decoupled_if_it_answers(parts):
    numbers, error = ask(
        lambda s: begun(s, *[part(1, final=None)] * parts) + ended(s),
        spec=ModelSpec("m", "", 0, {}, SPEC.outputs),
    )
    assert (numbers, type(error)) == (([1], type(None)) if parts else ([], ServerError))


def test_a_server_that_failed_a_stream_is_passed_over():
    with (
        ScriptedGateway(lambda s: begun(s, ONE) + CLOSE) as failing,
        ScriptedGateway(lambda s: begun(s, ONE, LAST) + ended(s)) as other,
        Client([failing.address, other.address], probe_every_s=1e6) as client,
    ):
        with pytest.raises(UnreachableError) as caught:
            list(Model(client, SPEC).stream())
        assert caught.value.endpoint == failing.address
        assert [len(list(Model(client, SPEC).stream())) for _ in range(3)] == [2, 2, 2]


@pytest.mark.process
def test_a_server_that_is_killed_in_the_middle(tmp_path):
    repository = tmp_path / "model_repository"
    write_counter(repository)
    with complete_server(repository) as server, Client(server.grpc_url) as client:
        parts = client.model("counter").stream(count=90, pause_s=0.1)
        next(parts)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(UnreachableError) as caught:
            list(parts)
    assert (caught.value.status, caught.value.source, caught.value.may_have_run) == ("UNAVAILABLE", "connection", True)
