"""What a call can end with instead of an answer.

InferenceError
├── InvalidInput        the request does not fit the model; nothing to retry
├── ModelNotFound       the server has no such model or version
├── ModelNotReady       the model exists but is not loaded, or still warming up
├── Overloaded          the server refused the request because its queue was full or the wait in it too long
├── DeadlineExceeded    no answer within the deadline, the client's or a gateway's
├── Unreachable         no connection to the server, or it broke, or no gRPC server answers there
└── ServerError         the server failed while it ran the request
"""

from __future__ import annotations

from typing import Any, Literal

Source = Literal["client", "resolver", "connection", "tls", "gateway", "server"]


class InferenceError(Exception):
    """Base of all errors of this package.

    `model` and `endpoint` say where it happened (empty where that is not known), `status` is the gRPC status name, or
    "" for a request that never left, and `details` is what gRPC or the server said in its own words. `source` says who
    ended the call, and `http_status` is what a gateway answered instead of gRPC (0: nothing of the kind). `transient`:
    a later try, or another server, may answer. `may_have_run`: the request may have reached a model.
    """

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


class InvalidInput(InferenceError):  # noqa: N818 - the field's word reads better than InvalidInputError
    """The request does not fit the model: a name, dtype, shape or value. Raised before sending where possible.

    `tensor` is the name of the input or output that does not fit, as the caller gave it, and `expected` the type and
    shape that it must have, such as "FP32 [batch, 2]". Both are "" where the error is not about one tensor, or comes
    from the server.
    """

    def __init__(self, message: str, *, tensor: str = "", expected: str = "", **about: Any) -> None:
        super().__init__(message, **about)
        self.tensor = tensor
        self.expected = expected


class ModelNotFound(InferenceError):  # noqa: N818
    """The server has no model, or no version, of that name. `served` are the models that it has, where it said so."""

    served: tuple[str, ...] = ()


class ModelNotReady(InferenceError):  # noqa: N818
    """The server knows the model, but it is not loaded."""


class Overloaded(InferenceError):  # noqa: N818
    """The server refused the request: its queue was full, or the request waited in it too long."""


class DeadlineExceeded(InferenceError):  # noqa: N818
    """No answer within the deadline, and the request is cancelled on the server too; or a gateway gave up waiting."""


class Unreachable(InferenceError):  # noqa: N818
    """No connection to a gRPC server could be made, or it broke."""


class ServerError(InferenceError):
    """The server failed while it ran the request."""
