"""Statuses and words of gRPC, gateways and servers, as the errors that they become."""

import grpc
import pytest

from clients import TLS
from clients.errors import (
    DeadlineExceededError,
    InvalidInputError,
    ModelNotFoundError,
    ModelNotReadyError,
    OverloadedError,
    QueueTimeoutError,
    ServerError,
    UnreachableError,
)
from clients.failures import Sent, from_rpc, is_down

CODE = grpc.StatusCode
REFUSED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:1.2.3.4:1: "
CUT = "Stream removed (Data frame with END_STREAM flag received)"
RESET = "Stream removed (RST_STREAM (Received RST_STREAM with error code {}))"
LATER, NEVER = True, False  # may another try be answered?
PERHAPS, NOT = True, False  # may the request have run?


class Rpc(grpc.RpcError):
    def __init__(self, code, details, initial=(), trailing=()):
        self._code, self._details, self._initial, self._trailing = code, details, initial, trailing

    def code(self):
        return self._code

    def details(self):
        return self._details

    def initial_metadata(self):
        return self._initial

    def trailing_metadata(self):
        return self._trailing


SENT = Sent("m", "host:8001", 2.0)
# As grpcio 1.85, Triton 2.51 and Envoy say it.
ROWS = [
    # Triton
    (CODE.UNAVAILABLE, "Exceeds maximum queue size", OverloadedError, "server", LATER, NOT),
    (CODE.UNAVAILABLE, "Request timeout expired", QueueTimeoutError, "server", LATER, NOT),
    (
        CODE.UNAVAILABLE,
        "Request for unknown model: 'm' is not at ready state",
        ModelNotReadyError,
        "server",
        LATER,
        NOT,
    ),
    (CODE.UNAVAILABLE, "GRPC server is shutting down and has stopped", ModelNotReadyError, "server", LATER, NOT),
    (
        CODE.UNAVAILABLE,
        "Server is stopping, scheduler for model has stopped accepting new inference requests",
        ModelNotReadyError,
        "server",
        LATER,
        NOT,
    ),
    (CODE.NOT_FOUND, "unknown model: 'm' has no available versions", ModelNotReadyError, "server", LATER, NOT),
    (CODE.NOT_FOUND, "Request for unknown model: 'm' is not found", ModelNotFoundError, "server", NEVER, NOT),
    (CODE.UNAVAILABLE, "This protocol is restricted, expecting header 'k'", ServerError, "server", NEVER, NOT),
    (CODE.INVALID_ARGUMENT, "unexpected shape for input 'x'", InvalidInputError, "server", NEVER, NOT),
    (CODE.UNAUTHENTICATED, "no token", ServerError, "server", NEVER, NOT),
    (CODE.UNKNOWN, "the model raised", ServerError, "server", NEVER, PERHAPS),
    (CODE.INTERNAL, "the model says: Connection refused, Socket closed", ServerError, "server", NEVER, PERHAPS),
    (CODE.INTERNAL, "the model's own client: Stream removed (Socket closed)", ServerError, "server", NEVER, PERHAPS),
    (CODE.UNAVAILABLE, "the model: connection failure, Socket closed", UnreachableError, "server", NEVER, PERHAPS),
    (CODE.CANCELLED, "the model gave up", ServerError, "server", NEVER, PERHAPS),
    (CODE.UNAVAILABLE, "come back later", UnreachableError, "server", NEVER, PERHAPS),
    (CODE.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)", InvalidInputError, "server", NEVER, NOT),
    (CODE.RESOURCE_EXHAUSTED, "received metadata size exceeds hard limit (9)", InvalidInputError, "server", NEVER, NOT),
    (CODE.RESOURCE_EXHAUSTED, "too many requests", OverloadedError, "server", LATER, NOT),
    # this client
    (CODE.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceededError, "client", NEVER, PERHAPS),
    (CODE.DEADLINE_EXCEEDED, "Stream removed (Deadline Exceeded)", DeadlineExceededError, "client", NEVER, PERHAPS),
    (CODE.CANCELLED, "Channel closed!", ServerError, "client", NEVER, PERHAPS),
    (CODE.CANCELLED, "Stream removed (Channel closed!)", ServerError, "client", NEVER, PERHAPS),
    # gateways that speak gRPC
    (CODE.DEADLINE_EXCEEDED, "stream timeout", DeadlineExceededError, "gateway", NEVER, PERHAPS),
    (CODE.UNAVAILABLE, "upstream request timeout", DeadlineExceededError, "gateway", NEVER, PERHAPS),
    (CODE.UNAVAILABLE, "no healthy upstream", UnreachableError, "gateway", LATER, NOT),
    (CODE.UNAVAILABLE, "disconnect/reset, reset reason: connection failure", UnreachableError, "gateway", LATER, NOT),
    (CODE.UNAVAILABLE, "disconnect/reset, reset reason: connection end", UnreachableError, "gateway", LATER, PERHAPS),
    (CODE.UNAVAILABLE, "disconnect/reset, reset reason: overflow", OverloadedError, "gateway", LATER, NOT),
    (CODE.UNAVAILABLE, "local_rate_limited", OverloadedError, "gateway", LATER, NOT),
    (
        CODE.RESOURCE_EXHAUSTED,
        "Stream removed (CLIENT: Received message larger than max (5 vs. 4))",
        ServerError,
        "client",
        NEVER,
        PERHAPS,
    ),
    (
        CODE.INTERNAL,
        "Stream removed (Compression algorithm 'gzip' is disabled.)",
        ServerError,
        "client",
        NEVER,
        PERHAPS,
    ),
    (
        CODE.UNIMPLEMENTED,
        "ModelInfer RPC doesn't support models with decoupled transaction policy",
        InvalidInputError,
        "server",
        NEVER,
        NOT,
    ),
    # connections that broke
    (CODE.UNAVAILABLE, "Socket closed", UnreachableError, "connection", LATER, PERHAPS),
    (CODE.UNAVAILABLE, "Stream removed (Socket closed)", UnreachableError, "connection", LATER, PERHAPS),
    (CODE.UNAVAILABLE, "keepalive watchdog timeout", UnreachableError, "connection", LATER, PERHAPS),
    (CODE.UNAVAILABLE, "GOAWAY received; Error code: 0; Debug Text:", UnreachableError, "connection", LATER, NOT),
    (CODE.UNAVAILABLE, "GOAWAY received; Error code: 2; Debug Text:", UnreachableError, "connection", LATER, PERHAPS),
    (
        CODE.UNAVAILABLE,
        "Stream removed (Socket closed (GOAWAY received; Error code: 0; Debug Text: ))",
        UnreachableError,
        "connection",
        LATER,
        PERHAPS,
    ),
    (
        CODE.UNAVAILABLE,
        "Stream removed (recvmsg:Connection reset by peer (104) (GOAWAY received; Error code: 0; Debug Text: ))",
        UnreachableError,
        "connection",
        LATER,
        PERHAPS,
    ),
    (CODE.UNAVAILABLE, RESET.format(7), UnreachableError, "connection", LATER, PERHAPS),
    (CODE.INTERNAL, RESET.format(2), UnreachableError, "connection", LATER, PERHAPS),
    (CODE.CANCELLED, RESET.format(8), UnreachableError, "connection", LATER, PERHAPS),
    (CODE.RESOURCE_EXHAUSTED, RESET.format(11), OverloadedError, "gateway", LATER, NOT),
    (CODE.PERMISSION_DENIED, RESET.format(12), UnreachableError, "tls", NEVER, NOT),
    (CODE.INTERNAL, RESET.format(13), UnreachableError, "gateway", NEVER, NOT),
    (CODE.UNKNOWN, CUT, UnreachableError, "gateway", LATER, PERHAPS),
    (CODE.UNKNOWN, "No status received", UnreachableError, "gateway", LATER, PERHAPS),
    # connections that could not be made
    (CODE.UNAVAILABLE, f"{REFUSED}Connection refused", UnreachableError, "connection", LATER, NOT),
    (CODE.UNAVAILABLE, f"{REFUSED}Network is unreachable", UnreachableError, "connection", LATER, NOT),
    (CODE.UNAVAILABLE, f"{REFUSED}Socket closed", UnreachableError, "connection", LATER, NOT),
    (
        CODE.UNAVAILABLE,
        f"{REFUSED}timed out before receiving SETTINGS frame",
        UnreachableError,
        "connection",
        LATER,
        NOT,
    ),
    (
        CODE.UNAVAILABLE,
        f"{REFUSED}Handshake read failed (Endpoint closing)",
        UnreachableError,
        "connection",
        LATER,
        NOT,
    ),
    (CODE.UNAVAILABLE, f"{REFUSED}HTTP proxy returned response code 403", UnreachableError, "gateway", LATER, NOT),
    (CODE.UNAVAILABLE, f"{REFUSED}an http1.x server (HTTP status 400)", UnreachableError, "gateway", NEVER, NOT),
    (CODE.UNAVAILABLE, f"{REFUSED}Expected SETTINGS frame as the first", UnreachableError, "gateway", NEVER, NOT),
    (CODE.UNAVAILABLE, "errors resolving h:1: Domain name not found", UnreachableError, "resolver", LATER, NOT),
    (CODE.UNAVAILABLE, "DNS resolution failed for h:1: timed out", UnreachableError, "resolver", LATER, NOT),
    (CODE.UNAVAILABLE, f"{REFUSED}Hostname Verification Check failed.", UnreachableError, "tls", NEVER, NOT),
    (
        CODE.UNAVAILABLE,
        f"{REFUSED}CERTIFICATE_VERIFY_FAILED: certificate has expired",
        UnreachableError,
        "tls",
        NEVER,
        NOT,
    ),
    (CODE.UNAVAILABLE, f"{REFUSED}CERTIFICATE_VERIFY_FAILED: self signed", UnreachableError, "tls", NEVER, NOT),
    (CODE.UNAVAILABLE, f"{REFUSED}Tls handshake failed: WRONG_VERSION_NUMBER", UnreachableError, "tls", NEVER, NOT),
    (CODE.UNAVAILABLE, f"{REFUSED}Cannot check peer: missing selected ALPN", UnreachableError, "tls", NEVER, NOT),
    (CODE.UNAVAILABLE, f"{REFUSED}Tls handshake failed: TLSV1_ALERT_UNKNOWN_CA", UnreachableError, "tls", NEVER, NOT),
    (CODE.UNAVAILABLE, f"{REFUSED}Tls handshake failed: ALERT_PROTOCOL_VERSION", UnreachableError, "tls", NEVER, NOT),
]


@pytest.mark.parametrize(("code", "details", "kind", "source", "transient", "may_have_run"), ROWS)
def test_who_ended_a_call_and_what_follows(code, details, kind, source, transient, may_have_run):
    error = from_rpc(Rpc(code, details), SENT)
    assert type(error) is kind
    assert (error.source, error.transient, error.may_have_run) == (source, transient, may_have_run)
    assert (error.model, error.endpoint, error.status, error.details) == ("m", "host:8001", code.name, details)
    assert "host" in str(error)
    assert "{" not in str(error).replace("headers={", "")


@pytest.mark.parametrize("trailing", [False, True])
def test_an_answer_cut_short_is_a_page_where_it_has_headers_of_one(trailing):
    headers = (("server", "nginx"), ("content-length", "36"))
    error = from_rpc(Rpc(CODE.UNKNOWN, CUT, *(((), headers) if trailing else (headers, ()))), SENT)
    assert (type(error), error.source, error.http_status, error.transient) == (UnreachableError, "gateway", 200, False)


def test_a_connection_that_ends_at_large_headers_is_not_tried_again():
    """HAProxy says so; small headers with the same end are those of a server that died."""
    ended = Rpc(CODE.UNAVAILABLE, "Stream removed (GOAWAY received; Error code: 2; Debug Text: )")
    assert from_rpc(ended, Sent(header_bytes=500)).transient
    error = from_rpc(ended, Sent(header_bytes=20_000))
    assert (type(error), error.transient) == (InvalidInputError, False)
    assert "20000" in str(error)


def test_a_connection_closed_at_once_names_what_this_client_did_not_give():
    closed = Rpc(CODE.UNAVAILABLE, f"{REFUSED}Socket closed")
    words = {None: "tls=TLS(ca=", TLS(): "cert=FILE", TLS(cert="me.pem", key="me.key"): "'me.pem'"}
    for tls, remedy in words.items():
        error = from_rpc(closed, Sent(endpoint="h:1", tls=tls))
        assert remedy in str(error)
        assert error.source == ("tls" if tls else "connection")


def test_health_checks_take_a_server_out_that_cannot_answer_and_leave_one_in_that_will_not():
    down = [CODE.UNAVAILABLE, "Socket closed"], [CODE.UNAVAILABLE, "x"], [CODE.UNAVAILABLE, "shutting down"]
    up = [CODE.PERMISSION_DENIED, "not you"], [CODE.UNIMPLEMENTED, "Received http2 header with status: 404"]
    assert [is_down(Rpc(*end)) for end in (*down, *up)] == [True, True, True, False, False]
