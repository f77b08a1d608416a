"""A model call, without I/O, and the methods that both clients' models have: named arrays to named arrays."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import grpc
import numpy as np

from clients import bulk, codec, errors
from clients.codec import Classification, Outputs
from clients.connection import Connection, Steps
from clients.datatypes import Array
from clients.inputs import check_inputs, check_outputs, invalid
from clients.options import Headers
from clients.regions import forgot_regions
from clients.retries import may_have_run
from clients.servers import Server
from clients.spec import ModelSpec

T = TypeVar("T")
Later = Coroutine[Any, Any, T]
# What the methods give: values for the blocking client, the same to await or to loop over with `async for` otherwise.
Answer = TypeVar("Answer")
Labels = TypeVar("Labels")
Parts = TypeVar("Parts")
Results = TypeVar("Results")
Asking = TypeVar("Asking")


class BoundModel(Generic[Answer, Labels, Parts, Results, Asking]):
    """One model of a server, called like a function from named arrays to named arrays.

    Inputs are arrays or lists with the batch axis in front, by keyword or as one mapping. `headers` are for one request
    alone, such as W3C `traceparent`. Calls raise InvalidInput before sending where they can, else one of the errors in
    `clients.errors`.
    """

    client: Connection[Any, Any, Any]
    _in_order: ClassVar[Callable[..., Any]]
    _sequence: ClassVar[Callable[..., Any]]
    _ask: Callable[..., Any]  # one plain request
    _parts: Callable[..., Any]  # the answers of an open stream

    def __init__(self, client: Any, spec: ModelSpec) -> None:
        self.client = client
        self.spec = spec
        self._retry = not (spec.sequence or spec.decoupled)
        self._plain = self._retry and client.pool is None and client.metrics is None

    def __repr__(self) -> str:
        inputs = (f"{t.name}: {t.datatype} {t.shape_text(self.spec.batched)}" for t in self.spec.inputs.values())
        return f"{type(self).__name__}({self.spec.name!r} at {self.client.endpoint}, {', '.join(inputs)})"

    def __call__(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
        headers: Headers | None = None,
        **named: Any,
    ) -> Answer:
        """Infer. Returns every output, or those named in `outputs`; numeric arrays are read-only views."""
        given = {**inputs, **named} if inputs else named
        answer: Answer = self._ask(given, outputs, timeout_s, request_id, headers)
        return answer

    def one(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
        headers: Headers | None = None,
        **named: Any,
    ) -> Answer:
        """Infer one sample without a batch axis: it is added to the inputs and taken off the outputs."""
        sample = {**(inputs or {}), **named}
        answer: Answer = self.client.run(
            self._one(sample, outputs=outputs, timeout_s=timeout_s, request_id=request_id, headers=headers)
        )
        return answer

    def classify(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        top: int = 5,
        output: str | None = None,
        timeout_s: float | None = None,
        headers: Headers | None = None,
        **named: Any,
    ) -> Labels:
        """The `top` labels of a classifier per batch entry, best first; the server reads its own label file.

        `output` names the scores to rank; it may be left out where the model has one output.
        """
        given = {**(inputs or {}), **named}
        labels: Labels = self.client.run(
            self._classify(given, output, classes=top, timeout_s=timeout_s, headers=headers)
        )
        return labels

    def map(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        in_flight: int = 64,
        errors: bulk.Errors = "raise",
        progress: bool = False,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
    ) -> Results:
        """Infer every item, `in_flight` at a time, and yield the answers in the order of the items.

        An item is a mapping of named inputs, or the value of the only input; `AsyncModel` takes asynchronous iterables
        too. However long `items` is, at most twice `in_flight` of them are held. With errors="return" an item that
        fails gives its error instead of an answer; with "raise" the first such error ends the loop. Leaving the loop
        cancels what is in flight. `progress` shows a bar.
        """
        results: Results = type(self)._in_order(
            self, items, in_flight=in_flight, errors=errors, progress=progress, outputs=outputs, timeout_s=timeout_s
        )
        return results

    def stream(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
        headers: Headers | None = None,
        **named: Any,
    ) -> Parts:
        """The answers of a decoupled model, each as soon as it is there; leaving the loop cancels the rest.

        `timeout_s` is for the whole stream. Nothing is retried.
        """
        request = codec.encode(self.spec, {**(inputs or {}), **named}, outputs=outputs, request_id=request_id)
        # Not with the header triton_grpc_error, though it would give failures a status: Triton 2.51 dies of the first.
        server, timeout_s, metadata = self.client.begin(timeout_s, headers)
        call = server.stream(request, timeout=timeout_s, metadata=metadata)
        parts: Parts = self._parts(server, timeout_s, call)
        return parts

    def sequence(self, *, sequence_id: int = 0, headers: Headers | None = None) -> Asking:
        """Requests that belong together, for a stateful model; see `clients.sequence.BoundSequence`."""
        asking: Asking = type(self)._sequence(self, sequence_id, headers)
        return asking

    def _part(self, server: Server, message: bytes) -> Outputs:
        failure, part = codec.decode_part(self.spec, message)
        if failure:
            raise errors.from_text(failure, model=self.spec.name, endpoint=server.address)
        return part

    def _failure(self, server: Server, timeout_s: float, error: grpc.RpcError) -> errors.InferenceError:
        return errors.from_rpc(error, model=self.spec.name, endpoint=server.address, timeout_s=timeout_s)

    def _one(self, sample: Mapping[str, Any], **options: Any) -> Steps[Outputs]:
        if not self.spec.batched:
            return (yield from self.infer(sample, **options))
        batch = {name: value[None] if isinstance(value, np.ndarray) else [value] for name, value in sample.items()}
        outputs = yield from self.infer(batch, **options)
        return {name: array[0] for name, array in outputs.items()}

    def _classify(
        self, inputs: Mapping[str, Any], output: str | None, **options: Any
    ) -> Steps[list[list[Classification]]]:
        if output is None and len(self.spec.outputs) != 1:
            several = ", ".join(self.spec.outputs)
            raise invalid(self.spec, f"'{self.spec.name}' has several outputs: name one of {several} as output")
        output = output or next(iter(self.spec.outputs))
        answers = yield from self.infer(inputs, outputs=[output], **options)
        return codec.decode_classes(answers[output])

    def infer(self, inputs: Mapping[str, Any], **options: Any) -> Steps[Outputs]:
        """One request as steps, with the options of `_infer`, counted where the client has metrics."""
        steps = self._infer(inputs, **options)
        return steps if self.client.metrics is None else self.client.metrics.counted(self.spec.name, steps)

    def _infer(
        self,
        inputs: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        headers: Headers | None = None,
        server: Server | None = None,
        **content: Any,
    ) -> Steps[Outputs]:
        """`content` is what `codec.encode` takes besides the inputs."""
        spec, client = self.spec, self.client
        if not self._retry and "parameters" not in content:
            how = "gives any number of answers: ask it with stream()"
            if not spec.decoupled:
                how = "keeps state: ask it with `with model.sequence() as ask: ...`"
            raise invalid(spec, f"'{spec.name}' {how}")
        deadline_s = time.monotonic() + (client.timeout_s if timeout_s is None else timeout_s)

        def ask(request: bytes, *, retry: bool) -> Steps[bytes]:
            left_s = max(deadline_s - time.monotonic(), 0.0)
            return client.call(
                "ModelInfer", request, model=spec.name, timeout_s=left_s, headers=headers, retry=retry, server=server
            )

        if client.pool is not None:
            inputs = check_inputs(spec, inputs)
            shared = yield from self._infer_shared(inputs, ask, content)
            if shared is not None:
                return shared
        answer = yield from ask(codec.encode(spec, inputs, **content), retry=self._retry)
        return codec.decode(spec, answer)

    def _infer_shared(
        self, arrays: Mapping[str, Array], ask: Callable[..., Steps[bytes]], content: Mapping[str, Any]
    ) -> Steps[Outputs | None]:
        """The answer by way of shared memory; None where the message has to carry everything."""
        pool, outputs = self.client.pool, content.get("outputs")
        assert pool is not None
        check_outputs(self.spec, outputs or ())
        wanted = () if content.get("classes") else self.spec.outputs if outputs is None else outputs
        for _ in range(2):  # again where the server was restarted and knows no region
            lent = yield from pool.lend(self.client, self.spec, arrays, wanted)
            if lent is None:
                return None
            end: BaseException | None = None
            try:
                request = codec.encode(self.spec, arrays, placed=lent, **content)
                return codec.decode(self.spec, (yield from ask(request, retry=False)), lent)
            except errors.ModelNotFound as error:
                if not forgot_regions(error):
                    raise
                pool.forget(lent)
            except errors.Unreachable as error:
                end = error
                if not self._retry or (may_have_run(error) and not self.client.budget.spend()):
                    raise
                return None
            except BaseException as error:
                end = error
                raise
            finally:
                pool.take_back(lent, end)
        return None
