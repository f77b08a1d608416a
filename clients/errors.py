"""What a call can end with instead of an answer.

InferenceError
├── InvalidInput        the request does not fit the model; nothing to retry
├── ModelNotFound       the server has no such model or version
├── ModelNotReady       the model exists but is not loaded, or still warming up
├── Overloaded          the server refused the request because its queue was full or the wait in it too long
├── DeadlineExceeded    no answer within the deadline; the request was cancelled on the server too
├── Unreachable         no connection to the server
└── ServerError         the server failed while it ran the request
"""

from __future__ import annotations

import grpc


class InferenceError(Exception):
    """Base of all errors of this package.

    `model` and `endpoint` say where it happened (empty where that is not known), `status` is the gRPC status name, or
    "" for a request that never left, and `details` is what gRPC or the server said in its own words.
    """

    def __init__(
        self, message: str, *, model: str = "", endpoint: str = "", status: str = "", details: str = ""
    ) -> None:
        super().__init__(message)
        self.details = details
        self.model = model
        self.endpoint = endpoint
        self.status = status


class InvalidInput(InferenceError):  # noqa: N818 - the field's word reads better than InvalidInputError
    """The request does not fit the model: a name, dtype, shape or value. Raised before sending where possible."""


class ModelNotFound(InferenceError):  # noqa: N818
    """The server has no model, or no version, of that name."""


class ModelNotReady(InferenceError):  # noqa: N818
    """The server knows the model, but it is not loaded."""


class Overloaded(InferenceError):  # noqa: N818
    """The server refused the request: its queue was full, or the request waited in it too long."""


class DeadlineExceeded(InferenceError):  # noqa: N818
    """No answer within the deadline; the request is cancelled on the server too."""


class Unreachable(InferenceError):  # noqa: N818
    """No connection to the server could be made, or it broke."""


class ServerError(InferenceError):
    """The server failed while it ran the request."""


_QUEUE_WORDS = ("Exceeds maximum queue size", "Request timeout expired")
_SILENCE_WORDS = ("before receiving SETTINGS frame", "Handshake read failed (Endpoint closing)")  # the latter with TLS
# Of a stream that ended without a status: a proxy whose server died in the middle of the answer does that.
_BROKEN_WORDS = ("Stream removed", "RST_STREAM")
_UNLOADED_WORDS = ("unknown model", "not ready", "has no available versions")


def is_connection_failure(error: grpc.RpcError) -> bool:
    """Whether there is no server behind the connection, or no connection."""
    return _classify(error.code(), error.details() or "", "", "", None)[0] is Unreachable


def is_silence(details: str) -> bool:
    """Whether gRPC says of a connection that it was taken, and then not a word came: what a server that hangs does."""
    return any(words in details for words in _SILENCE_WORDS)


def from_rpc(error: grpc.RpcError, *, model: str, endpoint: str, timeout_s: float | None) -> InferenceError:
    """The error of this package for a failed RPC, worded for the person who reads it."""
    status = error.code()
    details = (error.details() or "").strip()
    kind, message = _classify(status, details, model, endpoint, timeout_s)
    return kind(message, model=model, endpoint=endpoint, status=status.name, details=details)


def from_text(text: str, *, model: str, endpoint: str) -> InferenceError:
    """The error for a failure inside a stream, of which Triton gives the text alone."""
    busy = any(words in text for words in _QUEUE_WORDS)
    kind, message = _classify(
        grpc.StatusCode.UNAVAILABLE if busy else grpc.StatusCode.UNKNOWN, text, model, endpoint, None
    )
    return kind(message, model=model, endpoint=endpoint, details=text)


def _classify(
    status: grpc.StatusCode, details: str, model: str, endpoint: str, timeout_s: float | None
) -> tuple[type[InferenceError], str]:
    code = grpc.StatusCode
    at = f"'{model}' at {endpoint}" if model else endpoint
    if status is code.INVALID_ARGUMENT:
        return InvalidInput, f"{at} refused the request: {details}"
    if status is code.NOT_FOUND and "has no available versions" not in details:
        return ModelNotFound, f"{endpoint} has no model '{model}': {details}"
    if status is code.DEADLINE_EXCEEDED:
        within = f"no answer from {at} within {'?' if timeout_s is None else f'{timeout_s:.3g}'} s"
        return DeadlineExceeded, f"{within}: raise timeout_s, send less at a time, or see whether it hangs"
    if status is code.RESOURCE_EXHAUSTED and "larger than max" in details:
        return InvalidInput, f"{at}: the message is too large ({details}): send smaller batches"
    if status is code.RESOURCE_EXHAUSTED or (status is code.UNAVAILABLE and any(w in details for w in _QUEUE_WORDS)):
        return Overloaded, f"{at} is overloaded ({details}): send fewer requests at a time, or add servers"
    if "protocol is restricted" in details:
        header = details.partition("expecting header '")[2].partition("'")[0] or "triton-grpc-protocol-..."
        return ServerError, f"{at} wants a key for this: pass headers={{'{header}': KEY}} ({details})"
    if status in (code.UNAVAILABLE, code.NOT_FOUND):
        if any(words in details for words in _UNLOADED_WORDS):
            return ModelNotReady, f"{at} is not ready: {details}; load it, or wait until it is loaded"
        return Unreachable, f"cannot reach {endpoint}: {_why(details)}"
    if status in (code.UNAUTHENTICATED, code.PERMISSION_DENIED):
        return ServerError, f"{at} refused access ({status.name}): {details}; pass headers={{'authorization': TOKEN}}"
    if status in (code.UNKNOWN, code.INTERNAL) and any(words in details for words in _BROKEN_WORDS):
        return Unreachable, f"cannot reach {endpoint}: the connection broke in the middle of an answer ({details})"
    if status is code.CANCELLED:
        return ServerError, f"the request to {at} was cancelled: the client was closed, or the server gave it up"
    return ServerError, f"{at} failed ({status.name}): {details}"


def _why(details: str) -> str:
    """gRPC's account of a failed connection in few words; `InferenceError.details` keeps all of it."""
    if "handshake failed" in details:
        reason = details.rpartition("OPENSSL_internal:")[2] or details
        return f"the TLS handshake failed ({reason}); check tls=clients.TLS(ca=..., cert=..., key=..., server_name=...)"
    for words in ("Socket closed", "Connection reset"):
        if words in details:
            return (
                f"{words.lower()}; it may be restarting, want TLS or another certificate (tls=clients.TLS(...)), or be "
                "no gRPC port"
            )
    if is_silence(details):
        return "it takes connections but answers nothing; does the server hang there, or is that no gRPC port?"
    if "Misformatted domain name" in details:
        return "that is no host:port; leave http:// and the like out"
    if "Domain name not found" in details:
        return "there is no host of that name"
    for words in ("Connection refused", "No route to host", "Network is unreachable"):
        if words in details:
            return f"{words.lower()}; is the server running there?"
    return f"{details.removeprefix('failed to connect to all addresses; last error: ')}; is the server running there?"
