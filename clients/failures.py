"""Translate a failed call into an error: `failure_tables` maps gRPC's status and words, by who ended the call."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import grpc

from . import failure_tables as tables
from . import failure_texts, proxies
from .errors import DeadlineExceededError, InferenceError, ModelNotReadyError, UnreachableError
from .failure_tables import Failure, Table
from .options import TLS

_LARGE_HEADERS_BYTES = 8192  # what gRPC servers and proxies take without question
_NO_CONNECTION = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "DNS resolution failed",
    "errors resolving",
    "Failed to create channel",
)
_CLOSED = ("Socket closed", "Connection reset")
_CUT = ("END_STREAM", "No status received")
# How gRPC begins what it says of a connection that broke; a server may quote it, from a connection of its own.
_BROKEN = ("Stream removed", "Received RST_STREAM", "GOAWAY received", "Failed parsing HTTP/2", "No status received")
_BROKEN_UNAVAILABLE = (  # of older versions, and of this package
    *_CLOSED,
    "recvmsg:",
    "sendmsg:",
    "Broken pipe",
    "Transport closed",
    "transport closed",
    "keepalive",
    "Keepalive",
    "ping timeout",
    "the server answers nothing",
)
_SILENCE = ("before receiving SETTINGS frame", "Handshake read failed (Endpoint closing)")  # the latter with TLS
# No gRPC server sends these with an answer.
_PAGE_HEADERS = {
    "accept-ranges",
    "cache-control",
    "content-language",
    "content-length",
    "etag",
    "last-modified",
    "set-cookie",
    "x-powered-by",
}


@dataclass(frozen=True)
class Sent:
    """What a client knows of the request that failed."""

    model: str = ""
    endpoint: str = ""
    timeout_s: float | None = None
    tls: TLS | None = None
    header_bytes: int = 0
    parts: int = 0
    """How many of a stream's answer have come."""


def from_rpc(error: grpc.RpcError, sent: Sent) -> InferenceError:
    """The error of this package for a failed RPC, worded for the person who reads it."""
    status, details = error.code(), (error.details() or "").strip()
    if _is_page(error, details):
        return _error(tables.PAGE, sent, status.name, details, 200)
    if http := re.match(r"(?:Stream removed \()?Received http2 header with status: (\d+)", details):
        number = int(http[1])
        row = tables.HTTP.get(number, tables.NO_ROUTE if number < 400 else tables.GATEWAY_FAILED)
        return _error(row, sent, status.name, details, number)
    older = re.search(r"\(HTTP status (\d+)\)", details)  # of a server that speaks HTTP/1 alone
    return _error(_look_up(status, details, sent), sent, status.name, details, int(older[1]) if older else 0)


def from_text(text: str, sent: Sent) -> InferenceError:
    """The error for a failure inside a stream, for which Triton sends a text only.

    Its `status` is the one that the same failure has outside of streams, "" where the text does not tell.
    """
    status, details = failure_texts.split(text)
    row = tables.STREAM_FAILED if status is None else _find(tables.SAID.get(status, ()), details)
    return _error(row, sent, "" if status is None else status.name, details, 0)


def unfinished(sent: Sent) -> InferenceError:
    """The error for a stream that the server ended well, but without the model's final response."""
    return _error(tables.UNFINISHED, sent, "OK", f"parts of it that came: {sent.parts}", 0)


def is_down(error: grpc.RpcError) -> bool:
    """Whether requests should go elsewhere after this failed health check."""
    found = from_rpc(error, Sent())
    unusable = isinstance(found, UnreachableError | ModelNotReadyError)
    return unusable and (found.transient or error.code() is grpc.StatusCode.UNAVAILABLE)


def is_silence(details: str) -> bool:
    """Whether gRPC reports that the server accepted a connection and then sent nothing, as a server that hangs does."""
    return any(words in details for words in _SILENCE)


def _look_up(status: grpc.StatusCode, details: str, sent: Sent) -> Failure:
    if details.startswith(_NO_CONNECTION):
        if is_silence(details):
            return tables.SILENT
        return _closed_at_once(sent) if any(w in details for w in _CLOSED) else _find(tables.NO_CONNECTION, details)
    if "protocol is restricted" in details:
        return tables.RESTRICTED
    unread = [row for words, row in tables.UNREAD if details.removeprefix("Stream removed (").startswith(words)]
    if unread:
        return unread[0]
    ended_here = status is grpc.StatusCode.DEADLINE_EXCEEDED or "Channel closed" in details
    broken = _BROKEN + (_BROKEN_UNAVAILABLE if status is grpc.StatusCode.UNAVAILABLE else ())
    if not ended_here and details.startswith(broken):
        refused = "GOAWAY" in details and "Error code: 0" not in details
        return tables.HEADERS if refused and sent.header_bytes > _LARGE_HEADERS_BYTES else _find(tables.BROKEN, details)
    return _find(tables.SAID.get(status, ()), details)


def _find(table: Table, details: str) -> Failure:
    lowered = details.lower()
    return next((row for words, row in table if words.lower() in lowered), tables.FAILED)


def _closed_at_once(sent: Sent) -> Failure:
    """Closed before HTTP/2 began: what that means depends on how this client connected."""
    if sent.tls is None:
        return tables.CLOSED_PLAIN
    return tables.CLOSED_TLS if sent.tls.cert is None else tables.CLOSED_MUTUAL


def _is_page(error: grpc.RpcError, details: str) -> bool:
    """Whether an answer of HTTP status 200 without a gRPC status has headers of a page."""
    if not any(words in details for words in _CUT):
        return False
    found = [*_metadata(error, "initial_metadata"), *_metadata(error, "trailing_metadata")]
    return not _PAGE_HEADERS.isdisjoint(name for name, _ in found)


def _metadata(error: grpc.RpcError, which: str) -> Iterable[tuple[str, str | bytes]]:
    read = getattr(error, which, None)  # not every RpcError has it
    return (read() if read is not None else None) or ()


def _error(row: Failure, sent: Sent, status: str, details: str, http_status: int) -> InferenceError:
    tls, host = sent.tls or TLS(), sent.endpoint.rpartition("/")[2].rpartition(":")[0] or sent.endpoint
    message = row.message.format(
        at=f"'{sent.model}' at {sent.endpoint}" if sent.model else sent.endpoint,
        endpoint=sent.endpoint,
        model=sent.model,
        answer="whole answer" if sent.parts else "answer",
        host=host,
        name=f"server_name '{tls.server_name}'" if tls.server_name else f"'{host}'",
        ca=f"ca='{tls.ca}'" if tls.ca else "one of gRPC's built-in authorities",
        cert=tls.cert,
        within="?" if sent.timeout_s is None else f"{sent.timeout_s:.3g}",
        bytes=sent.header_bytes,
        details=details.rpartition("last error: ")[2].replace("Received http2 header with status:", "HTTP"),
        reason=details.rpartition("OPENSSL_internal:")[2].removesuffix(": OK"),
        header=details.partition("expecting header '")[2].partition("'")[0] or "triton-grpc-protocol-...",
        status=status,
    )
    if row.kind in (UnreachableError, DeadlineExceededError) and (proxy := proxies.on_the_way_to(sent.endpoint)):
        message += f"; it was sent through {proxy}: unset that, or add '{host}' to no_proxy"
    return row.kind(
        message,
        model=sent.model,
        endpoint=sent.endpoint,
        status=status,
        details=details,
        source=row.source,
        http_status=http_status,
        transient=row.transient,
        may_have_run=row.may_have_run or sent.parts > 0,
    )
