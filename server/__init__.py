"""Start and stop a real Triton Inference Server on this machine."""

from server.command import TritonOptions, triton_command
from server.errors import EnvironmentNotFitError, ServerDiedError, ServerStartError, TritonServerError
from server.triton import TritonServer

__all__ = [
    "EnvironmentNotFitError",
    "ServerDiedError",
    "ServerStartError",
    "TritonOptions",
    "TritonServer",
    "TritonServerError",
    "triton_command",
]
