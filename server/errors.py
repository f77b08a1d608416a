"""The errors of starting and running a server.

TritonServerError
├── EnvironmentNotFitError   this Python environment cannot run the embedded server
├── ServerStartError         the server did not become ready; the reason comes from its log
└── ServerDiedError          the server ended while it was in use
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class TritonServerError(Exception):
    """Base of all errors of this package; the message is one sentence for a person."""


class EnvironmentNotFitError(TritonServerError):
    """This Python environment cannot run the embedded server; says what to install or pin.

    `needs` is the package or library that is lacking or of another release, `found` the releases that are there.
    """

    def __init__(self, message: str, *, needs: str, found: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.needs = needs
        self.found = tuple(found)


class ServerStartError(TritonServerError):
    """Triton did not become ready; carries the reason found in its log.

    `option` names the argument of TritonServer that is to blame, where one is; `models` has the reason of each model
    that failed to load.
    """

    def __init__(self, message: str, *, option: str | None = None, models: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.option = option
        self.models = dict(models or {})


class ServerDiedError(TritonServerError):
    """Triton ended by itself while it was in use; `reason` is the signal, the reason in its log, or its exit status."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Triton ended by itself: {reason}")
        self.reason = reason
