"""A model call, without I/O: named arrays to a request, the answer to named arrays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import grpc
import numpy as np

from clients import codec, errors
from clients.codec import Classification
from clients.connection import Connection, Steps
from clients.datatypes import Array
from clients.inputs import invalid
from clients.options import Headers
from clients.regions import RegionPool, forgot_regions
from clients.retries import may_have_run
from clients.servers import Server
from clients.spec import ModelSpec

Outputs = dict[str, Array]


class OpenStream(NamedTuple):
    """A streaming call and what its errors have to name."""

    server: Server
    call: Any
    timeout_s: float


class BoundModel:
    """What `Model` and `AsyncModel` share: the signature, and each method as steps."""

    def __init__(self, connection: Connection, spec: ModelSpec) -> None:
        self.connection = connection
        self.spec = spec
        self._retry = not (spec.sequence or spec.decoupled)

    def __repr__(self) -> str:
        inputs = ", ".join(
            f"{t.name}: {t.datatype} {t.shape_text(self.spec.batched)}" for t in self.spec.inputs.values()
        )
        return f"{type(self).__name__}({self.spec.name!r} at {self.connection.endpoint}, {inputs})"

    def _wrong_way(self) -> errors.InvalidInput:
        if self.spec.decoupled:
            return invalid(self.spec, f"'{self.spec.name}' gives any number of answers: ask it with stream()")
        return invalid(self.spec, f"'{self.spec.name}' keeps state: ask it with `with model.sequence() as ask: ...`")

    def _infer(self, inputs: Mapping[str, Any], **options: Any) -> Steps[dict[str, Array]]:
        """One request, with the options of `_exchange`, counted where the client has metrics."""
        steps = self._exchange(inputs, **options)
        return steps if self.connection.metrics is None else self.connection.metrics.counted(self.spec.name, steps)

    def _exchange(
        self,
        inputs: Mapping[str, Any],
        *,
        outputs: Sequence[str] | None = None,
        classes: int = 0,
        timeout_s: float | None = None,
        request_id: str = "",
        headers: Headers | None = None,
        parameters: Mapping[str, Any] | None = None,
        server: Server | None = None,
    ) -> Steps[dict[str, Array]]:
        if not self._retry and parameters is None:
            raise self._wrong_way()
        pool = self.connection.pool
        if pool is not None:
            arrays = codec.check_inputs(self.spec, inputs)
            if outputs is not None:
                codec.check_outputs(self.spec, outputs)
            wanted = () if classes else self.spec.outputs if outputs is None else outputs
            deadline_s = time.monotonic() + (self.connection.timeout_s if timeout_s is None else timeout_s)

            def ask(placed: codec.Placement) -> Steps[Outputs]:
                request = codec.write(
                    self.spec, arrays, outputs=outputs, request_id=request_id, classes=classes, parameters=parameters,
                    placed=placed,
                )  # fmt: skip
                left_s = max(deadline_s - time.monotonic(), 0.0)
                answer = yield from self.connection.call(
                    "ModelInfer",
                    request,
                    model=self.spec.name,
                    timeout_s=left_s,
                    headers=headers,
                    retry=False,
                    server=server,
                )
                return codec.decode(self.spec, answer, placed)

            shared = yield from self._infer_shared(pool, arrays, wanted, ask)
            if shared is not None:
                return shared
            timeout_s = max(deadline_s - time.monotonic(), 0.0)
        request = codec.encode(
            self.spec, inputs, outputs=outputs, request_id=request_id, classes=classes, parameters=parameters
        )
        answer = yield from self.connection.call(
            "ModelInfer",
            request,
            model=self.spec.name,
            timeout_s=timeout_s,
            headers=headers,
            retry=self._retry,
            server=server,
        )
        return codec.decode(self.spec, answer)

    def _infer_shared(
        self,
        pool: RegionPool,
        arrays: Mapping[str, Array],
        outputs: Iterable[str],
        ask: Callable[[codec.Placement], Steps[Outputs]],
    ) -> Steps[Outputs | None]:
        """The answer by way of shared memory; None where the message has to carry everything."""
        for _ in range(2):  # again where the server was restarted and knows no region
            lent = yield from pool.lend(self.connection, self.spec, arrays, outputs)
            if lent is None:
                return None
            end: BaseException | None = None
            try:
                return (yield from ask(lent))
            except errors.ModelNotFound as error:
                if not forgot_regions(error):
                    raise
                pool.forget(lent)
            except errors.Unreachable as error:
                end = error
                if not self._retry or (may_have_run(error) and not self.connection.budget.spend()):
                    raise
                return None
            except BaseException as error:
                end = error
                raise
            finally:
                pool.take_back(lent, end)
        return None

    def _open_stream(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str] | None,
        timeout_s: float | None,
        request_id: str,
        headers: Headers | None,
    ) -> OpenStream:
        request = codec.encode(self.spec, inputs, outputs=outputs, request_id=request_id)
        server = self.connection.rotation().pick()
        timeout_s = self.connection.timeout_s if timeout_s is None else timeout_s
        # Not with the header triton_grpc_error, though it would give failures a status: Triton 2.51 dies of the first.
        metadata = self.connection.metadata(headers)
        return OpenStream(server, server.stream(request, timeout=timeout_s, metadata=metadata), timeout_s)

    def _part(self, stream: OpenStream, message: bytes) -> Outputs:
        failure, part = codec.decode_part(self.spec, message)
        if failure:
            raise errors.from_text(failure, model=self.spec.name, endpoint=stream.server.address)
        return part

    def _stream_error(self, stream: OpenStream, error: grpc.RpcError) -> errors.InferenceError:
        return errors.from_rpc(error, model=self.spec.name, endpoint=stream.server.address, timeout_s=stream.timeout_s)

    def _one(self, sample: Mapping[str, Any], **options: Any) -> Steps[dict[str, Array]]:
        if not self.spec.batched:
            return (yield from self._infer(sample, **options))
        batch = {name: value[None] if isinstance(value, np.ndarray) else [value] for name, value in sample.items()}
        outputs = yield from self._infer(batch, **options)
        return {name: array[0] for name, array in outputs.items()}

    def _classify(
        self, inputs: Mapping[str, Any], top: int, output: str | None, **options: Any
    ) -> Steps[list[list[Classification]]]:
        if output is None:
            if len(self.spec.outputs) != 1:
                raise errors.InvalidInput(
                    f"'{self.spec.name}' has several outputs: name one of {', '.join(self.spec.outputs)} as output",
                    model=self.spec.name,
                )
            (output,) = self.spec.outputs
        answers = yield from self._infer(inputs, outputs=[output], classes=top, **options)
        return codec.decode_classes(answers[output])
