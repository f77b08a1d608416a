"""The ways in which a call can fail, one row each: the error, who ended the call, the message, and two facts.

A connection that could not be made, one that broke, an HTTP status of a gateway and an answer of the server can share
the gRPC status UNAVAILABLE, and differ in whether the request may have run and whether another try can help.
"""

from __future__ import annotations

from typing import NamedTuple

import grpc

from .errors import (
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    ModelNotFoundError,
    ModelNotReadyError,
    OverloadedError,
    QueueTimeoutError,
    ServerError,
    Source,
    UnreachableError,
)


class Failure(NamedTuple):
    """`transient`: a later try, or another server, may answer. `may_have_run`: the request may have reached a model."""

    kind: type[InferenceError]
    source: Source
    message: str  # its fields: failures._error
    transient: bool = False
    may_have_run: bool = False


Table = tuple[tuple[str, Failure], ...]  # words to look for, the first that occur decide; "" for anything else


def _waits(source: Source, cause: str) -> Failure:
    """A connection that cannot be made now."""
    return Failure(UnreachableError, source, f"cannot reach {{endpoint}}: {cause}", transient=True)


def _tls(message: str) -> Failure:
    """A connection that TLS refuses, today and tomorrow."""
    return Failure(UnreachableError, "tls", message)


def _unread(message: str) -> Failure:
    """An answer that this client does not read."""
    return Failure(ServerError, "client", message, may_have_run=True)


_NOT_GRPC = "what answers at {endpoint} is not gRPC ({details}): give the server's gRPC port (Triton's is 8001)"
_HTTP1 = Failure(UnreachableError, "gateway", _NOT_GRPC)
PAGE = Failure(
    UnreachableError, "gateway", "{endpoint} answers with a page instead of gRPC: give the server's gRPC port"
)
CLOSED_PLAIN = _waits(
    "connection",
    "it closes connections at once: it may require TLS (tls=TLS(ca=FILE)), be restarting, or not be a gRPC port",
)
CLOSED_TLS = _waits(
    "tls",
    "it closes connections at once: it may require a certificate (tls=TLS(..., cert=FILE, key=FILE)), or be restarting",
)
CLOSED_MUTUAL = _waits(
    "tls",
    "it closes connections at once: it may not trust cert='{cert}' of TLS(...), that may have expired, or it is "
    "restarting",
)
SILENT = _waits("connection", "it accepts connections but does not answer: it may hang, or not be a gRPC port")
_UNTRUSTED = _tls(
    "cannot trust {endpoint}: its certificate is not signed by {ca} ({reason}): pass tls=TLS(ca=FILE) with the "
    "authority that signed it, or with a self-signed certificate itself"
)
_OTHER_NAME = _tls(
    "cannot trust {endpoint}: its certificate is not for {name}: connect by a name in the certificate, or pass "
    "tls=TLS(..., server_name=NAME) with such a name"
)
_EXPIRED = _tls("cannot trust {endpoint}: its certificate, or its authority's, has expired: renew it on the server")
_TOO_YOUNG = _tls("cannot trust {endpoint}: its certificate is not valid yet: check the clocks of both machines")
_REJECTED = _tls("{endpoint} rejects this client's certificate ({reason}): check TLS(cert=FILE, key=FILE)")
_PLAIN = _tls("{endpoint} does not speak TLS: leave tls= out, or start the server with it (Triton: --grpc-use-ssl=1)")
_NO_ALPN = _tls("{endpoint} speaks TLS but no HTTP/2: give its gRPC port, or let the gateway offer HTTP/2 (ALPN h2)")
_BAD_PEM = _tls("gRPC cannot use the PEM files of TLS(...) for {endpoint}: check ca, cert and key")
_HANDSHAKE = _tls(
    "the TLS handshake with {endpoint} failed ({reason}): check that both have TLS 1.2 or 1.3, and TLS(...)"
)
_BAD_NAME = Failure(UnreachableError, "client", "{details}: give 'host:port' without http:// or the like")

# gRPC's words where no connection could be made, so that no request was sent.
NO_CONNECTION: Table = (
    ("HTTP proxy", _waits("gateway", "{details}")),
    ("Hostname Verification Check failed", _OTHER_NAME),
    ("Failed to create security handshaker", _BAD_PEM),
    ("certificate has expired", _EXPIRED),
    ("not yet valid", _TOO_YOUNG),
    ("CERTIFICATE_VERIFY_FAILED", _UNTRUSTED),
    ("WRONG_VERSION_NUMBER", _PLAIN),
    ("ALPN", _NO_ALPN),
    ("ALERT_CERTIFICATE", _REJECTED),
    ("ALERT_UNKNOWN_CA", _REJECTED),
    ("ALERT_BAD_CERTIFICATE", _REJECTED),
    ("handshake failed", _HANDSHAKE),
    ("http1.x", _HTTP1),
    ("Expected SETTINGS frame", _HTTP1),
    ("Misformatted domain name", _BAD_NAME),
    ("Unparsable name", _BAD_NAME),
    ("Failed to parse port", _BAD_NAME),
    ("target uri is not valid", _BAD_NAME),
    ("Domain name not found", _waits("resolver", "there is no host named {host}: check the name")),
    ("Could not contact DNS", _waits("resolver", "no DNS server answers: check the network and /etc/resolv.conf")),
    ("resol", _waits("resolver", "{details}: check the name")),
    ("No such file", _waits("connection", "there is no socket of that name: check the path; is the server running?")),
    ("Connection refused", _waits("connection", "connection refused; is the server running there?")),
    ("handshaker shutdown", _waits("connection", "nothing answers there: check the address, and firewalls on the way")),
    ("", _waits("connection", "{details}; check the address, and that the server runs")),
)

# How gRPC begins what it says of an answer that it does not read.
UNREAD: Table = (
    (
        "CLIENT: Received message larger",
        _unread("{at} sent too large an answer ({details}): request less at a time, or raise max_answer_bytes"),
    ),
    (
        "Compression algorithm",
        _unread("{at} sent a compressed answer ({details}): turn compression off there, since it hides the size"),
    ),
)
_CUT = Failure(
    UnreachableError,
    "gateway",
    "the answer of {at} ended without a gRPC status ({details}): its server died meanwhile, a gateway's time-out "
    "passed, or one drops gRPC's trailers (nginx: grpc_pass, HAProxy: proto h2)",
    transient=True,
    may_have_run=True,
)
_BROKEN = Failure(
    UnreachableError,
    "connection",
    "cannot reach {endpoint}: the connection broke before the answer was complete ({details})",
    transient=True,
    may_have_run=True,
)
# gRPC's words where a connection broke under a request. A GOAWAY of error code 0 is a connection's usual end, of which
# gRPC tells the requests that were not looked at; of the others, where it closes before their end. RST_STREAM 7
# (REFUSED_STREAM) should mean that a request was not looked at, but HAProxy sends it for a server that died with it.
BROKEN: Table = (
    ("Socket closed (GOAWAY", _BROKEN),
    (") (GOAWAY", _BROKEN),
    ("http1.x", Failure(UnreachableError, "gateway", _NOT_GRPC, may_have_run=True)),
    (
        "metadata size exceeds",
        Failure(
            ServerError, "server", "the headers of {endpoint}'s answer are too large ({details})", may_have_run=True
        ),
    ),
    (
        "Error code: 0",
        Failure(UnreachableError, "connection", "{at} did not look at the request ({details})", transient=True),
    ),
    ("error code 11", Failure(OverloadedError, "gateway", "{at} asks for fewer requests ({details})", transient=True)),
    ("error code 12", _tls("{endpoint} refuses this TLS connection ({details}): check its TLS settings")),
    ("error code 13", _HTTP1),
    ("END_STREAM", _CUT),
    ("No status received", _CUT),
    ("", _BROKEN),
)

FULL = Failure(
    OverloadedError,
    "server",
    "{at} is overloaded ({details}): send fewer requests at a time, or add servers",
    transient=True,
)
_STALE = Failure(
    QueueTimeoutError,
    "server",
    "{at} dropped the request, which had waited in the queue for too long ({details}): send fewer requests at a time, "
    "add servers, or allow it a longer queue_timeout_s",
    transient=True,
)
_LIMITED = Failure(
    OverloadedError,
    "gateway",
    "the gateway at {endpoint} limits the rate ({details}): send fewer requests",
    transient=True,
)
_TIMED_OUT = Failure(
    DeadlineExceededError,
    "gateway",
    "the gateway at {endpoint} timed out waiting for the server ({details}), and the request may still run: raise the "
    "gateway's time-out above timeout_s, or send less at a time",
    may_have_run=True,
)
_UNANSWERED = Failure(
    DeadlineExceededError,
    "client",
    "no {answer} from {at} within {within} s: raise timeout_s, send less at a time, or see whether it hangs",
    may_have_run=True,
)
_IDLE = Failure(
    DeadlineExceededError,
    "client",
    "{at} has sent nothing for {within} s: raise idle_timeout_s, or see whether it hangs",
    may_have_run=True,
)
UNFINISHED = Failure(
    ServerError,
    "server",
    "the answer of {at} is incomplete: it ended without the model's final response ({details}): see the log there",
    transient=True,
    may_have_run=True,
)
_NO_SERVER = Failure(
    UnreachableError,
    "gateway",
    "the gateway at {endpoint} has no server for the request ({details}): check that one runs behind it",
    transient=True,
)
_LOST_SERVER = Failure(
    UnreachableError,
    "gateway",
    "the gateway at {endpoint} lost the server behind it, or cannot read its answer ({details}): check that it runs",
    transient=True,
    may_have_run=True,
)
_UNLOADED = Failure(
    ModelNotReadyError, "server", "{at} is not ready: {details}; load it, or wait until it is loaded", transient=True
)
_ENDING = Failure(
    ModelNotReadyError, "server", "{endpoint} is shutting down ({details}): wait until it is restarted", transient=True
)
_UNAVAILABLE = Failure(
    UnreachableError,
    "server",
    "{at} says that it is unavailable ({details}): the request may have run; see the log there",
    may_have_run=True,
)
_REFUSED = Failure(
    ServerError, "server", "{at} refused access ({status}): {details}; pass headers={{'authorization': TOKEN}}"
)
HEADERS = Failure(
    InvalidInputError, "server", "{endpoint} refuses headers of {bytes} bytes ({details}): send fewer or shorter ones"
)
RESTRICTED = Failure(
    ServerError, "server", "{at} requires a key for this: pass headers={{'{header}': KEY}} ({details})"
)
_DECOUPLED = Failure(InvalidInputError, "server", "{at} streams its answers: call stream() ({details})")
_CLOSED = Failure(ServerError, "client", "the client was closed before {at} had answered", may_have_run=True)
FAILED = Failure(ServerError, "server", "{at} failed ({status}): {details}", may_have_run=True)
STREAM_FAILED = FAILED._replace(message="{at} failed: {details}")

# What comes with a gRPC status: from Triton, or from a gateway that speaks gRPC (Envoy's words).
_CODE = grpc.StatusCode
SAID: dict[grpc.StatusCode, Table] = {
    _CODE.UNAVAILABLE: (
        ("Exceeds maximum queue size", FULL),
        ("Request timeout expired", _STALE),
        ("unknown model", _UNLOADED),
        ("not ready", _UNLOADED),
        ("has no available versions", _UNLOADED),
        ("shutting down", _ENDING),
        ("stopped accepting new inference requests", _ENDING),
        ("no healthy upstream", _NO_SERVER),
        ("reset reason: connection failure", _NO_SERVER),
        ("reset reason: remote connection failure", _NO_SERVER),
        ("reset reason: local connection failure", _NO_SERVER),
        ("reset reason: connection timeout", _NO_SERVER),
        ("reset reason: overflow", _LIMITED),
        ("overload", _LIMITED),
        ("rate_limited", _LIMITED),
        ("rate limit", _LIMITED),
        ("too many requests", _LIMITED),
        ("disconnect/reset", _LOST_SERVER),
        ("timeout", _TIMED_OUT),
        ("timed out", _TIMED_OUT),
        ("deadline", _TIMED_OUT),
        ("", _UNAVAILABLE),
    ),
    _CODE.NOT_FOUND: (
        ("has no available versions", _UNLOADED),
        ("", Failure(ModelNotFoundError, "server", "{endpoint} has no model '{model}': {details}")),
    ),
    _CODE.INVALID_ARGUMENT: (("", Failure(InvalidInputError, "server", "{at} refused the request: {details}")),),
    _CODE.DEADLINE_EXCEEDED: (("deadline exceeded", _UNANSWERED), ("idle_timeout_s", _IDLE), ("", _TIMED_OUT)),
    _CODE.RESOURCE_EXHAUSTED: (
        (
            "larger than max",
            Failure(InvalidInputError, "server", "{at}: the message is too large ({details}): send smaller batches"),
        ),
        ("metadata size exceeds", HEADERS),
        ("", FULL),
    ),
    _CODE.UNIMPLEMENTED: (("decoupled transaction policy", _DECOUPLED),),
    _CODE.UNAUTHENTICATED: (("", _REFUSED),),
    _CODE.PERMISSION_DENIED: (("", _REFUSED),),
    _CODE.CANCELLED: (
        ("Locally cancelled", _CLOSED),
        ("Channel closed", _CLOSED),
        ("", Failure(ServerError, "server", "{at} cancelled the request ({details})", may_have_run=True)),
    ),
}

_REDIRECTED = Failure(
    UnreachableError,
    "gateway",
    "{endpoint} redirects ({details}), which gRPC does not follow: give the final address, for https with tls=",
)
NO_ROUTE = Failure(
    UnreachableError,
    "gateway",
    "{endpoint} answers {details}: no gRPC server there; check the port, and a gateway's route to "
    "/inference.GRPCInferenceService",
)
_TOO_LARGE = Failure(
    InvalidInputError, "gateway", "{endpoint} refuses so large a request ({details}): send smaller batches"
)
GATEWAY_FAILED = Failure(
    ServerError, "gateway", "the gateway at {endpoint} failed ({details}): see its log", may_have_run=True
)
# HTTP statuses of gateways. With 503 nothing has run, but some limit rates by it: a retry costs a token all the same.
# At a 504 the request may still run, so that it is not sent again.
HTTP: dict[int, Failure] = {
    **dict.fromkeys((301, 302, 303, 307, 308), _REDIRECTED),
    **dict.fromkeys((400, 404, 405, 406, 410, 411, 415, 421, 426, 464, 501, 505), NO_ROUTE),
    **dict.fromkeys((401, 403, 407), _REFUSED._replace(source="gateway")),
    **dict.fromkeys((408, 504, 524, 598), _TIMED_OUT),
    413: _TOO_LARGE,
    **dict.fromkeys((414, 431, 494), HEADERS._replace(source="gateway")),
    429: _LIMITED,
    502: _LOST_SERVER,
    **dict.fromkeys((503, 521, 522, 523), _NO_SERVER),
}
