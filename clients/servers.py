"""The servers of one client, taken in turn, and which of them are up."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc

from .errors import DeadlineExceededError, InferenceError, ModelNotReadyError, UnreachableError
from .failures import is_silence

INFER_METHOD = "/inference.GRPCInferenceService/ModelInfer"
STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
PROBES_MISSED = 2


class Server:
    """One address and the channel to it; `open` makes the channel."""

    def __init__(self, address: str, open_channel: Callable[[str], Any]) -> None:
        self.address = address
        self._open = open_channel
        self.up = True
        self.missed = 0  # health probes in a row without an answer
        self.answered_s = 0.0  # when it last answered anything, on the monotonic clock
        self.calls: set[Any] = set()  # in flight; kept by the transport that can cancel only one by one
        self.connect()

    def connect(self) -> None:
        """Open a new channel."""
        self.channel = self._open(self.address)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        # Requests and answers stay bytes here: the codec reads and writes them with fewer copies than protobuf does.
        self.infer = self.channel.unary_unary(INFER_METHOD)
        self.stream = self.channel.unary_stream(STREAM_METHOD)

    def method(self, name: str) -> Callable[..., Any]:
        """The callable of a gRPC method, such as `ModelMetadata`."""
        call: Callable[..., Any] = self.infer if name == "ModelInfer" else getattr(self.stub, name)
        return call


class Rotation:
    """Servers in turn. Those that are down are passed over unless all are."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.servers = tuple(servers)
        self._turn = itertools.count()
        self._in_turn = self.servers
        self.lone = self.servers[0] if len(self.servers) == 1 else None

    def pick(self) -> Server:
        """The next server."""
        if self.lone is not None:
            return self.lone
        servers = self._in_turn
        return servers[next(self._turn) % len(servers)]

    def mark(self, server: Server, *, up: bool) -> None:
        """Take a server out of the rotation, or in again."""
        server.up = up
        self._in_turn = tuple(server for server in self.servers if server.up) or self.servers

    def has_other(self, server: Server) -> bool:
        """Whether another server is up."""
        return any(other.up for other in self.servers if other is not server)

    def learn(self, server: Server, error: InferenceError) -> bool:
        """Take what a failed request says of its server; returns whether another one is to be asked instead."""
        if not isinstance(error, UnreachableError | DeadlineExceededError):
            server.answered_s = time.monotonic()
        # A server that drains after SIGTERM unloads its models first; another one has them. So may one have a gRPC port
        # or a valid certificate where this one has not.
        never_ran = isinstance(error, ModelNotReadyError | UnreachableError) and not error.may_have_run
        moves = never_ran and self.has_other(server)
        if moves or (isinstance(error, UnreachableError) and error.transient and self.lone is None):
            self.mark(server, up=False)
        return moves

    def seems_wrong(self, failures: int, error: InferenceError) -> bool:
        """Whether no server has ever answered: more likely a wrong address than a restart, unless it only hangs."""
        never = not any(server.answered_s for server in self.servers)
        return never and failures >= len(self.servers) and not is_silence(error.details)


class Cut(grpc.RpcError):  # type: ignore[misc]
    """A call that this client gave up: its server answers nothing at all, or (CANCELLED) the client was closed."""

    def __init__(self, status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self.status = status

    def code(self) -> grpc.StatusCode:
        return self.status

    def details(self) -> str:
        if self.status is grpc.StatusCode.CANCELLED:
            return "Channel closed!"
        return f"the server answers nothing, not even {PROBES_MISSED} health checks"
