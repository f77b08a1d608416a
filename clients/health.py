"""Health checks: which servers of a client are up and have its models ready, asked of each in the background."""

from __future__ import annotations

import itertools
import logging
import time
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from .connection import Connection
from .errors import ModelNotFoundError, ModelNotReadyError
from .failures import Sent, from_rpc, is_down
from .options import Metadata
from .servers import Rotation, Server

_log = logging.getLogger(__name__)


async def watch(connection: Connection[Any, Any, Any], rotation: Rotation, server: Server) -> None:
    """Check one server, whatever happens to the others, until the client is closed.

    A server that has left the rotation is disconnected once its calls have ended.
    """
    for turn in itertools.count():
        await connection.pause(connection.probe_every_s)
        if connection.is_closed:
            return
        if server not in rotation.servers:
            if not server.link.calls:
                await connection.cancel_in_flight(server)
                return
        elif rotation.lone is None or not server.up:
            try:
                await probe(connection, rotation, server, turn)
            except Exception:  # the next check may succeed, and without it a server would be down for good
                _log.debug("the health check of %s failed", server.address, exc_info=True)


async def probe(connection: Connection[Any, Any, Any], rotation: Rotation, server: Server, turn: int = 0) -> None:
    """Ask one server whether it is ready, and whether one of the client's models is: another one each `turn`.

    Gives the server up where it has answered nothing at all for some time.
    """
    metadata, timeout_s = _metadata(connection), connection.probe_timeout_s
    reply = await connection.send(server, "ServerReady", service_pb2.ServerReadyRequest(), timeout_s, metadata)
    if not isinstance(reply, grpc.RpcError):
        server.missed = 0
        rotation.mark(server, up=bool(reply.ready))
    else:
        server.missed += 1
        if reply.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            # A machine that is merely busy answers something: only complete silence counts.
            if time.monotonic() - server.answered_s >= timeout_s and rotation.has_other(server):
                rotation.mark(server, up=False)
                missed = server.missed - connection.probes_missed
                if missed == 0 or (missed > 0 and server.link.calls):  # later ones, where no other server was up before
                    await connection.cancel_in_flight(server)
            return
        # It may answer, if only that health is not ours to ask.
        rotation.mark(server, up=not is_down(reply))
    if server.up and (models := sorted(connection.bound.items())):
        name, version = models[turn % len(models)]
        request = service_pb2.ModelReadyRequest(name=name, version=version)
        reply = await connection.send(server, "ModelReady", request, timeout_s, metadata)
        if not isinstance(reply, grpc.RpcError):
            rotation.mark(server, model=name, ready=bool(reply.ready))
        elif isinstance(from_rpc(reply, Sent(name)), ModelNotFoundError | ModelNotReadyError):
            rotation.mark(server, model=name, ready=False)


def _metadata(connection: Connection[Any, Any, Any]) -> Metadata:
    """The client's headers, or none where its function for them fails: a server's health is still of interest."""
    try:
        return connection.metadata()
    except Exception:
        _log.debug("no headers for the health checks", exc_info=True)
        return ()
