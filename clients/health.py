"""Health checks: which servers of a client are up, asked in the background where it has several."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from .connection import Connection
from .failures import is_down
from .servers import PROBES_MISSED, Server

PROBE_EVERY_S = 1.0
PROBE_TIMEOUT_S = 1.0


async def probe_for_ever(connection: Connection[Any, Any, Any]) -> None:
    """Ask every server for its health in turn; keeps the rotation up to date until the client is closed."""
    with contextlib.suppress(ValueError):  # what the use of a closed client raises
        while True:
            await connection.pause(PROBE_EVERY_S)
            for server in connection.rotation().servers:
                await probe(connection, server)


async def probe(connection: Connection[Any, Any, Any], server: Server) -> None:
    """Ask one server, and give it up where it has answered nothing at all for some time."""
    rotation, request = connection.rotation(), service_pb2.ServerReadyRequest()
    reply = await connection.send(server, server.stub.ServerReady, request, PROBE_TIMEOUT_S, connection.metadata())
    if not isinstance(reply, grpc.RpcError):
        server.missed = 0
        rotation.mark(server, up=bool(reply.ready))
        return
    server.missed += 1
    if reply.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
        # It may answer, if only that health is not ours to ask.
        rotation.mark(server, up=not is_down(reply))
    # A machine that is merely busy answers something: only complete silence counts.
    elif time.monotonic() - server.answered_s >= PROBE_TIMEOUT_S and rotation.has_other(server):
        rotation.mark(server, up=False)
        if server.missed == PROBES_MISSED:
            connection.abandon(server)
