"""A fresh server for each configuration, and the probes that it gets."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from clients import InferenceError
from fathom.tuning.models import TunedModel
from fathom.workload import with_requests
from loadtests.capacity import CapacityRequest, start_generators, timeout_s
from loadtests.errors import TargetError
from loadtests.records.point import Point, Probe
from loadtests.search.probe import Prober
from loadtests.search.unloaded import Unloaded, measure_unloaded
from loadtests.target.access import Access
from loadtests.target.metrics import MetricsMeter
from loadtests.tuning.arm import Answer, Turn
from loadtests.tuning.space import Configuration
from loadtests.workload.workload import ModelWeight, Workload
from server import TritonServer, TritonServerError

_ALIVE = 2
"""Servers at the same time: the leader and its challenger. Only one of them is under load at any moment."""


@dataclass
class Lane:
    """One configuration, served and ready for probes."""

    server: TritonServer
    traffic: Workload
    unloaded: Unloaded
    send: Callable[[Probe], Point]
    close: Callable[[], None]


class Servers:
    """The servers of a race; at its end none is left. `request` says how to measure, without server and payloads;
    `inputs` names a file with requests, else they are the recipe's or made from the server's metadata."""

    def __init__(
        self,
        tuned: TunedModel,
        scratch: Path,
        request: CapacityRequest,
        tritonserver: Path | None,
        inputs: Sequence[str] = (),
    ) -> None:
        self._tuned, self._scratch, self._inputs = tuned, scratch, inputs
        self._request, self._tritonserver = request, tritonserver
        self._lanes: dict[Configuration, Lane] = {}
        self._started = 0

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for configuration in list(self._lanes):
            self.stop(configuration)

    def answer(self, turn: Turn) -> Answer:
        """The point of a turn, or why this configuration does not serve. Raises KeyboardInterrupt for Ctrl-C."""
        began_s = time.monotonic()
        try:
            lane = self.lane(turn.configuration)
            point = lane.send(turn.probe)
        except (TritonServerError, TargetError, InferenceError) as error:
            reason = self._why_died(turn.configuration) or str(error)
            self.stop(turn.configuration)
            return Answer(time.monotonic() - began_s, None, " ".join(reason.split()))
        if point.stopped == "asked":
            raise KeyboardInterrupt
        if point.stopped == "connection lost":
            reason = self._why_died(turn.configuration) or point.reason
            self.stop(turn.configuration)
            return Answer(time.monotonic() - began_s, None, f"at {point.rate_per_s:.0f}/s the server died: {reason}")
        return Answer(time.monotonic() - began_s, point)

    def lane(self, configuration: Configuration) -> Lane:
        """The server of a configuration, started where it does not run. Raises TritonServerError, TargetError,
        SloUnreachableError."""
        if configuration in self._lanes:
            self._lanes[configuration] = self._lanes.pop(configuration)  # the latest last
            return self._lanes[configuration]
        while len(self._lanes) >= _ALIVE:
            self.stop(next(iter(self._lanes)))
        self._started += 1
        folder = self._scratch / str(self._started)
        self._tuned.lay_out(self._tuned.configured(configuration), folder)
        with contextlib.ExitStack() as stack:
            server = TritonServer(folder, tritonserver=self._tritonserver, stop_timeout_s=0).start()
            stack.callback(server.stop)
            self._lanes[configuration] = _open(server, self._tuned, self._request, self._inputs, stack)
        return self._lanes[configuration]

    def stop(self, configuration: Configuration) -> None:
        """The server of a configuration, if it runs."""
        if lane := self._lanes.pop(configuration, None):
            lane.close()

    def _why_died(self, configuration: Configuration) -> str:
        lane = self._lanes.get(configuration)
        return "" if lane is None or lane.server.is_alive() else lane.server.death_reason()


def _open(
    server: TritonServer,
    tuned: TunedModel,
    request: CapacityRequest,
    inputs: Sequence[str],
    stack: contextlib.ExitStack,
) -> Lane:
    request = replace(request, server=server.grpc_url)
    alone = [ModelWeight(tuned.model)]
    shares = with_requests(request.server, alone, tuned.repository, Access(), inputs=inputs, seed=request.seed)
    traffic = stack.enter_context(Workload(request.server, shares, seed=request.seed))
    traffic.refuse_sequences("fathom capacity --against CONFIG, which compares two configurations")
    traffic.check()
    # Without SLOs: another configuration may meet what this one misses.
    unloaded = measure_unloaded(traffic, (), timeout_s=timeout_s(request, traffic), budget_s=request.budget_s)
    generators = stack.enter_context(start_generators(request, traffic, unloaded.answer_s))
    metrics = MetricsMeter(server.metrics_url)
    prober = Prober(generators, traffic, request.slos, None, metrics, request.timing, answer_s=unloaded.answer_s)

    def send(probe: Probe) -> Point:
        deadline_s = timeout_s(request, traffic, unloaded.answer_s)
        return prober.send(probe, unloaded.ttft_ms, timeout_s=deadline_s, left_s=request.budget_s)

    return Lane(server, traffic, unloaded, send, stack.pop_all().close)
