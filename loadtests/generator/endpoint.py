"""Where the generator connects: the addresses behind a target as gRPC writes it, and one connection to one of them."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from clients import addresses
from loadtests.errors import BadRequestError, GeneratorError
from loadtests.target.access import Access

ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)
_UNIX, _ABSTRACT = "unix:", "unix-abstract:"
_OWN_FAULTS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)
"""Of connecting: this machine has no descriptor, memory or port left, whatever the server does."""
_SSL_WAY = re.compile(r"^\[.*?\] |\s*\(_ssl\.c:\d+\)$")


class Endpoint:
    """`host:port`, or a target with a scheme: `dns:`, `ipv4:` and `ipv6:` name several servers, `unix:` a socket.

    BadRequestError for what cannot be connected to. GeneratorError for certificates that cannot be used.
    """

    def __init__(self, server: str, access: Access) -> None:
        try:
            addresses.parse(server)
        except ValueError as error:
            raise BadRequestError(f"server {error}", field="server") from None
        scheme = server.partition(":")[0]
        if scheme in ("xds", "vsock"):
            raise BadRequestError(
                f"server {server!r}: the load generator knows no {scheme}:; give HOST:PORT or unix:PATH", field="server"
            )
        self._socket = ""
        self._places: list[tuple[str, int]] = []
        self._balanced = scheme == "dns"
        if server.startswith(_UNIX):
            path = server.removeprefix(_UNIX)
            self._socket = path.removeprefix("//") if path.startswith("///") else path
        elif server.startswith(_ABSTRACT):
            self._socket = "\0" + server.removeprefix(_ABSTRACT)
        else:
            names = server.partition(":")[2].split(",") if scheme in ("ipv4", "ipv6") else [server]
            for name in names:
                host, _, port = re.sub("^dns:(//[^/]*/)?", "", name).rpartition(":")
                self._places.append((host.strip("[]"), int(port)))
        self.authority = "localhost" if self._socket else _authority(*self._places[0])
        self._server_name = (access.tls.server_name if access.tls else "") or (
            self._places[0][0] if self._places else "localhost"
        )
        try:
            self._tls = access.ssl_context()
        except OSError as error:
            raise GeneratorError(f"the generator cannot use the certificates of TLS: {reason(error)}") from None

    async def resolve(self) -> int:
        """Looks names up that stand for several servers; returns how many servers there are. Raises OSError."""
        if self._balanced:
            host, port = self._places[0]
            try:
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as error:
                raise OSError(f"{host}: {reason(error)}") from error
            self._places = list(dict.fromkeys((str(place[0]), int(place[1])) for *_, place in found))
        return max(len(self._places), 1)

    async def connect(self, make: Callable[[], ProtocolT], number: int, timeout_s: float) -> ProtocolT:
        """One connection; `number` picks among several servers. Raises OSError, GeneratorError for our own faults."""
        loop = asyncio.get_running_loop()
        name = self._server_name if self._tls else None
        try:
            if self._socket:
                connecting = loop.create_unix_connection(make, self._socket, ssl=self._tls, server_hostname=name)
            else:
                host, port = self._places[number % len(self._places)]
                connecting = loop.create_connection(make, host, port, ssl=self._tls, server_hostname=name)
            transport, protocol = await asyncio.wait_for(connecting, timeout_s)
        except TimeoutError:
            raise OSError(f"no connection within {timeout_s:g} s") from None
        except OSError as error:
            if error.errno in _OWN_FAULTS:
                raise GeneratorError(f"the generator cannot open another connection: {error.strerror}") from None
            raise OSError(reason(error)) from error
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            transport.close()
            raise OSError("its TLS does not offer HTTP/2 (ALPN h2)")
        return protocol


def reason(error: Exception) -> str:
    """The words of an operating system's or TLS library's error, without its number and place."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return _SSL_WAY.sub("", text)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
