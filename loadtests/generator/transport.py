"""The interface of a transport, which carries requests to the server. `http2` implements it.

A transport sends already encoded `ModelInferRequest` bytes and reports, per request, when the answer was complete and
with which status. It never decodes an answer; an OK answer without a body is reported as `EMPTY_RESPONSE`. A request
whose answer is streamed has a stream of its own, whose parts are counted as they come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from loadtests.generator.parts import Parts

METHOD = "/inference.GRPCInferenceService/ModelInfer"
STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
ConnectionT = TypeVar("ConnectionT", contravariant=True)
OnDone = Callable[[int, float, int, str], None]
"""Called with the request's index, the `time.monotonic()` of its answer, its status and the server's message."""
OnFirst = Callable[[int, Parts], None]
"""Called with the index of a streamed request when the first part has come; later ones are added to these."""


class Transport(Protocol):
    """One or more connections to one server. All calls come from one event loop."""

    async def open(self) -> None:
        """Connects; raises OSError when the server cannot be reached, GeneratorError when the fault is ours."""

    def send(self, index: int, payload: int) -> None:
        """Starts request `index` with payload number `payload`; it may leave only at the next `flush`."""

    def flush(self) -> None:
        """Hands everything started to the operating system."""

    def cancel(self, index: int) -> None:
        """Gives up on a request, telling the server; it is not reported any more."""

    @property
    def lost(self) -> bool:
        """True when no connection is left and none can be made."""

    @property
    def broken(self) -> str:
        """What the generator itself did wrong; nothing that was measured counts then. Empty while all is well."""

    @property
    def connections(self) -> int:
        """How many there are, those that are being opened included."""

    async def close(self) -> None: ...


class Owner(Protocol[ConnectionT]):
    """What a connection reports to: the transport that it belongs to."""

    def on_done(self, index: int, when_s: float, status: int, message: str) -> None:
        """A request was answered, or failed for good."""

    def on_first(self, index: int, parts: Parts) -> None:
        """The first part of a streamed answer has come."""

    def on_unseen(self, index: int, payload: int, why: str) -> None:
        """The server said that it never looked at a request."""

    def on_room(self) -> None:
        """More requests may be sent than before, or streams have ended."""

    def on_ended(self, connection: ConnectionT) -> None:
        """`connection` takes no more requests; those it has may still be answered. Called once."""

    def on_our_fault(self, why: str) -> None:
        """The server says that we broke HTTP/2."""
