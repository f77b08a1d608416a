"""What a client does, without I/O: both transports drive these generators.

A generator yields a step (Send, Pause or Abandon), and gets back the answer or has the gRPC error thrown into it. So
deadlines, retries, the choice of a server and the wording of errors are written once.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import grpc
from tritonclient.grpc import service_pb2

from clients import errors
from clients.metrics import Metrics
from clients.options import DEFAULT_TIMEOUT_S, TLS, Headers, Options, Retries, is_balanced, warn_if_insecure
from clients.regions import RegionPool
from clients.retries import Budget, is_retryable, may_have_run, pause_s
from clients.servers import PROBE_EVERY_S, PROBE_TIMEOUT_S, PROBES_MISSED, Rotation, Server
from clients.spec import ModelSpec

T = TypeVar("T")
CLOSED = "this client is closed: make another, or close it later"
_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class Send(NamedTuple):
    """Call a method of a server; the step's answer is what it returns."""

    server: Server
    method: str
    request: Any
    timeout_s: float
    metadata: tuple[tuple[str, str], ...] | None


class Begun(NamedTuple):
    """A try that a transport has made by itself, and how it failed."""

    server: Server
    started_s: float
    failure: grpc.RpcError | None


class Pause(NamedTuple):
    """Wait."""

    seconds: float


class Abandon(NamedTuple):
    """Cancel every call in flight on a server that answers nothing."""

    server: Server


Steps = Generator[Send | Pause | Abandon, Any, T]


class Connection:
    """One or several equal KServe-v2 servers.

    `endpoint` is `host:port`, a list of them, or a target that gRPC resolves and balances (`dns:///triton:8001`).
    Every call has a deadline: `timeout_s` is the default of all. `headers` go with every request (tokens, Triton's
    `triton-grpc-protocol-...`); a function is called for each, such as `clients.tracing.trace_context`. Without `tls`,
    a warning is given for other machines. `metrics=Metrics()` counts requests and their durations for Prometheus.
    """

    _grpc: ClassVar[Any]

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
        addresses = (endpoint,) if isinstance(endpoint, str) else tuple(endpoint)
        if not addresses or not all(addresses):
            raise ValueError("no server to connect to: give 'host:port', or a list of them")
        self.endpoint = ", ".join(addresses)
        self.options = Options(timeout_s, headers or {}, tls, retries or Retries(), shared_memory)
        self.budget = Budget(self.options.retries)
        self.metrics = metrics
        if tls is None:
            warn_if_insecure(addresses, stacklevel=3)
        self._addresses = addresses
        self._credentials = tls.credentials() if tls is not None else None
        self._fixed_metadata = None if callable(self.options.headers) else _metadata(self.options.headers)
        self._makes_headers = callable(self.options.headers)
        self._rotation: Rotation | None = None
        self._opening = threading.Lock()
        self._closed = threading.Event()
        if shared_memory is not None and (len(addresses) > 1 or is_balanced(addresses[0])):
            raise ValueError("shared memory is for one server on this machine: name it, or leave shared_memory out")
        self.pool = RegionPool(shared_memory) if shared_memory is not None else None
        self._reached = False  # whether any server ever answered

    @property
    def timeout_s(self) -> float:
        """The deadline of calls that name none, in seconds."""
        return self.options.timeout_s

    def rotation(self) -> Rotation:
        """The servers; the first use opens their channels. Raises ValueError for a client that was closed."""
        if self._rotation is None:
            if self._closed.is_set():
                raise ValueError(CLOSED)
            with self._opening:
                if self._rotation is None:
                    rotation = Rotation([Server(address, self._open_channel) for address in self._addresses])
                    self._rotation = rotation
                    if len(rotation.servers) > 1:
                        self._start_probing()
        return self._rotation

    def _open_channel(self, address: str) -> Any:
        return self.options.open(self._grpc, address, self._credentials)

    def open_unbalanced(self, address: str) -> Any:
        """A channel that keeps to one server even where a name stands for several."""
        return self.options.open(self._grpc, address, self._credentials, balance=False)

    def _start_probing(self) -> None:
        raise NotImplementedError

    def metadata(self, headers: Headers | None) -> tuple[tuple[str, str], ...] | None:
        """gRPC metadata of one request: the client's headers and its own."""
        fixed = self._fixed_metadata
        if callable(self.options.headers):
            fixed = _metadata(self.options.headers())
        return fixed if not headers else (fixed or ()) + (_metadata(headers) or ())

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
        begun: Begun | None = None,
    ) -> Steps[Any]:
        """Send a request until it is answered, refused for good, or its deadline passes.

        `retry` is false for what must not run twice; `server` pins it to one; `begun` is a first try that failed.
        Raises one of `clients.errors`.
        """
        timeout_s = self.options.timeout_s if timeout_s is None else timeout_s
        rotation = self._rotation or self.rotation()
        chosen, started_s, failure = begun or Begun(server or rotation.pick(), time.monotonic(), None)
        deadline_s = started_s + timeout_s
        left_s = timeout_s
        metadata = self.metadata(headers)
        self.budget.earn()
        failures = 0
        while True:
            if failure is None:
                try:
                    answer = yield Send(chosen, method, request, left_s, metadata)
                except grpc.RpcError as rpc:
                    failure = rpc
                else:
                    chosen.answered_s = time.monotonic()
                    self._reached = True
                    return answer
            error = errors.from_rpc(failure, model=model, endpoint=chosen.address, timeout_s=timeout_s)
            failures += 1
            pause = self._judge(rotation, chosen, error, failures)
            left_s = deadline_s - time.monotonic()
            if not retry or pause is None or pause >= left_s:
                raise error
            if may_have_run(error) and not self.budget.spend():
                error.add_note("not sent again: the retry budget is spent, see clients.Retries")
                raise error
            self.budget.retried += 1
            yield Pause(pause)
            left_s = deadline_s - time.monotonic()
            chosen, failure = server or rotation.pick(), None

    def _judge(self, rotation: Rotation, server: Server, error: errors.InferenceError, failures: int) -> float | None:
        """Seconds to wait before the next try, or None for an error that stands."""
        if not isinstance(error, errors.Unreachable):
            self._reached = self._reached or not isinstance(error, errors.DeadlineExceeded)
        # A server that drains after SIGTERM unloads its models first; another one has them.
        moves = isinstance(error, errors.ModelNotReady) and rotation.has_other(server)
        if moves or (isinstance(error, errors.Unreachable) and rotation.lone is None):
            rotation.mark(server, up=False)
        if not moves and not is_retryable(error, self.options.retries):
            return None
        if not self._reached and failures >= len(rotation.servers):
            return None  # none of them has ever answered: more likely a wrong address than a restart
        return pause_s(self.options.retries, failures)

    def probing(self) -> Steps[None]:
        """Ask every server for its health, for ever; keeps the rotation up to date."""
        rotation = self.rotation()
        while True:
            yield Pause(PROBE_EVERY_S)
            for server in rotation.servers:
                yield from self._probe(rotation, server)

    def _probe(self, rotation: Rotation, server: Server) -> Steps[None]:
        metadata = self.metadata(None)
        try:
            reply = yield Send(server, "ServerReady", service_pb2.ServerReadyRequest(), PROBE_TIMEOUT_S, metadata)
        except grpc.RpcError as error:
            server.missed += 1
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                # A machine that is merely busy answers something: only complete silence counts.
                if time.monotonic() - server.answered_s >= PROBE_TIMEOUT_S and rotation.has_other(server):
                    rotation.mark(server, up=False)
                    if server.missed == PROBES_MISSED:
                        yield Abandon(server)
            elif errors.is_connection_failure(error):
                rotation.mark(server, up=False)
            else:
                rotation.mark(server, up=True)  # it answers, if only that health is not ours to ask
        else:
            server.missed = 0
            server.answered_s = time.monotonic()
            rotation.mark(server, up=bool(reply.ready))

    def ready(self) -> Steps[bool]:
        """Whether any server is ready."""
        for server in self.rotation().servers:
            try:
                reply = yield from self.call(
                    "ServerReady", service_pb2.ServerReadyRequest(), retry=False, server=server
                )
            except errors.InferenceError:
                continue
            if reply.ready:
                return True
        return False

    def index(self) -> Steps[list[str]]:
        """Names of the models that are ready."""
        index = yield from self.call("RepositoryIndex", service_pb2.RepositoryIndexRequest(ready=True))
        return sorted({model.name for model in index.models})

    def signature(self, name: str, version: str) -> Steps[ModelSpec]:
        """What a model takes and gives."""
        try:
            request = service_pb2.ModelMetadataRequest(name=name, version=version)
            metadata = yield from self.call("ModelMetadata", request, model=name)
        except errors.ModelNotFound as error:
            raise (yield from self._not_found(name, version, error)) from error
        try:
            request = service_pb2.ModelConfigRequest(name=name, version=version)
            config = yield from self.call("ModelConfig", request, model=name)
        except errors.ServerError as error:
            if error.status != grpc.StatusCode.UNIMPLEMENTED.name:
                raise
            config = None  # a KServe-v2 server without the model configuration extension
        return ModelSpec.from_server(metadata, config, version)

    def _not_found(self, name: str, version: str, error: errors.ModelNotFound) -> Steps[errors.InferenceError]:
        try:
            known = yield from self.index()
        except errors.InferenceError:
            return error
        what = f"version {version} of '{name}'" if name in known else f"model '{name}'"
        return errors.ModelNotFound(
            f"{error.endpoint} has no {what}: it serves {', '.join(known) or 'no model'}",
            model=name,
            endpoint=error.endpoint,
            status=error.status,
        )


def _metadata(headers: Headers) -> tuple[tuple[str, str], ...] | None:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise ValueError(
                f"header {name!r} cannot be sent: names are letters, digits, - _ and ., values plain ASCII"
            )
    return tuple((name.lower(), value) for name, value in headers.items()) or None
