"""Where shared memory joins a call: what a pool of regions has to offer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from clients.codec import Region
from clients.datatypes import Array

if TYPE_CHECKING:
    from clients.connection import Connection, Steps


class RegionPool(Protocol):
    """The regions of one client, where it was asked for them (`Client(..., shared_memory="system")`).

    Its methods that call the server are steps, so that one pool serves both transports.
    """

    def lend(self, connection: Connection, arrays: Mapping[str, Array]) -> Steps[dict[str, Region]]:
        """Copy the arrays that are worth it into regions that the server knows; returns the region of each of them.

        New regions are made known by `yield from connection.call("SystemSharedMemoryRegister", request)`.
        """
        ...

    def take_back(self, regions: Mapping[str, Region]) -> None:
        """The request with these regions is over, however it ended."""
        ...

    def close(self, connection: Connection) -> Steps[None]:
        """Unregister and remove every region; called when the client closes."""
        ...
