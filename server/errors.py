"""What can go wrong between a model repository and a ready server.

TritonServerError
├── EnvironmentNotFitError   this Python environment cannot run the embedded server
├── ServerStartError         the server did not become ready; the reason comes from its log
└── ServerDiedError          the server ended while it was in use
"""


class TritonServerError(Exception):
    """Base of all errors of this package; the message is one sentence for a person."""


class EnvironmentNotFitError(TritonServerError):
    """This Python environment cannot run the embedded server; says what to install or pin."""


class ServerStartError(TritonServerError):
    """Triton did not become ready; carries the reason found in its log."""


class ServerDiedError(TritonServerError):
    """Triton ended by itself while it was in use."""
