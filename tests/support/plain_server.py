# ruff: noqa: N802  (gRPC names the calls)
"""The least that is a KServe-v2 server: it answers inferences and says as little about itself as the flags let it."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

_TYPED = {"FP32": ("fp32_contents", np.float32), "INT64": ("int64_contents", np.int64)}
_OPTIONAL = ("ServerMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex")


class PlainServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers each input of `model` as an output; `address` is where.

    `without` names calls that are not implemented; `typed` answers in `contents`, `empty` without any output.
    A model with `most_rows` refuses requests whose first dimension is larger. `refusing` is the status of what is not
    implemented; `credentials` are for TLS.
    """

    def __init__(
        self,
        model: str = "m",
        *,
        without: tuple[str, ...] = _OPTIONAL,
        typed: bool = False,
        empty: bool = False,
        inputs: tuple[tuple[str, str, tuple[int, ...]], ...] = (("x", "FP32", (-1, 4)),),
        most_rows: int | None = None,
        refusing: grpc.StatusCode = grpc.StatusCode.UNIMPLEMENTED,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.refusing, self.credentials = refusing, credentials
        self.model_ready = True
        self.hold = threading.Event()
        """Inferences wait for it."""
        self.hold.set()
        self.told_name = model
        self.model, self.without, self.typed, self.empty = model, without, typed, empty
        self.inputs, self.most_rows = inputs, most_rows
        self.shapes: Counter[tuple[tuple[int, ...], ...]] = Counter()
        """How many inferences came with these shapes."""
        self._lock = threading.Lock()

    def __enter__(self) -> PlainServer:
        self._server = grpc.server(ThreadPoolExecutor(8))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        if self.credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", self.credentials)
        self.address = f"127.0.0.1:{port}"
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()

    @property
    def answered(self) -> int:
        return sum(self.shapes.values())

    def ServerLive(self, request: Any, context: Any) -> Any:
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> Any:
        return pb.ServerReadyResponse(ready=True)

    def ModelReady(self, request: Any, context: Any) -> Any:
        return pb.ModelReadyResponse(ready=request.name == self.model and self.model_ready)

    def ServerMetadata(self, request: Any, context: Any) -> Any:
        self._unless_left_out("ServerMetadata", context)
        return pb.ServerMetadataResponse(name="plain", version="1")

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        found = pb.ModelMetadataResponse(name=self.told_name)
        for name, datatype, shape in self.inputs:
            found.inputs.add(name=name, datatype=datatype, shape=shape)
            if not self.empty:
                found.outputs.add(name=name, datatype=datatype, shape=shape)
        return found

    def ModelConfig(self, request: Any, context: Any) -> Any:
        self._unless_left_out("ModelConfig", context)
        return pb.ModelConfigResponse(config={"name": self.model, "max_batch_size": self.most_rows or 0})

    def ModelStatistics(self, request: Any, context: Any) -> Any:
        self._unless_left_out("ModelStatistics", context)
        return pb.ModelStatisticsResponse(model_stats=[{"name": self.model, "inference_count": self.answered}])

    def RepositoryIndex(self, request: Any, context: Any) -> Any:
        self._unless_left_out("RepositoryIndex", context)
        return pb.RepositoryIndexResponse(models=[{"name": self.model, "state": "READY"}])

    def ModelInfer(self, request: Any, context: Any) -> Any:
        shapes = tuple(tuple(tensor.shape) for tensor in request.inputs)
        if request.model_name != self.model:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.model_name}")
        if self.most_rows is not None and any(shape[0] > self.most_rows for shape in shapes):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"at most {self.most_rows} rows, not {shapes}")
        with self._lock:
            self.shapes[shapes] += 1
        self.hold.wait(30)
        answer = pb.ModelInferResponse(model_name=self.model, id=request.id)
        if self.empty:
            return answer
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            output = answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            if self.typed:
                field, dtype = _TYPED[tensor.datatype]
                getattr(output.contents, field).extend(np.frombuffer(raw, dtype).tolist())
            else:
                answer.raw_output_contents.append(raw)
        return answer

    def _unless_left_out(self, call: str, context: Any) -> None:
        if call in self.without:
            context.abort(self.refusing, "Method not found!")
