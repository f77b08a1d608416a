"""A real DNS server on the loopback interface, whose answer changes: `with NameServer() as names: names.addresses`."""

from __future__ import annotations

from dnslib import QTYPE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSLogger, DNSServer

TTL_S = 1


class NameServer(BaseResolver):  # type: ignore[misc]
    """Answers every question with `addresses`; `address` is where."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    def __enter__(self) -> NameServer:
        self._server = DNSServer(self, address="127.0.0.1", port=0, logger=DNSLogger("-request,-reply", prefix=False))
        self._server.start_thread()
        self.port = self._server.server.server_address[1]
        self.address = f"127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._server.server.server_close()

    def resolve(self, request: DNSRecord, handler: object) -> DNSRecord:
        """The answer to a question, as `dnslib` asks for it."""
        reply = request.reply()
        if request.q.qtype == QTYPE.A:
            for address in self.addresses:
                reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(address), ttl=TTL_S))
        return reply

    def ask(self, name: str) -> list[str]:
        """What `host:port` stands for, asked over the network; for the clients' `resolve`."""
        host, _, port = name.rpartition(":")
        reply = DNSRecord.parse(DNSRecord.question(host).send("127.0.0.1", self.port, timeout=2))
        return [f"{answer.rdata}:{port}" for answer in reply.rr]
