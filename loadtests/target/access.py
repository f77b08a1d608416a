"""TLS and headers for a server, the same for the load and for the calls beside it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from clients import TLS
from clients.options import Metadata, as_metadata
from loadtests.errors import BadRequestError


@dataclass(frozen=True)
class Access:
    """Plain text without headers by default. BadRequestError for a header that HTTP/2 cannot carry."""

    tls: TLS | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request; values may be secret, so they are never shown, stored or put on a command line."""

    def __post_init__(self) -> None:
        self.metadata()

    def metadata(self) -> Metadata:
        """The headers as gRPC takes them."""
        try:
            return as_metadata(self.headers)
        except ValueError as error:
            raise BadRequestError(str(error), field="headers") from None

    def described(self) -> dict[str, Any]:
        """What a report may say of it."""
        return {"tls": self.tls is not None, "headers": sorted(self.headers)}

    def to_json(self) -> dict[str, Any]:
        """With the secrets: for a pipe to a process of our own."""
        tls = {name: str(value) for name, value in asdict(self.tls).items() if value} if self.tls else None
        return {"tls": tls, "headers": dict(self.headers)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Access:
        """The inverse of `to_json`."""
        return cls(None if document["tls"] is None else TLS(**document["tls"]), document["headers"])

    def ssl_context(self) -> ssl.SSLContext | None:
        """None without TLS. As strict as gRPC: a certificate of the file may itself be trusted, whoever signed it.

        Raises OSError for a file that cannot be read or used.
        """
        if self.tls is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.set_alpn_protocols(["h2"])
        if self.tls.ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(self.tls.ca)
        if self.tls.cert is not None:
            context.load_cert_chain(self.tls.cert, self.tls.key)
        return context
