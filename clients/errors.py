"""The errors that a call can raise.

InferenceError
├── InvalidInputError       the request does not fit the model; nothing to retry
├── ModelNotFoundError      the server has no such model or version
├── ModelNotReadyError      the model exists but is not loaded, or still warming up
├── OverloadedError         the server refused the request because its queue was full
│   └── QueueTimeoutError   the server dropped the request because it had waited in the queue for too long
├── DeadlineExceededError   no answer within the deadline, the client's or a gateway's
├── UnreachableError        no connection to the server, or it broke, or no gRPC server answers there
└── ServerError             the server failed while it ran the request
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

Source = Literal["client", "resolver", "connection", "tls", "gateway", "server"]


class InferenceError(Exception):
    """Base of all errors of this package.

    `model` and `endpoint` say where it happened (empty where that is not known), `status` is the gRPC status name, or
    "" for a request that never left, and `details` is what gRPC or the server said in its own words. `source` says who
    ended the call, and `http_status` is what a gateway answered instead of gRPC (0: nothing of the kind). `transient`:
    a later try, or another server, may answer. `may_have_run`: the request may have reached a model. `label` is the
    error's name in metrics and results, which dashboards and programs compare.
    """

    label: ClassVar[str] = "InferenceError"

    def __init__(
        self,
        message: str,
        *,
        model: str = "",
        endpoint: str = "",
        status: str = "",
        details: str = "",
        source: Source = "client",
        http_status: int = 0,
        transient: bool = False,
        may_have_run: bool = False,
    ) -> None:
        super().__init__(message)
        self.details = details
        self.model = model
        self.endpoint = endpoint
        self.status = status
        self.source = source
        self.http_status = http_status
        self.transient = transient
        self.may_have_run = may_have_run


class InvalidInputError(InferenceError):
    """The request does not fit the model: a name, dtype, shape or value. Raised before sending where possible.

    `tensor` is the name of the input or output that does not fit, as the caller gave it, and `expected` the type and
    shape that it must have, such as "FP32 [batch, 2]". Both are "" where the error is not about one tensor, or comes
    from the server.
    """

    label = "InvalidInput"

    def __init__(self, message: str, *, tensor: str = "", expected: str = "", **about: Any) -> None:
        super().__init__(message, **about)
        self.tensor = tensor
        self.expected = expected


class ModelNotFoundError(InferenceError):
    """The server has no model, or no version, of that name. `served` lists those that it has, where it reports them."""

    label = "ModelNotFound"

    served: tuple[str, ...] = ()


class ModelNotReadyError(InferenceError):
    """The server knows the model, but it is not loaded."""

    label = "ModelNotReady"


class OverloadedError(InferenceError):
    """The server refused the request: its queue was full, or the request waited in it too long."""

    label = "Overloaded"


class QueueTimeoutError(OverloadedError):
    """The server dropped the request unanswered: it had waited for longer than the queue's time-out, or its own
    `queue_timeout_s`. It is never sent again by itself."""

    label = "QueueTimeout"


class DeadlineExceededError(InferenceError):
    """No answer within the deadline, and the request is cancelled on the server too; or a gateway gave up waiting."""

    label = "DeadlineExceeded"


class UnreachableError(InferenceError):
    """No connection to a gRPC server could be made, or it broke."""

    label = "Unreachable"


class ServerError(InferenceError):
    """The server failed while it ran the request."""

    label = "ServerError"
