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
    "" for a request that never left.
    """

    def __init__(self, message: str, *, model: str = "", endpoint: str = "", status: str = "") -> None:
        super().__init__(message)
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


def is_connection_failure(error: grpc.RpcError) -> bool:
    """Whether there is no server behind the connection, or no connection."""
    return _classify(error.code(), error.details() or "", "", "", None)[0] is Unreachable


def from_rpc(error: grpc.RpcError, *, model: str, endpoint: str, timeout_s: float | None) -> InferenceError:
    """The error of this package for a failed RPC, worded for the person who reads it."""
    status = error.code()
    details = (error.details() or "").strip()
    kind, message = _classify(status, details, model, endpoint, timeout_s)
    return kind(message, model=model, endpoint=endpoint, status=status.name)


def _classify(
    status: grpc.StatusCode, details: str, model: str, endpoint: str, timeout_s: float | None
) -> tuple[type[InferenceError], str]:
    code = grpc.StatusCode
    if status is code.INVALID_ARGUMENT:
        return InvalidInput, f"'{model}' refused the request: {details}"
    if status is code.NOT_FOUND:
        return ModelNotFound, f"{endpoint} has no model '{model}': {details}"
    if status is code.DEADLINE_EXCEEDED:
        return DeadlineExceeded, (
            f"no answer from '{model}' at {endpoint} within {round(timeout_s or 0, 2):g} s: raise timeout_s"
        )
    if status is code.UNAVAILABLE:
        if any(words in details for words in _QUEUE_WORDS):
            return Overloaded, f"'{model}' at {endpoint} is overloaded ({details}): send fewer requests at a time"
        if "unknown model" in details or "not ready" in details:
            return ModelNotReady, f"'{model}' at {endpoint} is not ready: {details}"
        return Unreachable, f"cannot reach {endpoint}: {details}; is the server running there?"
    return ServerError, f"'{model}' at {endpoint} failed ({status.name}): {details}"
