"""A Triton of a test's own, for models whose config.pbtxt leaves nothing out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from server import TritonServer
from server.command import GRPC_ADMIN_HEADER

TOKEN = "the-token-of-the-tests"
HEADERS = {GRPC_ADMIN_HEADER: TOKEN}
"""Of clients that use shared memory, or change what is served, of a server with `admin_token=TOKEN`."""


def complete_server(repository: Path, *, extra: tuple[str, ...] = (), **options: Any) -> TritonServer:
    """A server that takes each config.pbtxt as it is, and ends at once.

    Triton otherwise starts a stub for each model only to complete its configuration: half of what a start takes.
    """
    extra = ("--disable-auto-complete-config", *extra)
    return TritonServer(repository, stop_timeout_s=0, extra=extra, **options)
