"""Names that stand for several servers (`dns:///triton:8001`), looked up again and again.

gRPC looks a name up again only when a connection breaks, so that a client would not find servers that were added. Here
each address is a server of its own: those that come are used, those that leave finish what they have.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence
from typing import Any

from . import addresses
from .connection import Connection
from .health import watch
from .servers import Rotation

AGAIN_S = 1.0  # while a server is down
_log = logging.getLogger(__name__)


def keep_current(connection: Connection[Any, Any, Any], rotation: Rotation) -> None:
    """Begin to follow every name and to watch every server, where there are, or may be, several."""
    names = [(group, name) for group, name in enumerate(connection.names) if name]
    if names or rotation.lone is None:
        for server in itertools.chain(*rotation.groups):
            connection.begin(watch(connection, rotation, server))
    for group, name in names:
        connection.begin(follow(connection, rotation, group, name))


async def follow(connection: Connection[Any, Any, Any], rotation: Rotation, group: int, name: str) -> None:
    """Keep the servers of `group` what `name` (host:port) stands for, until the client is closed.

    A look-up that fails, hangs or finds nothing leaves the servers that are known.
    """
    while not connection.is_closed:
        try:
            found = addresses.parse(await connection.in_background(connection.resolve, name))
        except Exception:
            _log.debug("%s cannot be looked up", name, exc_info=True)
        else:
            _update(connection, rotation, group, name, found)
        rotation.looked_up(group)
        until_s = time.monotonic() + connection.resolve_every_s
        while not connection.is_closed and (left_s := until_s - time.monotonic()) > 0:
            await connection.pause(min(left_s, AGAIN_S))
            if not all(server.up for server in rotation.groups[group]):
                break


def _update(
    connection: Connection[Any, Any, Any], rotation: Rotation, group: int, name: str, found: Sequence[str]
) -> None:
    known = {server.address: server for server in rotation.groups[group]}
    if known.keys() != set(found):
        servers = [known.get(address) or connection.connect(address, name) for address in dict.fromkeys(found)]
        rotation.replace(group, servers)
        for server in servers:
            if server.address not in known:
                connection.begin(watch(connection, rotation, server))
