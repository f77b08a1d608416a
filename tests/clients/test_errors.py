"""Statuses and words of servers, as the errors that they become."""

import grpc
import pytest

from clients import errors
from clients.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    ServerError,
    Unreachable,
)

CODE = grpc.StatusCode


class Rpc(grpc.RpcError):
    def __init__(self, code, details):
        self._code, self._details = code, details

    def code(self):
        return self._code

    def details(self):
        return self._details


# What Triton 2.51 and gRPC 1.85 said in the tests beside this one, and two that proxies say.
SAID = [
    (CODE.UNAVAILABLE, "Exceeds maximum queue size", Overloaded, "send fewer requests at a time"),
    (CODE.UNAVAILABLE, "Request timeout expired", Overloaded, "add servers"),
    (CODE.RESOURCE_EXHAUSTED, "too many requests", Overloaded, "send fewer"),
    (CODE.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)", InvalidInput, "smaller batches"),
    (CODE.UNAVAILABLE, "Socket closed", Unreachable, "want TLS"),
    (CODE.UNAVAILABLE, "failed to connect to all addresses; last error: Connection refused", Unreachable, "running"),
    (CODE.UNAVAILABLE, "UNKNOWN: h:1: timed out before receiving SETTINGS frame", Unreachable, "hang there"),
    (CODE.UNAVAILABLE, "UNAVAILABLE: h:1: Handshake read failed (Endpoint closing)", Unreachable, "hang there"),
    (CODE.UNAVAILABLE, "errors resolving http://h:1: [Misformatted domain name]", Unreachable, "leave http://"),
    (CODE.UNAVAILABLE, "Tls handshake failed: OPENSSL_internal:CERTIFICATE_VERIFY_FAILED", Unreachable, "tls="),
    (CODE.UNAVAILABLE, "Request for unknown model: 'm' version 1 is not at ready state", ModelNotReady, "load it"),
    (CODE.NOT_FOUND, "Request for unknown model: 'm' has no available versions", ModelNotReady, "wait"),
    (CODE.NOT_FOUND, "Request for unknown model: 'm' is not found", ModelNotFound, "has no model 'm'"),
    (
        CODE.UNAVAILABLE,
        "This protocol is restricted, expecting header 'triton-grpc-protocol-admin'",
        ServerError,
        "pass headers={'triton-grpc-protocol-admin': KEY}",
    ),
    (CODE.UNAUTHENTICATED, "no token", ServerError, "authorization"),
    (CODE.INVALID_ARGUMENT, "unexpected shape for input 'x'", InvalidInput, "unexpected shape"),
    (CODE.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceeded, "within 2 s: raise timeout_s"),
    (CODE.CANCELLED, "Channel closed!", ServerError, "the client was closed"),
    (
        CODE.UNKNOWN,
        "Stream removed (Data frame with END_STREAM flag received)",
        Unreachable,
        "in the middle of an answer",
    ),
    (CODE.INTERNAL, "Received RST_STREAM with error code 2", Unreachable, "middle of an answer"),
    (CODE.UNKNOWN, "the model raised", ServerError, "(UNKNOWN): the model raised"),
    (CODE.INTERNAL, "the model raised", ServerError, "(INTERNAL): the model raised"),
]


@pytest.mark.parametrize(("code", "details", "kind", "words"), SAID)
def test_every_error_names_model_endpoint_status_and_what_to_do(code, details, kind, words):
    error = errors.from_rpc(Rpc(code, details), model="m", endpoint="host:8001", timeout_s=2.0)
    assert type(error) is kind
    assert words in str(error)
    assert "host:8001" in str(error)
    assert (error.model, error.endpoint, error.status, error.details) == ("m", "host:8001", code.name, details)
