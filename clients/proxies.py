"""The HTTP proxy that gRPC goes through because an environment variable names one, for the messages of errors."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re

from .addresses import is_loopback

_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")  # in gRPC's order; it reads no upper-case ones
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def on_the_way_to(address: str) -> str:
    """The variable that counts for `address`, and its value without user and password; "" where there is no proxy."""
    variable = next((name for name in _VARIABLES if os.environ.get(name)), "")
    value = os.environ.get(variable, "")
    direct = is_loopback(address) or address.startswith(("vsock:", "xds:"))
    if direct or not value.startswith("http://") or _is_exempt(_host(address)):
        return ""
    return f"{variable}={re.sub('//[^/]*@', '//', value)}"


def _host(address: str) -> str:
    target = re.sub("^(dns|ipv4|ipv6):", "", address).rpartition("/")[2].split(",")[0]
    return (target.rpartition(":")[0] or target).strip("[]").lower()


def _is_exempt(host: str) -> bool:
    """Whether gRPC leaves the proxy out: entries are ends of names, addresses, and ranges of addresses."""
    exceptions = next((value for name in _EXCEPTIONS if (value := os.environ.get(name))), "")
    for entry in filter(None, (entry.strip().lower() for entry in exceptions.split(","))):
        if entry == "*" or host.endswith(entry):
            return True
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
    return False
