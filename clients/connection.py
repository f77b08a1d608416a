"""The code that both clients share: coroutines over a transport that each of them adds.

The blocking client's transport answers before it returns, so that its coroutines run to their end without ever waiting;
the asyncio client's are awaited. So deadlines, retries, the choice of a server and the wording of errors are the same.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar, cast

import grpc
from tritonclient.grpc import service_pb2

from . import addresses, life, options, proxies
from .errors import InferenceError, InvalidInputError, ModelNotFoundError
from .failures import Sent, from_rpc
from .metrics import Metrics
from .options import TLS, Headers, Metadata, Retries
from .regions import RegionPool
from .retries import Budget, is_retryable, pause_s
from .servers import Rotation, Server
from .spec import ModelSpec

# What the methods give: values for the blocking client, the same to await for the asyncio one.
Flag = TypeVar("Flag")
Names = TypeVar("Names")
Bound = TypeVar("Bound")
_NOT_OFFERED = ("UNIMPLEMENTED", "PERMISSION_DENIED", "UNAUTHENTICATED")
CLOSED = "this client is closed: make another, or close it later"


class Connection(Generic[Flag, Names, Bound]):
    """One or several equal KServe-v2 servers.

    `endpoint` is `host:port`, a list of them, or a target that gRPC resolves and balances (`dns:///triton:8001`).
    Every call has a deadline: `timeout_s` is the default of all. `headers` go with every request (tokens, Triton's
    `triton-grpc-protocol-...`); a function is called for each, such as `trace_context`. Without `tls`,
    a warning is given for other machines. `metrics=Metrics()` counts requests and their durations for Prometheus.
    An answer of more than `max_answer_bytes`, or a compressed one, is a ServerError before it takes up memory.

    Of several servers, each is asked for its health every `probe_every_s`; one that answers nothing within
    `probe_timeout_s`, `probes_missed` times, loses its requests to another. A `dns:` name is looked up every
    `resolve_every_s` by `resolve`, from "host:port" to a list of such (by default the system's resolver).
    """

    _grpc: ClassVar[Any]  # the module that makes channels
    _model: ClassVar[type[Any]]
    is_asyncio: ClassVar[bool]
    run: Callable[[Coroutine[Any, Any, Any]], Any]  # a coroutine of this package, to its end
    send: Callable[..., Coroutine[Any, Any, Any]]  # (server, method, request, timeout_s, metadata): answer or RpcError
    pause: Callable[[float], Coroutine[Any, Any, None]]
    wait: Callable[[Any, float], Coroutine[Any, Any, None]]  # for an event of the kind `_event`, so many seconds
    begin: Callable[[Coroutine[Any, Any, None]], None]  # run it beside everything else, until it ends
    in_background: Callable[..., Coroutine[Any, Any, Any]]  # in what was begun, call a function that blocks
    cancel_in_flight: Callable[[Server], Coroutine[Any, Any, None]]  # every call on a server
    _event: ClassVar[type[Any]]
    _opened: Callable[[Rotation], None]  # what is to be done once there are channels

    def __init__(
        self,
        endpoint: str | Sequence[str],
        *,
        timeout_s: float = options.DEFAULT_TIMEOUT_S,
        headers: Headers | Callable[[], Headers] | None = None,
        tls: TLS | None = None,
        retries: Retries | None = None,
        shared_memory: str | None = None,
        metrics: Metrics | None = None,
        probe_every_s: float = 1.0,
        probe_timeout_s: float = 1.0,
        probes_missed: int = 2,
        resolve: Callable[[str], Sequence[str]] | None = None,
        resolve_every_s: float = 5.0,
        max_answer_bytes: int = options.MOST_ANSWER_BYTES,
    ) -> None:
        self.addresses = addresses.parse(endpoint)
        # A proxy looks names up itself.
        self.names = ["" if proxies.on_the_way_to(at) else addresses.name_in(at) for at in self.addresses]
        self.endpoint = ", ".join(self.addresses)
        self.timeout_s, self.headers, self.tls, self.metrics = options.seconds(timeout_s), headers or {}, tls, metrics
        self.retries = retries or Retries()
        options.warn_if_insecure(self.addresses, tls, stacklevel=3)
        self.probe_every_s = options.seconds(probe_every_s, "probe_every_s")
        self.probe_timeout_s = options.seconds(probe_timeout_s, "probe_timeout_s")
        self.probes_missed = probes_missed
        self.resolve = resolve or addresses.look_up
        self.resolve_every_s = options.seconds(resolve_every_s, "resolve_every_s")
        self._credentials = tls and tls.credentials()
        self.max_answer_bytes = options.answer_limit(max_answer_bytes)
        self.open = self._opener(tls)
        self.bound: dict[str, str] = {}  # the models in use, and the version of each
        self._metadata = () if callable(self.headers) else options.as_metadata(self.headers)
        self._closed = threading.Event()
        self.pool: RegionPool | None = None
        self.renew()
        if shared_memory is not None:
            self.pool = RegionPool(shared_memory, self.addresses)

    def is_ready(self) -> Flag:
        """Whether a server can be reached and all its models are ready."""
        return cast(Flag, self.run(self._is_ready()))

    def models(self) -> Names:
        """Names of the models that are ready, sorted."""
        return cast(Names, self.run(self._names()))

    def model(self, name: str, *, version: str = "") -> Bound:
        """A model of the server; its metadata and configuration are fetched here, once.

        Raises ModelNotFoundError (naming the models there are), ModelNotReadyError, UnreachableError or
        DeadlineExceededError.
        """
        return cast(Bound, self.run(self._fetch(name, str(version))))

    def renew(self) -> None:
        """Begin as if nothing had been asked yet: in a fork, channels, threads and locks are its parent's."""
        self._rotation: Rotation | None = None
        self._opening, closed = threading.Lock(), self._closed.is_set()
        self._closed = threading.Event()
        if closed:
            self._closed.set()
        self.budget = Budget(self.retries)
        if self.pool is not None:
            self.pool.renew()

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled, and neither can its models: its connections belong "
            f"to this process. Pass on the address ({self.endpoint!r}) and make a client there"
        )

    def rotation(self) -> Rotation:
        """The servers; the first use opens their channels. Raises ValueError for a client that was closed."""
        if self._closed.is_set():
            raise ValueError(CLOSED)
        if self._rotation is None:
            with self._opening:
                if self._rotation is None:
                    life.settle(self)
                    endpoints = [*zip(self.addresses, self.names, strict=True)]
                    groups = [() if name else (self.connect(address),) for address, name in endpoints]
                    fallback = [self.connect(address) for address, name in endpoints if name]  # gRPC looks it up
                    rotation = self._rotation = Rotation(groups, fallback, self._event())
                    self._opened(rotation)
        return self._rotation

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    def connect(self, address: str, name: str = "") -> Server:
        """A server with its channel, which opens at the first call. `name` (host:port) was looked up to find it."""
        tls = self.tls
        if tls is not None and name and not tls.server_name:
            tls = replace(tls, server_name=name.rpartition(":")[0].strip("[]"))
        return Server(address, functools.partial(self._opener(tls), name=name), tls)

    def _opener(self, tls: TLS | None) -> Callable[..., Any]:
        """What makes a channel to an address."""
        return functools.partial(
            options.open_channel, self._grpc, tls, self._credentials, max_answer_bytes=self.max_answer_bytes
        )

    def within_s(self, timeout_s: float | None) -> float:
        """How long a call may take: its own time-out, or the client's. Raises ValueError."""
        return self.timeout_s if timeout_s is None else options.seconds(timeout_s)

    def metadata(self, headers: Headers | None = None) -> Metadata:
        """What goes with a request: the client's headers and its own."""
        common = options.as_metadata(self.headers()) if callable(self.headers) else self._metadata
        return common + options.as_metadata(headers) if headers else common

    def sent(self, server: Server, model: str, timeout_s: float, metadata: Metadata) -> Sent:
        """What an error says of a request."""
        header_bytes = sum(len(name) + len(value) for name, value in metadata)
        return Sent(model, server.address, timeout_s, server.tls, header_bytes)

    async def call(
        self,
        method: str,
        request: Any,
        *,
        model: str = "",
        timeout_s: float | None = None,
        deadline_s: float | None = None,
        headers: Headers | None = None,
        retry: bool = True,
        server: Server | None = None,
    ) -> Any:
        """Send a request until it is answered, refused for good, or its deadline passes.

        `deadline_s` is on the monotonic clock, for a call that has begun before; by default `timeout_s` from now.
        `retry` is false for what must not run twice; `server` pins it to one. Raises one of InferenceError's kinds.
        """
        rotation, metadata, failures = self.rotation(), self.metadata(headers), 0
        timeout_s, now_s = self.within_s(timeout_s), time.monotonic()
        deadline_s = now_s + timeout_s if deadline_s is None else deadline_s
        tries = 0  # that may have run
        self.budget.earn()
        if not rotation.settled.is_set():
            await self.wait(rotation.settled, max(deadline_s - now_s, 0.0))
            now_s = time.monotonic()
        left_s = max(deadline_s - now_s, 0.0)
        while True:
            chosen = server or rotation.lone or rotation.pick(model)
            reply = await self.send(chosen, method, request, left_s, metadata)
            if not isinstance(reply, grpc.RpcError):
                return reply
            error = from_rpc(reply, self.sent(chosen, model, timeout_s, metadata))
            failures, tries = failures + 1, tries + error.may_have_run
            pause = pause_s(self.retries, failures)
            moves = rotation.record_failure(chosen, error) and server is None
            again = moves or is_retryable(error, self.retries, tries)
            if (
                not (retry and again)
                or rotation.looks_misconfigured(failures, error)
                or time.monotonic() + pause >= deadline_s
            ):
                raise error
            self.budget.take(error)
            await self.pause(pause)
            left_s = deadline_s - time.monotonic()

    async def signature_now(self, spec: ModelSpec, error: InvalidInputError, timeout_s: float) -> ModelSpec:
        """The signature of a model at the server that refused a request; `spec` where the server does not answer."""
        server = next((server for server in self.rotation().servers if server.address == error.endpoint), None)
        with contextlib.suppress(InferenceError):
            return await self._signature(spec.name, spec.version, server=server, timeout_s=timeout_s)
        return spec

    async def _is_ready(self) -> bool:
        rotation = self.rotation()
        await self.wait(rotation.settled, self.timeout_s)
        for server in rotation.servers:
            with contextlib.suppress(InferenceError):
                request = service_pb2.ServerReadyRequest()
                if (await self.call("ServerReady", request, retry=False, server=server)).ready:
                    return True
        return False

    async def _names(self) -> list[str]:
        found: Any
        try:  # before the repository's index, which servers that load models on request hide
            found = (await self.call("ModelStatistics", service_pb2.ModelStatisticsRequest())).model_stats
        except InferenceError as error:
            if error.status not in _NOT_OFFERED:
                raise
            found = (await self.call("RepositoryIndex", service_pb2.RepositoryIndexRequest(ready=True))).models
        return sorted({model.name for model in found})

    async def _fetch(self, name: str, version: str) -> Any:
        try:
            model = self._model(self, await self._signature(name, version))
        except ModelNotFoundError as error:
            with contextlib.suppress(InferenceError):
                known = await self._names()
                error.served = tuple(known)
                near = "".join(f" (did you mean {each}?)" for each in difflib.get_close_matches(name, known, n=1))
                what = f"version {version} of '{name}'" if name in known else f"model '{name}'{near}"
                error.args = (f"{error.endpoint} has no {what}: it serves {', '.join(known) or 'no model'}",)
            raise
        self.bound[name] = version
        return model

    async def _signature(self, name: str, version: str, **options: Any) -> ModelSpec:
        """Fetch a model's metadata and configuration; `options` are those of `call`."""
        which = {"name": name, "version": version}
        options["model"] = name
        metadata = await self.call("ModelMetadata", service_pb2.ModelMetadataRequest(**which), **options)
        try:
            config = await self.call("ModelConfig", service_pb2.ModelConfigRequest(**which), **options)
        except InferenceError as error:
            if error.status not in _NOT_OFFERED and "protocol is restricted" not in error.details:
                raise
            config = None  # without the model configuration extension, or it is not for this client
        return ModelSpec.from_server(metadata, config, version)
