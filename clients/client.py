"""The blocking client: `Client("localhost:8001").model("text_embedding")(text=["play some jazz"])`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from clients import codec, errors
from clients.codec import Classification
from clients.datatypes import Array
from clients.spec import ModelSpec

DEFAULT_TIMEOUT_S = 30.0
INFER_METHOD = "/inference.GRPCInferenceService/ModelInfer"
# Triton's answers may be larger than gRPC's 4 MB default; -1 lifts the limit on this side.
CHANNEL_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Client:
    """A connection to one KServe-v2 server. Thread-safe; make one per process and keep it.

    `endpoint` is `host:port`. Every call has a deadline: `timeout_s` here is the default of all of them.
    """

    def __init__(self, endpoint: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self._channel = grpc.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        # Requests and answers stay bytes here: the codec reads and writes them with fewer copies than protobuf does.
        self._infer: Callable[..., bytes] = self._channel.unary_unary(INFER_METHOD)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        self._channel.close()

    def is_ready(self) -> bool:
        """Whether the server can be reached and all its models are ready."""
        try:
            ready = self._call(self._stub.ServerReady, service_pb2.ServerReadyRequest(), model="")
        except errors.InferenceError:
            return False
        return bool(ready.ready)

    def models(self) -> list[str]:
        """Names of the models that are ready, sorted."""
        index = self._call(self._stub.RepositoryIndex, service_pb2.RepositoryIndexRequest(ready=True), model="")
        return sorted({model.name for model in index.models})

    def model(self, name: str, *, version: str = "") -> Model:
        """A model of this server; its metadata and configuration are fetched here, once.

        Raises ModelNotFound (naming the models there are), ModelNotReady, Unreachable or DeadlineExceeded.
        """
        try:
            request = service_pb2.ModelMetadataRequest(name=name, version=version)
            metadata = self._call(self._stub.ModelMetadata, request, model=name)
        except errors.ModelNotFound as error:
            raise self._not_found(name, version, error) from error
        return Model(self, ModelSpec.from_server(metadata, self._config(name, version), version))

    def _config(self, name: str, version: str) -> service_pb2.ModelConfigResponse | None:
        try:
            request = service_pb2.ModelConfigRequest(name=name, version=version)
            return self._call(self._stub.ModelConfig, request, model=name)
        except errors.ServerError as error:
            if error.status == grpc.StatusCode.UNIMPLEMENTED.name:
                return None  # a KServe-v2 server without the model configuration extension
            raise

    def _not_found(self, name: str, version: str, error: errors.ModelNotFound) -> errors.InferenceError:
        try:
            known = self.models()
        except errors.InferenceError:
            return error
        what = f"version {version} of '{name}'" if name in known else f"model '{name}'"
        return errors.ModelNotFound(
            f"{self.endpoint} has no {what}: it serves {', '.join(known) or 'no model'}",
            model=name,
            endpoint=self.endpoint,
            status=error.status,
        )

    def _call(self, method: Callable[..., Any], request: Any, *, model: str, timeout_s: float | None = None) -> Any:
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise errors.from_rpc(error, model=model, endpoint=self.endpoint, timeout_s=timeout_s) from None


class Model:
    """One model of a server, called like a function from named arrays to named arrays."""

    def __init__(self, client: Client, spec: ModelSpec) -> None:
        self.client = client
        self.spec = spec

    def __repr__(self) -> str:
        inputs = ", ".join(
            f"{t.name}: {t.datatype} {t.shape_text(self.spec.batched)}" for t in self.spec.inputs.values()
        )
        return f"Model({self.spec.name!r} at {self.client.endpoint}, {inputs})"

    def __call__(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
        **named: Any,
    ) -> dict[str, Array]:
        """Infer. Inputs are arrays or lists with the batch axis in front, by keyword or as one mapping.

        Returns every output, or those named in `outputs`; numeric arrays are read-only views. Raises InvalidInput
        before sending where it can, else one of the errors in `clients.errors`.
        """
        request = codec.encode(self.spec, {**(inputs or {}), **named}, outputs=outputs, request_id=request_id)
        return codec.decode(self.spec, self._send(request, timeout_s))

    def one(self, inputs: Mapping[str, Any] | None = None, /, **named: Any) -> dict[str, Array]:
        """Infer one sample without a batch axis: it is added to the inputs and taken off the outputs."""
        sample = {**(inputs or {}), **named}
        if not self.spec.batched:
            return self(sample)
        batch = {name: value[None] if isinstance(value, np.ndarray) else [value] for name, value in sample.items()}
        return {name: array[0] for name, array in self(batch).items()}

    def classify(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        top: int = 5,
        output: str | None = None,
        timeout_s: float | None = None,
        **named: Any,
    ) -> list[list[Classification]]:
        """The `top` labels of a classifier per batch entry, best first; the server reads its own label file.

        `output` names the scores to rank; it may be left out where the model has one output.
        """
        if output is None:
            if len(self.spec.outputs) != 1:
                raise errors.InvalidInput(
                    f"'{self.spec.name}' has several outputs: name one of {', '.join(self.spec.outputs)} as output",
                    model=self.spec.name,
                )
            (output,) = self.spec.outputs
        request = codec.encode(self.spec, {**(inputs or {}), **named}, outputs=[output], classes=top)
        return codec.decode_classes(codec.decode(self.spec, self._send(request, timeout_s))[output])

    def _send(self, request: bytes, timeout_s: float | None) -> bytes:
        answer: bytes = self.client._call(self.client._infer, request, model=self.spec.name, timeout_s=timeout_s)
        return answer
