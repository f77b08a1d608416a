"""What gateways answer in place of a server: the error that it becomes, and how often the request is sent."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from mortal import mortal
from replica import lasting_ports
from scripted_gateway import ScriptedGateway, data, goaway, headers, reset
from tritonclient.grpc import service_pb2
from waiting import until

from clients import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    OverloadedError,
    Retries,
    ServerError,
    UnreachableError,
)
from clients.options import open_channel
from clients.servers import INFER_METHOD

pytestmark = pytest.mark.process

REDIRECTS = (301, 302, 303, 307, 308)
RETURNS = (200, 400, 401, 403, 404, 405, 408, 413, 418, 421, 429, 431, 500, 501, 502, 503, 504, 524)
CONFIG = """
global
  log stdout format raw local0
defaults
  mode http
  log global
  log-format "%[capture.req.hdr(0)] %ST"
  retries 0
  timeout client 20s
  timeout connect 1s
  timeout server 20s
frontend gateway
  bind 127.0.0.1:{port} proto h2
  http-request capture req.hdr(x-case) len 60
{rules}
  use_backend %[req.hdr(x-answer)] if {{ req.hdr(x-answer) -m found }}
  default_backend triton
backend triton
  server a {triton} proto h2
backend late
  timeout server 200ms
  server a {triton} proto h2
backend nobody
  server a 127.0.0.1:9 proto h2
backend dies
  server a {dies} proto h2
"""


class Gateway:
    """A real HAProxy in front of a Triton; a request's header `x-answer` says what it gets."""

    def __init__(self, folder: Path, triton: str, mortal_server: ScriptedGateway) -> None:
        rules = [f"redirect code {n} location https://elsewhere/ if {{ req.hdr(x-answer) {n} }}" for n in REDIRECTS]
        page = 'content-type text/html string "<html>no</html>"'
        rules += [f"return status {n} {page} if {{ req.hdr(x-answer) {n} }}" for n in RETURNS]
        (self.port,), self.mortal = lasting_ports(1), mortal_server
        self._log, config = folder / "haproxy.log", folder / "haproxy.cfg"
        lines = "\n".join(f"  http-request {rule}" for rule in rules)
        config.write_text(CONFIG.format(port=self.port, rules=lines, triton=triton, dies=self.mortal.address))
        with self._log.open("wb") as log:
            command = mortal(["haproxy", "-db", "-f", str(config)])
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        with Client(self.address) as client:
            until(client.is_ready)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def passed(self, case: str) -> int:
        """How many requests of a case have come to an end here."""
        return self._log.read_text(errors="replace").count(f"{case} ")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture(scope="module")
def gateway(small_server, tmp_path_factory) -> Iterator[Gateway]:
    with ScriptedGateway(lambda stream: None) as dies:
        gateway = Gateway(tmp_path_factory.mktemp("gateway"), small_server.grpc_url, dies)
        yield gateway
        gateway.close()


DOUBLE, SLOW = ("double", {"x": [[1, 2]]}), ("slow", {"seconds": [[0.5]]})


def ask(kind: type, address: str, question: tuple[str, dict] = DOUBLE, **options) -> tuple[InferenceError, int]:
    """The error of one inference by a client that had an answer before, and how often it was sent again.

    The budget ends the retries, and not a deadline: that could pass in the middle of one.
    """
    model, inputs = question
    options = {"timeout_s": 10, **options}

    async def ask_async() -> tuple[InferenceError, int]:
        async with AsyncClient(address, retries=Retries(reserve=3)) as client:
            bound = await client.model(model)
            with pytest.raises(InferenceError) as caught:
                await bound(inputs, **options)
            return caught.value, client.budget.retried

    if kind is AsyncClient:
        return asyncio.run(ask_async())
    with Client(address, retries=Retries(reserve=3)) as client:
        bound = client.model(model)
        with pytest.raises(InferenceError) as caught:
            bound(inputs, **options)
        return caught.value, client.budget.retried


ONCE, AGAIN = False, True
ANSWERS = {
    # of the gateway: (error, HTTP status, is the request sent again?)
    **{str(status): (UnreachableError, status, ONCE) for status in REDIRECTS},
    **{str(status): (UnreachableError, status, ONCE) for status in (200, 400, 404, 405, 421, 501)},  # 200 is a page
    **{str(status): (ServerError, status, ONCE) for status in (401, 403, 418, 500)},
    **{str(status): (InvalidInputError, status, ONCE) for status in (413, 431)},
    **{str(status): (DeadlineExceededError, status, ONCE) for status in (408, 504, 524)},
    "429": (OverloadedError, 429, ONCE),
    "502": (UnreachableError, 502, AGAIN),
    "503": (UnreachableError, 503, AGAIN),
    "nobody": (UnreachableError, 503, AGAIN),  # no server is up
}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("answer", ANSWERS)
def test_what_a_gateway_answers_is_its_error_and_sent_again_only_where_a_server_may_return(gateway, kind, answer):
    expected, http_status, again = ANSWERS[answer]
    case = f"{kind.__name__}-{answer}"
    error, retried = ask(kind, gateway.address, headers={"x-answer": answer, "x-case": case})
    assert (type(error), error.http_status, error.source) == (expected, http_status, "gateway")
    until(lambda: gateway.passed(case) == 1 + retried)
    assert (retried > 0) == again


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_request_of_which_its_server_dies_is_sent_again_twice(gateway, kind):
    """HAProxy then refuses the stream, as if the request had not left it."""
    before = gateway.mortal.inferences
    error, retried = ask(kind, gateway.address, headers={"x-answer": "dies"})
    assert (type(error), error.transient, error.may_have_run) == (UnreachableError, True, True)
    assert gateway.mortal.inferences - before == 1 + retried == 3


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_request_that_a_gateway_gave_up_runs_once(gateway, small_server, kind):
    def executed():
        asked = service_pb2.ModelStatisticsRequest(name="slow")
        with Client(small_server.grpc_url) as client:
            return client.run(client.call("ModelStatistics", asked)).model_stats[0].inference_stats.success.count

    before = executed()
    error, retried = ask(kind, gateway.address, SLOW, timeout_s=5, headers={"x-answer": "late"})
    assert (type(error), error.http_status, error.may_have_run, retried) == (DeadlineExceededError, 504, True, 0)
    until(lambda: executed() > before)
    assert executed() == before + 1


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_headers_too_large_for_a_gateway_or_a_server_are_sent_once(gateway, small_server, kind):
    """HAProxy closes the connection with its refusal: where that is seen first, it looks lost, and one more is sent."""
    large = {"x-token": "a" * 17_000}
    for address, most in ((gateway.address, 1), (small_server.grpc_url, 0)):
        error, retried = ask(kind, address, timeout_s=5, headers=large)
        assert type(error) is InvalidInputError
        assert retried <= most


OK, GRPC, PAGE = (":status", "200"), ("content-type", "application/grpc"), ("content-type", "text/html")
NO_STATUS = ("x", "y")
PART = b"\x00\x00\x00\x00\x10abc"  # of a message
CUT = {
    # answers by hand, of the stream's number: (answer, error, inferences: 0 for as many as there is time for, cost)
    "a connection that ends before the request was looked at": (lambda s: goaway(0), UnreachableError, 0, 0),
    "a stream that was refused": (lambda s: reset(s, 7), UnreachableError, 3, 1),
    "a connection that breaks": (lambda s: None, UnreachableError, 3, 1),
    "a proxy that gives a stream up": (lambda s: headers(s, OK, GRPC) + reset(s, 8), UnreachableError, 3, 1),
    "a proxy that asks for less": (lambda s: reset(s, 11), OverloadedError, 1, 0),
    "a proxy that wants HTTP/1": (lambda s: reset(s, 13), UnreachableError, 1, 0),
    "an answer that is always cut": (lambda s: headers(s, OK, GRPC) + data(s, PART, end=True), UnreachableError, 3, 1),
    "an answer without a status": (
        lambda s: headers(s, OK, GRPC) + headers(s, NO_STATUS, end=True), UnreachableError, 3, 1,
    ),
    "a page that is recognised": (
        lambda s: headers(s, OK, PAGE, ("etag", "1")) + data(s, b"<html>", end=True), UnreachableError, 1, 0,
    ),
    "a page that is not": (lambda s: headers(s, OK, PAGE) + data(s, b"<html>", end=True), UnreachableError, 3, 1),
    "Envoy's time-out": (
        lambda s: headers(s, OK, GRPC, ("grpc-status", "14"), ("grpc-message", "upstream request timeout"), end=True),
        DeadlineExceededError, 1, 0,
    ),
    "a server that says it is unavailable": (
        lambda s: headers(s, OK, GRPC, ("grpc-status", "14"), ("grpc-message", "later"), end=True),
        UnreachableError, 1, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("case", CUT)
def test_an_answer_that_is_none(case, asynchronous):
    script, expected, inferences, cost = CUT[case]

    async def infer(address):
        async with AsyncClient(address, timeout_s=1.5) as client:
            assert await client.is_ready()
            with pytest.raises(InferenceError) as caught:
                await client.call("ModelInfer", b"", model="m")
            return caught.value, client.budget

    with ScriptedGateway(script) as peer:
        if asynchronous:
            error, budget = asyncio.run(infer(peer.address))
        else:
            with Client(peer.address, timeout_s=1.5) as client:
                assert client.is_ready()
                with pytest.raises(InferenceError) as caught:
                    client.run(client.call("ModelInfer", b"", model="m"))
                error, budget = caught.value, client.budget
    assert type(error) is expected or not inferences
    if inferences:
        assert peer.inferences == inferences == 1 + budget.retried
    else:  # the deadline may come before the last one has arrived
        assert type(error) in (expected, DeadlineExceededError)
        assert 1 < peer.inferences <= 1 + budget.retried
    assert budget.spent == cost * budget.retried


def http1(connection: socket.socket) -> None:
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 6\r\nServer: nginx\r\n\r\n<html>")
    time.sleep(0.1)


def banner(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    time.sleep(0.1)


PORTS = {
    "HTTP/1 alone": (http1, "gateway", 400),
    "another protocol": (banner, "gateway", 0),
    "nothing: it closes": (lambda connection: connection.recv(1000), "connection", 0),
}


@pytest.mark.parametrize("case", PORTS)
def test_a_port_that_is_not_grpcs_is_unreachable_at_once(case):
    handle, source, http_status = PORTS[case]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                with connection:
                    handle(connection)

        threading.Thread(target=serve, daemon=True).start()
        with Client(f"127.0.0.1:{listener.getsockname()[1]}", timeout_s=30) as client:
            began = time.monotonic()
            with pytest.raises(UnreachableError) as caught:
                client.model("m")
            listener.shutdown(socket.SHUT_RDWR)
    assert time.monotonic() - began < 15  # and not until the deadline
    error = caught.value
    assert (error.source, error.http_status, error.may_have_run) == (source, http_status, False)


def test_grpcs_own_retries_are_off_whatever_a_name_server_says():
    """A service configuration (of DNS, or xDS) may ask for them, and they know nothing of a budget."""
    asked = []
    policy = '{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.01s", '
    policy += '"maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}'
    with (
        ScriptedGateway(lambda stream: asked.append(stream) or reset(stream, 7)) as peer,
        open_channel(grpc, None, None, peer.address, more=(("grpc.service_config", policy),)) as channel,
        pytest.raises(grpc.RpcError),
    ):
        channel.unary_unary(INFER_METHOD)(b"", timeout=5)
    assert len(asked) == 1
