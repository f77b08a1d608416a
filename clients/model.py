"""One model of a server: the methods that both clients' models have, from named arrays to named arrays."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

import numpy as np

from . import codec
from .classification import Labels, decode_classes, scores
from .codec import Outputs, invalid
from .connection import Connection
from .errors import InvalidInputError
from .options import Headers
from .servers import Server
from .spec import ModelSpec

T = TypeVar("T")
Later = Coroutine[Any, Any, T]
# What the methods give: values for the blocking client, the same to await for the asyncio one.
Answer = TypeVar("Answer")
Ranked = TypeVar("Ranked")


class BoundModel(Generic[Answer, Ranked]):
    """One model of a server, called like a function from named arrays to named arrays.

    Inputs are arrays or lists with the batch axis in front, by keyword or as one mapping. `headers` are for one request
    alone, such as W3C `traceparent`. Calls raise InvalidInputError before sending where they can, else another kind of
    InferenceError.
    """

    def __init__(self, client: Connection[Any, Any, Any], spec: ModelSpec) -> None:
        self.client, self.spec = client, spec

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
        priority: int = 0,
        queue_timeout_s: float | None = None,
        headers: Headers | None = None,
        **named: Any,
    ) -> Answer:
        """Infer. Returns every output, or those named in `outputs`; numeric arrays are read-only views.

        Where the model has priorities, a request with 1 overtakes all others that wait. One that has waited for longer
        than `queue_timeout_s`, of each step of a pipeline, is dropped with QueueTimeoutError.
        """
        given = named if inputs is None else codec.named(self.spec, inputs, named)
        request = self.infer(
            given,
            outputs=outputs,
            timeout_s=timeout_s,
            request_id=request_id,
            priority=priority,
            queue_timeout_s=queue_timeout_s,
            headers=headers,
        )
        return cast(Answer, self.client.run(self.counted(request)))

    def one(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
        priority: int = 0,
        queue_timeout_s: float | None = None,
        headers: Headers | None = None,
        **named: Any,
    ) -> Answer:
        """Infer one sample without a batch axis: it is added to the inputs and taken off the outputs."""
        sample = codec.named(self.spec, inputs, named)
        request = self._one(
            sample,
            outputs=outputs,
            timeout_s=timeout_s,
            request_id=request_id,
            priority=priority,
            queue_timeout_s=queue_timeout_s,
            headers=headers,
        )
        return cast(Answer, self.client.run(self.counted(request)))

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
    ) -> Ranked:
        """The `top` labels of a classifier per batch entry, best first; the server reads its own label file.

        `output` names the scores to rank; it may be left out where the model has one output.
        """
        given = codec.named(self.spec, inputs, named)
        request = self._classify(given, output, classes=top, timeout_s=timeout_s, headers=headers)
        return cast(Ranked, self.client.run(self.counted(request)))

    def counted(self, request: Later[T]) -> Later[T]:
        """A request as it is, or one that counts itself where the client has metrics."""
        return request if self.client.metrics is None else self.client.metrics.counted(self.spec.name, request)

    async def infer(
        self,
        inputs: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        headers: Headers | None = None,
        server: Server | None = None,
        **content: Any,
    ) -> Outputs:
        """One request; `content` is what `codec.encode` takes besides the inputs."""
        client, spec = self.client, self.spec
        if not spec.repeatable and "parameters" not in content:
            how = "streams its answers: call stream()"
            if not spec.decoupled:
                how = "keeps state: call it in `with model.sequence() as ask: ...`"
            raise invalid(spec, f"'{spec.name}' {how}")
        deadline_s = time.monotonic() + client.within_s(timeout_s)
        try:
            if client.pool is not None:
                return await client.pool.infer(client, spec, inputs, timeout_s, headers, server, content)
            request, retry = codec.encode(spec, inputs, **content), spec.repeatable
            answer = await client.call(
                "ModelInfer", request, model=spec.name, timeout_s=timeout_s, headers=headers, retry=retry, server=server
            )
            return codec.decode(spec, answer)
        except InvalidInputError as error:
            left_s = deadline_s - time.monotonic()
            if error.status and self.spec is spec and left_s > 0:  # the server's own word on what fits `spec`
                self.spec = await client.signature_now(spec, error, left_s)
                left_s = deadline_s - time.monotonic()
            if not error.status or self.spec == spec or left_s <= 0:
                raise
        try:  # it did not run, so that it may be sent again where it fits
            return await self.infer(inputs, timeout_s=left_s, headers=headers, server=server, **content)
        except InvalidInputError as error:
            error.args = (f"'{spec.name}' has changed on the server since its metadata was fetched: {error}",)
            raise

    async def _one(self, sample: Mapping[str, Any], **options: Any) -> Outputs:
        if not self.spec.batched:
            return await self.infer(sample, **options)
        batch = {name: value[None] if isinstance(value, np.ndarray) else [value] for name, value in sample.items()}
        return {name: array[0] for name, array in (await self.infer(batch, **options)).items()}

    async def _classify(self, inputs: Mapping[str, Any], output: str | None, **options: Any) -> Labels:
        output = scores(self.spec, output, options["classes"])
        return decode_classes((await self.infer(inputs, outputs=[output], **options))[output])
