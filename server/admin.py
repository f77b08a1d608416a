"""The admin token of a server on this machine, for the other commands of the user who started it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from server import leftovers
from server.command import GRPC_ADMIN_HEADER
from server.supervisor import STATE

VARIABLE = "FATHOM_ADMIN_TOKEN"
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def given_token() -> str | None:
    """The token in the environment; None where there is none."""
    return os.environ.get(VARIABLE) or None


def headers(endpoint: str) -> dict[str, str]:
    """The gRPC metadata that lets a caller administer the server at `host:port`; empty where no token is known.

    The environment's token comes first, then that of this user's embedded server which listens there.
    """
    token = given_token() or _kept_token(endpoint)
    return {GRPC_ADMIN_HEADER: token} if token else {}


def _kept_token(endpoint: str) -> str | None:
    host, _, port = endpoint.rpartition(":")
    if host not in _LOOPBACK:
        return None
    for folder in Path(tempfile.gettempdir()).glob(f"{leftovers.RUN_DIR_PREFIX}*"):
        try:
            if {folder.lstat().st_uid, (folder / STATE).lstat().st_uid} != {os.geteuid()} or leftovers.is_left(folder):
                continue
            state = json.loads((folder / STATE).read_text())
        except OSError:  # of another user, or gone meanwhile
            continue
        if str(state["grpc_port"]) == port:
            return str(state["admin_token"])
    return None
