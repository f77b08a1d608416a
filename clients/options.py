"""How a client connects: deadlines, headers, TLS, retries. Frozen, and the same for both transports."""

from __future__ import annotations

import logging
import numbers
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from . import pem
from .addresses import is_balanced, is_loopback

Headers = Mapping[str, str]
Metadata = tuple[tuple[str, str], ...]
ChannelOptions = tuple[tuple[str, Any], ...]
DEFAULT_TIMEOUT_S = 30.0
LONGEST_TIMEOUT_S = 1e9  # gRPC counts nanoseconds from 1970 in 64 bits: with 8e9 s it calls a deadline passed
MOST_ANSWER_BYTES, LARGEST_ANSWER_BYTES = 1 << 27, (1 << 31) - 1
# gRPC's limit of 4 MB is lifted for requests; `open_channel` sets that of answers, which `grpc.minimal_stack` would
# switch off. gRPC measures a compressed answer before it inflates it, so that no compression is accepted. A connection
# that broke is tried again within a second, so that a restarted server is used again soon. Pings closer than 300 s are
# abuse to Triton, which hangs up after a few of them: 310 s it tolerates.
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),  # else a new client inherits the waiting time of one that found no server
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_frame_size", 1 << 20),  # of answers: 16 kB frames cost a tenth more CPU at 150 kB
    ("grpc.client_idle_timeout_ms", 2**31 - 1),  # its filter costs CPU with each call, as channelz does
    ("grpc.enable_channelz", 0),
    ("grpc.enable_retries", 0),  # retries are this package's own business, and cost CPU even where none is made
)
# gRPC logs a traceback for an answer that is no protobuf message; the error that it raises says the same.
logging.getLogger("grpc._common").addFilter(lambda record: not str(record.msg).startswith("Exception deserializing"))
NO_PROXY = ("grpc.enable_http_proxy", 0)  # gRPC sends even localhost through http_proxy
ROUND_ROBIN = ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}')


class InsecureConnectionWarning(UserWarning):
    """Requests travel in plain text to another machine."""


@dataclass(frozen=True)
class TLS:
    """Encrypt the connection. All are PEM files.

    `ca` is what the server's certificate is checked against (gRPC's built-in authorities if left out); `cert` and `key`
    are this client's own for mutual TLS; `server_name` is the name in the certificate where it is not the address's.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("mutual TLS needs both: TLS(cert=FILE, key=FILE)")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read and check the files. Raises ValueError."""
        ca = None if self.ca is None else pem.read_certificates("ca", self.ca)
        cert, key = (None, None) if self.cert is None or self.key is None else pem.read_pair(self.cert, self.key)
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


@dataclass(frozen=True)
class Retries:
    """When a request is sent again: its connection broke, or could not be made to a server that was there before.

    Retries of requests that may have reached a server come out of a budget: `reserve` of them, and one more for every
    1 / `extra_load` requests. Pauses are random between 0 and a bound that doubles from `first_pause_s` to
    `longest_pause_s`. A request that may have run is sent again twice at most, and never with `Retries(reserve=0)`.
    `overloaded` retries refusals by a full queue too.
    """

    extra_load: float = 0.1
    reserve: int = 100
    first_pause_s: float = 0.05
    longest_pause_s: float = 1.0
    overloaded: bool = False


def seconds(given: float, name: str = "timeout_s") -> float:
    """A deadline or an interval. Raises ValueError for what is none: a call without a deadline can wait for ever."""
    number = isinstance(given, numbers.Real) and not isinstance(given, bool)
    if not (number and 0 < given <= LONGEST_TIMEOUT_S):
        raise ValueError(f"{name} must be seconds above zero and at most {LONGEST_TIMEOUT_S:.0e}, not {given!r}")
    return float(given)


def answer_limit(given: int) -> int:
    """A bound on the bytes of an answer. Raises ValueError for one that gRPC cannot hold to."""
    if not (isinstance(given, int) and not isinstance(given, bool) and 0 < given <= LARGEST_ANSWER_BYTES):
        raise ValueError(f"max_answer_bytes must be a whole number from 1 to {LARGEST_ANSWER_BYTES}, not {given!r}")
    return given


def open_channel(
    module: Any,
    tls: TLS | None,
    credentials: grpc.ChannelCredentials | None,
    address: str,
    *,
    balance: bool = True,
    name: str = "",
    max_answer_bytes: int = MOST_ANSWER_BYTES,
    more: ChannelOptions = (),
) -> Any:
    """A channel of `grpc` or `grpc.aio`. A target with a scheme (`dns:///`, `ipv4:`) is balanced by gRPC itself.

    Without `balance` it keeps to one server even where a name stands for several. `name` is the host:port that was
    looked up to find `address`; an answer of more than `max_answer_bytes` is refused before it is read. `more` are
    options of gRPC.
    """
    options: ChannelOptions = (*CHANNEL_OPTIONS, ("grpc.max_receive_message_length", max_answer_bytes), *more)
    if balance and is_balanced(address):
        options += (ROUND_ROBIN,)
    if is_loopback(address) or name:
        options += (NO_PROXY,)
    if tls is None:
        if name:
            options += (("grpc.default_authority", name),)
        return module.insecure_channel(address, options=options)
    if tls.server_name:
        options += (("grpc.ssl_target_name_override", tls.server_name),)
    return module.secure_channel(address, credentials, options=options)


def as_metadata(headers: Headers) -> Metadata:
    """Headers as gRPC takes them. Raises ValueError for one that HTTP/2 cannot carry."""
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or not (
            isinstance(value, str) and value.isascii() and value.isprintable()
        ):
            raise ValueError(
                f"header {name!r} cannot be sent: names are letters, digits, - _ and ., values plain ASCII"
            )
    return tuple((name.lower(), value) for name, value in headers.items())


def warn_if_insecure(addresses: tuple[str, ...], tls: TLS | None, stacklevel: int) -> None:
    """Warn of plain text to other machines."""
    far = [address for address in addresses if tls is None and not is_loopback(address)]
    if far:
        warnings.warn(
            f"requests to {', '.join(far)} are not encrypted: pass tls=TLS(ca='ca.pem') and start Triton with "
            "--grpc-use-ssl=1 --grpc-server-cert=FILE --grpc-server-key=FILE, or filter InsecureConnectionWarning",
            InsecureConnectionWarning,
            stacklevel=stacklevel,
        )
