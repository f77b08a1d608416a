"""What a client does, without I/O: both transports drive these generators.

A generator yields a step (Send, Pause or Abandon) and gets back the answer, or the gRPC error as a value. So deadlines,
retries, the choice of a server and the wording of errors are written once.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import grpc
from tritonclient.grpc import service_pb2

from clients import errors
from clients.metrics import Metrics
from clients.options import DEFAULT_TIMEOUT_S, TLS, Headers, Retries, is_balanced, open_channel, warn_if_insecure
from clients.regions import RegionPool
from clients.retries import Budget, is_retryable, may_have_run, pause_s
from clients.servers import PROBE_EVERY_S, PROBE_TIMEOUT_S, PROBES_MISSED, Rotation, Server
from clients.spec import ModelSpec

T = TypeVar("T")
# What the methods give: values for the blocking client, the same to await for the asyncio one.
Flag = TypeVar("Flag")
Names = TypeVar("Names")
Bound = TypeVar("Bound")
Metadata = tuple[tuple[str, str], ...] | None
CLOSED = "this client is closed: make another, or close it later"
_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class Send(NamedTuple):
    """Call a method of a server; the step's answer is what it returns, or the gRPC error."""

    server: Server
    method: str
    request: Any
    metadata: Metadata
    timeout_s: float  # of the whole call, for messages
    deadline_s: float  # on the monotonic clock


class Pause(NamedTuple):
    """Wait."""

    seconds: float


class Abandon(NamedTuple):
    """Cancel every call in flight on a server that answers nothing."""

    server: Server


Steps = Generator[Send | Pause | Abandon, Any, T]


class Connection(Generic[Flag, Names, Bound]):
    """One or several equal KServe-v2 servers.

    `endpoint` is `host:port`, a list of them, or a target that gRPC resolves and balances (`dns:///triton:8001`).
    Every call has a deadline: `timeout_s` is the default of all. `headers` go with every request (tokens, Triton's
    `triton-grpc-protocol-...`); a function is called for each, such as `clients.tracing.trace_context`. Without `tls`,
    a warning is given for other machines. `metrics=Metrics()` counts requests and their durations for Prometheus.
    """

    _grpc: ClassVar[Any]
    _model: ClassVar[type[Any]]

    def __init__(
        self,
        endpoint: str | Sequence[str],
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        headers: Headers | Callable[[], Headers] | None = None,
        tls: TLS | None = None,
        retries: Retries | None = None,
        shared_memory: str | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.addresses = (endpoint,) if isinstance(endpoint, str) else tuple(endpoint)
        if not self.addresses or not all(self.addresses):
            raise ValueError("no server to connect to: give 'host:port', or a list of them")
        self.endpoint = ", ".join(self.addresses)
        self.timeout_s, self.headers, self.tls, self.metrics = timeout_s, headers or {}, tls, metrics
        self.retries = retries or Retries()
        self.budget = Budget(self.retries)
        if tls is None:
            warn_if_insecure(self.addresses, stacklevel=3)
        self._credentials = tls.credentials() if tls is not None else None
        self._metadata = None if callable(self.headers) else _metadata(self.headers)
        self._rotation: Rotation | None = None
        self._opening = threading.Lock()
        self._closed = threading.Event()
        if shared_memory is not None and (len(self.addresses) > 1 or is_balanced(self.addresses[0])):
            raise ValueError("shared memory is for one server on this machine: name it, or leave shared_memory out")
        self.pool = RegionPool(shared_memory) if shared_memory is not None else None

    def run(self, steps: Steps[Any]) -> Any:
        """Drive `steps` to their end."""
        raise NotImplementedError

    def is_ready(self) -> Flag:
        """Whether a server can be reached and all its models are ready."""
        answer: Flag = self.run(self._ready())
        return answer

    def models(self) -> Names:
        """Names of the models that are ready, sorted."""
        names: Names = self.run(self._index())
        return names

    def model(self, name: str, *, version: str = "") -> Bound:
        """A model of the server; its metadata and configuration are fetched here, once.

        Raises ModelNotFound (naming the models there are), ModelNotReady, Unreachable or DeadlineExceeded.
        """
        bound: Bound = self.run(self._bound(name, version))
        return bound

    def rotation(self) -> Rotation:
        """The servers; the first use opens their channels. Raises ValueError for a client that was closed."""
        if self._rotation is None:
            if self._closed.is_set():
                raise ValueError(CLOSED)
            with self._opening:
                if self._rotation is None:
                    rotation = self._rotation = Rotation([Server(address, self.open) for address in self.addresses])
                    if rotation.lone is None:
                        self._start_probing()
        return self._rotation

    def open(self, address: str, *, balance: bool = True) -> Any:
        """A channel to `address`; without `balance` it keeps to one server even where a name stands for several."""
        return open_channel(self._grpc, address, self.tls, self._credentials, balance=balance)

    def _start_probing(self) -> None:
        raise NotImplementedError

    def begin(
        self, timeout_s: float | None, headers: Headers | None, server: Server | None = None
    ) -> tuple[Server, float, Metadata]:
        """Where a call goes first, its deadline in seconds, and its metadata: the client's headers and its own."""
        metadata = _metadata(self.headers()) if callable(self.headers) else self._metadata
        if headers:
            metadata = (metadata or ()) + (_metadata(headers) or ())
        if server is None:
            server = (self._rotation or self.rotation()).pick()
        return server, self.timeout_s if timeout_s is None else timeout_s, metadata

    def call(
        self,
        method: str,
        request: Any,
        *,
        model: str = "",
        timeout_s: float | None = None,
        headers: Headers | None = None,
        retry: bool = True,
        server: Server | None = None,
    ) -> Steps[Any]:
        """Send a request until it is answered, refused for good, or its deadline passes.

        `retry` is false for what must not run twice; `server` pins it to one. Raises one of `clients.errors`.
        """
        chosen, timeout_s, metadata = self.begin(timeout_s, headers, server)
        first = Send(chosen, method, request, metadata, timeout_s, time.monotonic() + timeout_s)
        self.budget.earn()
        return (yield from self.settle(first, (yield first), model=model, retry=retry, pinned=server is not None))

    def settle(
        self, send: Send, reply: Any, *, model: str = "", retry: bool = True, pinned: bool = False
    ) -> Steps[Any]:
        """What `call` does once it has the `reply` to its first try, `send`."""
        rotation, failures = self.rotation(), 0
        while isinstance(reply, grpc.RpcError):
            error = errors.from_rpc(reply, model=model, endpoint=send.server.address, timeout_s=send.timeout_s)
            failures += 1
            pause = self._judge(rotation, send.server, error, failures)
            if not retry or pause is None or time.monotonic() + pause >= send.deadline_s:
                raise error
            if may_have_run(error) and not self.budget.spend():
                error.add_note("not sent again: the retry budget is spent, see clients.Retries")
                raise error
            self.budget.retried += 1
            yield Pause(pause)
            send = send if pinned else send._replace(server=rotation.pick())
            reply = yield send
        return reply

    def _judge(self, rotation: Rotation, server: Server, error: errors.InferenceError, failures: int) -> float | None:
        """Seconds to wait before the next try, or None for an error that stands."""
        if not isinstance(error, errors.Unreachable | errors.DeadlineExceeded):
            server.answered_s = time.monotonic()
        # A server that drains after SIGTERM unloads its models first; another one has them.
        moves = isinstance(error, errors.ModelNotReady) and rotation.has_other(server)
        if moves or (isinstance(error, errors.Unreachable) and rotation.lone is None):
            rotation.mark(server, up=False)
        if not moves and not is_retryable(error, self.retries):
            return None
        if not any(each.answered_s for each in rotation.servers) and failures >= len(rotation.servers):
            return None  # none of them has ever answered: more likely a wrong address than a restart
        return pause_s(self.retries, failures)

    def probing(self) -> Steps[None]:
        """Ask every server for its health, for ever; keeps the rotation up to date."""
        rotation = self.rotation()
        while True:
            yield Pause(PROBE_EVERY_S)
            for server in rotation.servers:
                yield from self._probe(rotation, server)

    def _probe(self, rotation: Rotation, server: Server) -> Steps[None]:
        *_, metadata = self.begin(PROBE_TIMEOUT_S, None, server)
        deadline_s = time.monotonic() + PROBE_TIMEOUT_S
        request = service_pb2.ServerReadyRequest()
        reply = yield Send(server, "ServerReady", request, metadata, PROBE_TIMEOUT_S, deadline_s)
        if not isinstance(reply, grpc.RpcError):
            server.missed = 0
            rotation.mark(server, up=bool(reply.ready))
            return
        server.missed += 1
        if reply.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            # It may answer, if only that health is not ours to ask.
            rotation.mark(server, up=not errors.is_connection_failure(reply))
        # A machine that is merely busy answers something: only complete silence counts.
        elif time.monotonic() - server.answered_s >= PROBE_TIMEOUT_S and rotation.has_other(server):
            rotation.mark(server, up=False)
            if server.missed == PROBES_MISSED:
                yield Abandon(server)

    def _ready(self) -> Steps[bool]:
        for server in self.rotation().servers:
            with contextlib.suppress(errors.InferenceError):
                request = service_pb2.ServerReadyRequest()
                if (yield from self.call("ServerReady", request, retry=False, server=server)).ready:
                    return True
        return False

    def _index(self) -> Steps[list[str]]:
        index = yield from self.call("RepositoryIndex", service_pb2.RepositoryIndexRequest(ready=True))
        return sorted({model.name for model in index.models})

    def _bound(self, name: str, version: str) -> Steps[Any]:
        which = {"name": name, "version": version}
        try:
            metadata = yield from self.call("ModelMetadata", service_pb2.ModelMetadataRequest(**which), model=name)
        except errors.ModelNotFound as error:
            with contextlib.suppress(errors.InferenceError):
                known = yield from self._index()
                what = f"version {version} of '{name}'" if name in known else f"model '{name}'"
                error.args = (f"{error.endpoint} has no {what}: it serves {', '.join(known) or 'no model'}",)
            raise
        try:
            config = yield from self.call("ModelConfig", service_pb2.ModelConfigRequest(**which), model=name)
        except errors.ServerError as error:
            if error.status != grpc.StatusCode.UNIMPLEMENTED.name:
                raise
            config = None  # a KServe-v2 server without the model configuration extension
        return type(self)._model(self, ModelSpec.from_server(metadata, config, version))


def _metadata(headers: Headers) -> Metadata:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise ValueError(
                f"header {name!r} cannot be sent: names are letters, digits, - _ and ., values plain ASCII"
            )
    return tuple((name.lower(), value) for name, value in headers.items()) or None
