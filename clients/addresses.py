"""Addresses of servers: valid forms, and an error with the remedy where gRPC would connect to something else."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from typing import Any

BALANCED = ("dns:", "ipv4:", "ipv6:", "xds:")  # schemes of which gRPC's name resolution makes several servers


def parse(endpoint: str | Sequence[str]) -> tuple[str, ...]:
    """One or several `host:port`, or targets that gRPC resolves (`dns:///`, `ipv4:`, `unix:`). Raises ValueError."""
    single = isinstance(endpoint, str | bytes) or not isinstance(endpoint, Iterable)
    given: tuple[Any, ...] = (endpoint,) if single else tuple(endpoint)
    if not given:
        raise ValueError("no server to connect to: give 'host:port', or a list of them")
    for address in given:
        _check(address)
    return given


def is_balanced(address: str) -> bool:
    """Whether gRPC's name resolution makes several servers of `address`."""
    return address.startswith(BALANCED)


def name_in(address: str) -> str:
    """The `host:port` of a `dns:` endpoint that this package looks up; "" for other endpoints.

    gRPC keeps names with a DNS server of their own (`dns://1.1.1.1/triton:8001`).
    """
    found = re.fullmatch(r"dns:(?:///)?([^/]+)", address)
    return found[1] if found else ""


def look_up(name: str) -> list[str]:
    """The addresses of `host:port`, by the system's resolver. Raises OSError."""
    host, _, port = name.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    return [f"[{at[0]}]:{port}" if family == socket.AF_INET6 else f"{at[0]}:{port}" for family, *_, at in found]


def is_loopback(address: str) -> bool:
    """Whether what is sent there stays on this machine."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    if address.startswith(("ipv4:", "ipv6:")):
        return all(map(is_loopback, address[5:].split(",")))
    host = address.rpartition("/")[2].rpartition(":")[0].strip("[]") or address
    if _is_ip(host, 4) or _is_ip(host, 6):
        ip = ipaddress.ip_address(host)
        return ip.is_loopback or ip.is_unspecified  # 0.0.0.0 is what a server on this machine listens on
    return host == "localhost" or host.endswith(".localhost")


def _check(address: object) -> None:
    """Raises ValueError for what gRPC would not understand, or understand as another address."""
    if not isinstance(address, str) or not address:
        raise ValueError(f"{address!r} is not the address of a server: give 'host:port', or a list of them")
    scheme, _, rest = address.partition(":")
    if scheme in ("unix", "unix-abstract", "vsock", "xds"):
        if not rest.strip("/"):
            raise ValueError(f"{address!r} names nothing to connect to: give 'host:port' or 'unix:/path/of/socket'")
    elif scheme in ("ipv4", "ipv6"):
        for part in rest.split(","):
            _check_host_and_port(address, part, 4 if scheme == "ipv4" else 6)
    elif scheme == "dns":
        if re.fullmatch("//[^/]*", rest):
            raise ValueError(f"{address!r} names no host: give 'dns:///{rest[2:] or 'host:port'}', with three slashes")
        _check_host_and_port(address, re.sub("^//[^/]*/", "", rest))
    elif rest.startswith("//"):
        secure = ", and pass tls=TLS(...)" if scheme.endswith("s") else ""
        host = re.split("[/?#]", rest[2:])[0]
        raise ValueError(f"{address!r} is a URL: give '{host or 'host:port'}' without {scheme}://{secure}")
    else:
        _check_host_and_port(address, address)


def _check_host_and_port(address: str, part: str, version: int = 0) -> None:
    """Check a host, or an IP address of that version, and a port: `part`, which is all or some of `address`."""
    host, colon, port = part.rpartition(":")
    if "," in part:
        servers = ", ".join(f"'{server.strip()}'" for server in part.split(","))
        raise ValueError(f"{address!r} names several servers: pass a list, [{servers}]")
    if part.count(":") > 1 and _is_ip(part, 6):
        raise ValueError(f"{address!r}: give an IPv6 address in brackets, and a port behind them, as in '[::1]:8001'")
    if not re.fullmatch(r"(\[[^\s/\[\]]+\]|[^\s/:@?#\[\]]*)(:[^/:\]]*)?", part):
        raise ValueError(f"{address!r} is not a host and port: give 'host:port', without path, user or spaces")
    if not colon or part.endswith((":", "]")):
        raise ValueError(f"{address!r} names no port: give '{address.rstrip(':')}:8001'")
    if not host:
        raise ValueError(f"{address!r} names no host: give '{address.removesuffix(part)}localhost{part}'")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError(f"{address!r}: {port!r} is not a port: give a number from 1 to 65535, as in '{host}:8001'")
    version = version or (6 if host.startswith("[") else 0)
    if version and not _is_ip(host.strip("[]"), version):
        raise ValueError(f"{address!r}: '{host}' is not an IPv{version} address: correct it, or use the host's name")


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False
