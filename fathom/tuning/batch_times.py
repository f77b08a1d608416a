"""How long batches take on this machine: one server, to which each variant of a step is loaded, timed and unloaded."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from clients import Client, InferenceError
from export.config.knobs import with_knobs
from fathom.replica import call
from fathom.tuning.models import TunedModel
from fathom.tuning.times import Times, timed, variants
from loadtests.simulation.times import BatchTimes
from loadtests.target.steps import by_class, shape_class, stacked, trace
from loadtests.tuning.space import INSTANCES, Configuration
from server import TritonServer, TritonServerError, loading

_LOAD_S, _CALL_S = 120.0, 30.0
_SIZES, _FEW_SIZES, _FEW = (1, 2, 4, 8, 16, 32), (1, 4, 16, 32), 2
"""Rows of the batches that are timed; fewer where there are more than so many shapes."""
_ROUNDS, _LEAST_S, _LEAST_BATCHES, _ROUNDS_S = 3, 0.05, 2, 3.0
"""Each entry of a table is timed in so many rounds, each with so many seconds and batches. The quickest round counts:
what else runs on the machine only adds to it. No further round is begun after so many seconds."""
_MOST_CLASSES = 6
"""Shapes that are timed; rarer ones count as the next larger."""
_TRACED = 32
"""Requests that are passed through the pipeline."""


def infer(client: Client, request: Any) -> Any:
    """One ModelInferRequest to its response. Raises InferenceError."""
    answer = call(client, "ModelInfer", request.SerializeToString(), _CALL_S)
    return service_pb2.ModelInferResponse.FromString(answer)


class TimingServer:
    """A server that loads one model at a time, in any variant."""

    def __init__(self, tuned: TunedModel, folder: Path, tritonserver: Path | None) -> None:
        tuned.lay_out(tuned.messages, folder)
        self._tuned = tuned
        self._folder, self._tritonserver = folder, tritonserver
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> TimingServer:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        extra = (*loading.flags(self._tuned.others), "--strict-readiness=false")
        server = TritonServer(self._folder, tritonserver=self._tritonserver, stop_timeout_s=0, extra=extra)
        self._server = self._stack.enter_context(server)
        self._client = self._stack.enter_context(
            Client(server.grpc_url, timeout_s=_CALL_S, headers=server.admin_headers)
        )

    @contextlib.contextmanager
    def loaded(self, model: str, message: Any) -> Iterator[None]:
        """The model with this configuration, for the block. Raises InferenceError, and TritonServerError where the
        server died of it; the next variant then meets a fresh one."""
        request = service_pb2.RepositoryModelLoadRequest(model_name=model)
        request.parameters["config"].string_param = json_format.MessageToJson(message, preserving_proto_field_name=True)
        try:
            call(self._client, "RepositoryModelLoad", request, _LOAD_S)
            yield
            unload = service_pb2.RepositoryModelUnloadRequest(model_name=model)
            call(self._client, "RepositoryModelUnload", unload, _LOAD_S)
        except InferenceError as error:
            if self._server.is_alive():
                raise
            reason = self._server.death_reason()
            self._stack.close()
            self._start()
            raise TritonServerError(f"the server died: {reason}") from error

    def infer(self, request: Any) -> Any:
        """One ModelInferRequest to its response."""
        return infer(self._client, request)

    def table(self, requests: Sequence[Any], sizes: Sequence[int], most_busy: int) -> BatchTimes:
        """Times of batches of the first request's shape; requests carry one row each."""
        wholes = {size: stacked(list(itertools.islice(itertools.cycle(requests), size))) for size in sizes}
        for whole in wholes.values():
            self.infer(whole)  # the first batch of a size takes memory, too
        seconds: dict[int, dict[int, float]] = {busy: {} for busy in sorted({1, most_busy})}
        began_s = time.monotonic()
        for number in range(_ROUNDS):
            if number and time.monotonic() > began_s + _ROUNDS_S:
                break
            for busy, row in seconds.items():
                for size in sizes:
                    row[size] = min(row.get(size, math.inf), self._seconds(wholes[size], size, busy))
        return BatchTimes({busy: _rising(row) for busy, row in seconds.items()})

    def _seconds(self, request: Any, rows: int, busy: int) -> float:
        """Mean seconds of a batch with so many in flight, by the server's own account."""
        before = self._computed(request.model_name, rows)
        end_s = time.monotonic() + _LEAST_S
        failures: list[InferenceError] = []

        def ask() -> None:
            done = 0
            while done < _LEAST_BATCHES or time.monotonic() < end_s:
                try:
                    self.infer(request)
                except InferenceError as error:
                    failures.append(error)
                    return
                done += 1

        threads = [threading.Thread(target=ask, name="fathom-tune", daemon=True) for _ in range(busy)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        after = self._computed(request.model_name, rows)
        return max(after[0] - before[0], 1) / 1e9 / max(after[1] - before[1], 1)

    def _computed(self, model: str, rows: int) -> tuple[int, int]:
        """Nanoseconds of work on batches of so many rows, and how many there were."""
        request = service_pb2.ModelStatisticsRequest(name=model)
        found = call(self._client, "ModelStatistics", request, _CALL_S).model_stats
        for batch in (batch for stats in found for batch in stats.batch_stats if batch.batch_size == rows):
            parts = (batch.compute_input, batch.compute_infer, batch.compute_output)
            return sum(part.ns for part in parts), batch.compute_infer.count
        return 0, 0


def _rising(row: Mapping[int, float]) -> dict[int, float]:
    """No batch takes longer than a larger one."""
    return {size: min(seconds for larger, seconds in row.items() if larger >= size) for size in row}


def measure(
    times: Times, server: TimingServer, models: Sequence[str], traced: Mapping[str, Sequence[Any]], until_s: float
) -> list[tuple[str, str]]:
    """Fill the tables of these models, the committed variant of each first; returns what there was no time for.

    `traced` has each model's requests of one row. A variant that does not load is a failure, not an error.
    """
    left_out = []
    for model in models:
        for number, configuration in enumerate(variants(times.space, model)):
            key = (model, timed(configuration, model))
            if key in times.tables or key in times.failures:
                continue
            if number and time.monotonic() > until_s:
                left_out.append((str(configuration), "there was no time to measure its batches"))
                continue
            try:
                times.tables[key] = _table(times, server, model, configuration, traced[model])
            except (InferenceError, TritonServerError) as error:
                times.failures[key] = " ".join(str(error).split())
    return left_out


def _table(
    times: Times, server: TimingServer, model: str, configuration: Configuration, requests: Sequence[Any]
) -> Mapping[int, BatchTimes]:
    step = times.space.step(model)
    values = [int(each.of(step)[INSTANCES]) for each in times.space.vary(model)
              if timed(each, model) == timed(configuration, model)]  # fmt: skip
    busy = max(values, default=int(step.committed[INSTANCES]))
    message = with_knobs(times.tuned.messages[model], {**configuration.models().get(model, {}), INSTANCES: busy})
    most = min(message.max_batch_size or 1, step.largest_batch or message.max_batch_size or 1)
    message.ClearField("dynamic_batching")  # each request is a batch of its own
    del message.model_warmup[:]
    classes = dict(itertools.islice(by_class(requests).items(), _MOST_CLASSES))
    with server.loaded(model, message):
        for some in classes.values():
            server.infer(some[0])
        sizes = [size for size in (_SIZES if len(classes) <= _FEW else _FEW_SIZES) if size <= most] or [1]
        return {number: server.table(some, sizes, busy) for number, some in classes.items()}


def trace_all(tuned: TunedModel, requests: Sequence[bytes], infer: Any) -> dict[str, list[Any]]:
    """The requests of each model when the pipeline gets these."""
    found: dict[str, list[Any]] = {}
    for raw in requests[:: max(len(requests) // _TRACED, 1)][:_TRACED]:  # of the whole: files begin with short ones
        request = service_pb2.ModelInferRequest.FromString(raw)
        for model, own in trace(tuned.model, request, infer, tuned.messages.__getitem__).items():
            found.setdefault(model, []).append(own)
    return found


def classes_of(traced: Mapping[str, Sequence[Any]]) -> dict[str, list[int]]:
    """The class of shape of each request at each model."""
    return {model: [shape_class(request) for request in requests] for model, requests in traced.items()}
