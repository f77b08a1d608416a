"""The calls to the server under test beside the load: checks, metadata, one request, statistics."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import logging
import math
import re
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from clients import OverloadedError, addresses
from clients.failures import Sent, from_rpc, from_text
from clients.options import open_channel
from loadtests.errors import BadRequestError, TargetBusyError, TargetError, TargetLostError
from loadtests.target.access import Access
from loadtests.target.parameters import Payload, keeps_state, new_sequence
from loadtests.target.statistics import composing_models, fell

logger = logging.getLogger("fathom")
_CONNECT_S = 5.0
_ASK_S = 30.0
_GRPC_WAY = re.compile(r"^failed to connect to all addresses; last error: \w+: (ipv[46]:\S+: )?")
_FINAL = "triton_final_response"
FROZEN_S = 10.0
"""Statistics are counters: a server that cannot give them in this time serves nobody."""


@dataclass(frozen=True)
class StreamTimes:
    """The times of one streamed answer; a model that is not decoupled answers in one part.

    Of a sequence, whose requests were sent one after the other, the latency is that of the last.
    """

    latency_ms: float
    ttft_ms: float
    """Time to the first part; of a sequence to the answer of its first request."""
    gap_ms: float
    """The longest time between two parts, 0 where there is one; of a sequence the latency of its slowest request."""
    parts: int

    @property
    def itl_ms(self) -> float:
        """The mean time between two parts; 0 where there is one."""
        return (self.latency_ms - self.ttft_ms) / (self.parts - 1) if self.parts > 1 else 0.0


class Target:
    """One model of one KServe-v2 server, at an address as `clients.Client` takes it. Errors name the server and what to
    do."""

    def __init__(self, server: str, model: str, *, access: Access | None = None, frozen_s: float = FROZEN_S) -> None:
        access = access or Access()
        try:
            addresses.parse(server)
            credentials = access.tls and access.tls.credentials()
        except ValueError as error:
            raise BadRequestError(f"server {error}", field="server") from None
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        self._tls, self._metadata = access.tls, access.metadata()
        self.server = server
        self.model = model
        self._frozen_s = frozen_s
        self._grpc = grpc
        self._pb: Any = service_pb2
        self._channel = open_channel(grpc, access.tls, credentials, server, balance=False)
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self.streams = False
        """Whether its answers come in parts, as those of decoupled models do; known after `check`."""
        self.keeps_state = False
        """Whether it, or a step of it, takes its requests as sequences; known after `check`."""
        self.idle_s = math.inf
        """After so long without a request the server takes a sequence for ended; known after `check`."""
        self.steps: list[str] = []
        """The models that do the work, in order; known after `statistics`, where the server tells."""
        self._has_statistics = True
        self._several_servers = False
        self._last_statistics: list[Any] = []

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def check(self) -> None:
        """Raises TargetError unless the server answers and has the model ready."""
        try:
            ready = self._call("ServerReady", self._pb.ServerReadyRequest(), _CONNECT_S).ready
        except self._grpc.RpcError as error:
            found = from_rpc(error, Sent(self.model, self.server, _CONNECT_S, self._tls))
            raise TargetError(
                f"{found}; start a server with `fathom serve`, or correct the gRPC address", server=self.server
            ) from None
        try:
            model_ready = self._call("ModelReady", self._pb.ModelReadyRequest(name=self.model), _ASK_S).ready
        except self._grpc.RpcError as error:
            raise TargetError(
                f"{self.server} cannot say whether {self.model} is ready: {_reason(error)}",
                server=self.server,
                model=self.model,
            ) from None
        if not model_ready:
            raise TargetError(self._why_not_ready(ready), server=self.server, model=self.model)
        config = self.config()
        self.streams = config is not None and config.model_transaction_policy.decoupled
        stateful = list(filter(keeps_state, map(self.config, composing_models(self.model, self.config))))
        self.keeps_state = bool(stateful)
        idle_us = (each.sequence_batching.max_sequence_idle_microseconds for each in stateful if each is not None)
        self.idle_s = min(filter(None, idle_us), default=math.inf) / 1e6

    def _why_not_ready(self, server_ready: bool) -> str:
        try:
            index = self._call("RepositoryIndex", self._pb.RepositoryIndexRequest(), _ASK_S).models
        except self._grpc.RpcError:
            return self._why_not_served()
        for model in index:
            if model.name == self.model:
                why = model.reason or model.state.lower() or "not loaded"
                return f"model {self.model} is not ready at {self.server} ({why}); load it and try again"
        return self._no_model(model.name for model in index)

    def _why_not_served(self) -> str:
        """By the statistics, which servers that hide the repository's index still give."""
        try:
            served = self._call("ModelStatistics", self._pb.ModelStatisticsRequest(), _ASK_S).model_stats
        except self._grpc.RpcError:
            return f"model {self.model} is not ready at {self.server}; load it and try again"
        return self._no_model(model.name for model in served)

    def _no_model(self, names: Iterable[str]) -> str:
        known = sorted(set(names))
        near = difflib.get_close_matches(self.model, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"{self.server} has no model {self.model}{hint}; it has: {', '.join(known) or 'none'}"

    def metadata(self) -> Any:
        """The model's ModelMetadataResponse, by the name that it was asked for."""
        found = self._ask("ModelMetadata", self._pb.ModelMetadataRequest(name=self.model))
        found.name = self.model
        return found

    def config(self, model: str = "") -> Any | None:
        """A ModelConfig, or None where the server does not offer the extension."""
        try:
            return self._call("ModelConfig", self._pb.ModelConfigRequest(name=model or self.model), _ASK_S).config
        except self._grpc.RpcError:
            return None

    def infer(self, payload: Payload, timeout_s: float) -> float:
        """The latency in ms of one request, until its answer is whole; of a sequence that of its last.

        TargetLostError when there is no answer in time, TargetError with the server's reason when it refuses;
        TargetBusyError when it may take the same request in a moment.
        """
        return self.stream(payload, timeout_s).latency_ms

    def first_part(self, payload: Payload, timeout_s: float) -> float:
        """The time in ms to the first part of one answer, whose rest is cancelled; of a sequence, which is sent whole,
        to its first answer. Raises what `infer` raises."""
        if isinstance(payload, bytes):
            return self._ask_model(payload, timeout_s, most_parts=1).ttft_ms
        return self._sequence(payload, timeout_s).ttft_ms

    def stream(self, payload: Payload, timeout_s: float) -> StreamTimes:
        """One request, and when the parts of its answer came. Raises what `infer` raises."""
        if isinstance(payload, bytes):
            return self._ask_model(payload, timeout_s)
        return self._sequence(payload, timeout_s)

    def _sequence(self, requests: Sequence[bytes], timeout_s: float) -> StreamTimes:
        """Each request as soon as the one before is answered. The last ends a sequence in which another has failed."""
        this, latencies_ms = new_sequence(), list[float]()
        try:
            for request in requests:
                latencies_ms.append(self._ask_model(request + this, timeout_s).latency_ms)
        except TargetError:
            if len(latencies_ms) < len(requests) - 1:
                with contextlib.suppress(TargetError):
                    self._ask_model(requests[-1] + this, timeout_s)
            raise
        return StreamTimes(latencies_ms[-1], latencies_ms[0], max(latencies_ms), 1)

    def _ask_model(self, payload: bytes, timeout_s: float, most_parts: int | None = None) -> StreamTimes:
        begin_s = time.monotonic()
        try:
            with contextlib.closing(self._parts(payload, timeout_s)) as parts:
                came_s = list(itertools.islice(parts, most_parts))
        except self._grpc.RpcError as error:
            if error.code() == self._grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TargetLostError(
                    f"{self.model} at {self.server} gave no {'whole ' if self.streams else ''}answer within "
                    f"{timeout_s:g} s",
                    server=self.server,
                    model=self.model,
                ) from None
            busy = error.code() in (self._grpc.StatusCode.UNAVAILABLE, self._grpc.StatusCode.RESOURCE_EXHAUSTED)
            found = from_rpc(error, Sent(self.model, self.server, timeout_s, self._tls))
            raise self._failed(str(found), busy) from None
        latency_s = time.monotonic() - begin_s
        if not came_s:
            raise self._failed(f"the answer of {self.model} has no part", busy=False)
        gap_s = max((later_s - part_s for part_s, later_s in itertools.pairwise(came_s)), default=0.0)
        return StreamTimes(latency_s * 1e3, (came_s[0] - begin_s) * 1e3, gap_s * 1e3, len(came_s))

    def _parts(self, payload: bytes, timeout_s: float) -> Generator[float, None, None]:
        """When each part of an answer came; closing it cancels the rest."""
        request = self._pb.ModelInferRequest.FromString(payload)
        if not self.streams:
            self._call("ModelInfer", request, timeout_s)
            yield time.monotonic()
            return
        call, is_final = self._call("ModelStreamInfer", iter([request]), timeout_s), True
        try:
            for message in call:
                if words := message.error_message:
                    found = from_text(words, Sent(self.model, self.server))
                    raise self._failed(str(found), isinstance(found, OverloadedError))
                if _FINAL in message.infer_response.parameters:
                    is_final = message.infer_response.parameters[_FINAL].bool_param
                if message.infer_response.outputs:
                    yield time.monotonic()
            if not is_final:
                raise self._failed("the answer ended without the model's final response", busy=False)
        finally:
            call.cancel()

    def _failed(self, why: str, busy: bool) -> TargetError:
        kind = TargetBusyError if busy else TargetError
        first_line = why.partition("\n")[0]  # a python model's traceback follows
        return kind(f"a request sent alone failed: {first_line}", server=self.server, model=self.model)

    def reachable(self) -> bool:
        """Whether anything answers there, ready or not."""
        try:
            self._call("ServerLive", self._pb.ServerLiveRequest(), _CONNECT_S)
        except self._grpc.RpcError as error:
            return bool(error.code() != self._grpc.StatusCode.UNAVAILABLE)
        return True

    def statistics(self) -> list[Any]:
        """A snapshot for `statistics.difference`; empty where the server has no statistics extension.

        Behind a balancer each answer may come from another server. Counters that fall give that away, and two readings
        at once show it early; such a snapshot is empty, too.
        """
        first = self._read_statistics()
        second = self._read_statistics()
        before, self._last_statistics = self._last_statistics, second
        if not (fell(before, first) or fell(first, second)):
            return second
        if not self._several_servers:
            self._several_servers = True
            logger.warning(f"several servers answer at {self.server}, so the figures of the server are left out")
        return []

    def _read_statistics(self) -> list[Any]:
        if not self._has_statistics:
            return []
        if not self.steps:
            self.steps = composing_models(self.model, self.config)
        try:
            found: list[Any] = []
            for step in self.steps:
                request = self._pb.ModelStatisticsRequest(name=step)
                found += self._call("ModelStatistics", request, self._frozen_s).model_stats
        except self._grpc.RpcError as error:
            if error.code() == self._grpc.StatusCode.UNAVAILABLE:
                raise TargetLostError(
                    f"{self.server} does not answer any more: {_reason(error)}", server=self.server
                ) from None
            if error.code() == self._grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TargetLostError(
                    f"{self.server} is reachable but frozen: it returned no statistics within {self._frozen_s:g} s",
                    server=self.server,
                ) from None
            self._has_statistics = False
            return []
        return found

    def server_name(self) -> str:
        """Name and version of the server, such as `triton 2.51.0`; empty where it does not say."""
        try:
            metadata = self._call("ServerMetadata", self._pb.ServerMetadataRequest(), _ASK_S)
        except self._grpc.RpcError:
            return ""
        return f"{metadata.name} {metadata.version}".strip()

    def _call(self, method: str, request: Any, timeout_s: float) -> Any:
        return getattr(self._stub, method)(request, timeout=timeout_s, metadata=self._metadata)

    def _ask(self, method: str, request: Any) -> Any:
        try:
            return self._call(method, request, _ASK_S)
        except self._grpc.RpcError as error:
            raise TargetError(
                f"{self.server} refuses {method} for {self.model}: {_reason(error)}",
                server=self.server,
                model=self.model,
            ) from None


def _reason(error: Any) -> str:
    """The server's words, or the status where it has none; of a failed connection only why, not gRPC's way there."""
    details = (error.details() or "").strip().splitlines()
    return _GRPC_WAY.sub("", details[0]) if details else str(error.code().name)
