"""The servers of one client, taken in turn, and which of them are up."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from .errors import DeadlineExceededError, InferenceError, ModelNotReadyError, UnreachableError
from .failures import is_silence
from .options import TLS

INFER_METHOD = "/inference.GRPCInferenceService/ModelInfer"
STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"


@dataclass(frozen=True, eq=False)
class Link:
    """A channel, what calls through it, and the calls in flight. A server's link is exchanged as one."""

    channel: Any
    stub: Any
    infer: Callable[..., Any]
    stream: Callable[..., Any]
    calls: set[Any] = field(default_factory=set)
    """Something for each, with asyncio what cancels it."""

    @staticmethod
    def over(channel: Any) -> Link:
        # Requests and answers stay bytes here: the codec reads and writes them with fewer copies than protobuf does.
        return Link(
            channel,
            service_pb2_grpc.GRPCInferenceServiceStub(channel),
            channel.unary_unary(INFER_METHOD),
            channel.unary_stream(STREAM_METHOD),
        )

    def method(self, name: str) -> Callable[..., Any]:
        """The callable of a gRPC method, such as `ModelMetadata`."""
        call: Callable[..., Any] = self.infer if name == "ModelInfer" else getattr(self.stub, name)
        return call

    def cancel_calls(self) -> None:
        """Cancel those in `calls`, which are no longer there when they end."""
        calls = list(self.calls)
        self.calls.clear()
        for call in calls:
            call.cancel()


class Server:
    """One address and the link to it; `open_channel` makes its channel, with `tls`."""

    def __init__(self, address: str, open_channel: Callable[[str], Any], tls: TLS | None = None) -> None:
        self.address, self.tls = address, tls
        self._open = open_channel
        self.up = True
        self.unready: frozenset[str] = frozenset()  # models that it has not ready
        self.missed = 0  # health probes in a row without an answer
        self.answered_s = 0.0  # when it last answered anything, on the monotonic clock
        self.link = Link.over(open_channel(address))

    def reconnect(self) -> Link:
        """Put a new link in place of the one there is; returns that, which is to be closed."""
        old, self.link = self.link, Link.over(self._open(self.address))
        return old


class Rotation:
    """Servers in turn. Those that are down, or have not a model ready, are passed over unless all are.

    `groups` has the servers of each endpoint, none where its name is yet to be looked up. Where all groups are empty,
    `fallback` serves. `settled` is an event: there are servers, or every look-up has failed.
    """

    def __init__(self, groups: Sequence[Sequence[Server]], fallback: Sequence[Server], settled: Any) -> None:
        self.groups = [tuple(group) for group in groups]
        self._fallback, self.settled = tuple(fallback), settled
        self._pending = {group for group, servers in enumerate(groups) if not servers}
        self.known: weakref.WeakSet[Server] = weakref.WeakSet(self._fallback)
        """Those that have left too, while anybody uses them."""
        self._turn = itertools.count()
        self._lock = threading.Lock()
        self._sort()
        if any(self.groups):
            settled.set()

    def replace(self, group: int, servers: Sequence[Server]) -> None:
        """Put other servers in place of a group. Calls in flight on those that leave run to their end."""
        with self._lock:
            self.groups[group] = tuple(servers)
            self._sort()

    def looked_up(self, group: int) -> None:
        """The name of a group was looked up, with success or without."""
        self._pending.discard(group)
        if any(self.groups) or not self._pending:
            self.settled.set()

    def pick(self, model: str = "") -> Server:
        """The next server."""
        if self.lone is not None:
            return self.lone
        servers = self._with_model.get(model) or self._up
        return servers[next(self._turn) % len(servers)]

    def mark(self, server: Server, *, up: bool | None = None, model: str = "", ready: bool = True) -> None:
        """Take a server out of the rotation, or in again; with `model` for the requests of that alone."""
        with self._lock:
            server.up = server.up if up is None else up
            if model:
                server.unready = server.unready - {model} if ready else server.unready | {model}
            self._sort()

    def has_other(self, server: Server, model: str = "") -> bool:
        """Whether another server is up, and has the model ready."""
        return any(other.up and model not in other.unready for other in self.servers if other is not server)

    def record_failure(self, server: Server, error: InferenceError) -> bool:
        """Take what a failed request says of its server; returns whether another one is to be asked instead."""
        if not isinstance(error, UnreachableError | DeadlineExceededError):
            server.answered_s = time.monotonic()
        # A server that drains after SIGTERM unloads its models first; another one has them. So may one have a gRPC port
        # or a valid certificate where this one has not.
        never_ran = isinstance(error, ModelNotReadyError | UnreachableError) and not error.may_have_run
        moves = never_ran and self.has_other(server, error.model)
        if moves and isinstance(error, ModelNotReadyError) and error.model:
            self.mark(server, model=error.model, ready=False)
        elif moves or (isinstance(error, UnreachableError) and error.transient):
            self.mark(server, up=False)
        return moves

    def looks_misconfigured(self, failures: int, error: InferenceError) -> bool:
        """Whether no server has ever answered: more likely a wrong address than a restart, unless it only hangs."""
        never = not any(server.answered_s for server in self.servers)
        return never and failures >= len(self.servers) and not is_silence(error.details)

    def _sort(self) -> None:
        self.servers = tuple(itertools.chain(*self.groups)) or self._fallback
        self.known.update(self.servers)
        self.lone = self.servers[0] if len(self.servers) == 1 else None
        self._up = tuple(server for server in self.servers if server.up) or self.servers
        unready = frozenset[str]().union(*(server.unready for server in self._up))
        self._with_model = {model: tuple(s for s in self._up if model not in s.unready) for model in unready}


class CancelledByClientError(grpc.RpcError):  # type: ignore[misc]
    """A call that this client gave up: its server answers nothing at all, or (CANCELLED) the client was closed, or
    (DEADLINE_EXCEEDED) a stream has stood still for too long."""

    def __init__(self, status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self.status = status

    def code(self) -> grpc.StatusCode:
        return self.status

    def details(self) -> str:
        if self.status is grpc.StatusCode.CANCELLED:
            return "Channel closed!"
        if self.status is grpc.StatusCode.DEADLINE_EXCEEDED:
            return "no part of the answer within idle_timeout_s"
        return "the server answers nothing, not even health checks"
