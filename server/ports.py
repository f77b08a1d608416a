"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import contextlib
import errno
import socket


def free_ports(address: str, count: int) -> list[int]:
    """`count` different ports that nobody listened on a moment ago; the kernel hands them out far apart in time."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind((address, 0))
        return [sock.getsockname()[1] for sock in sockets]


def why_not_free(address: str, port: int) -> str:
    """Why no server could listen there now, such as `Address already in use`; empty where one could."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
        except OverflowError:
            return "no such port"
        except OSError as error:
            return "in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
    return ""
