"""A model call, without I/O: named arrays to a request, the answer to named arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clients import codec, errors
from clients.codec import Classification
from clients.connection import Connection, Steps
from clients.datatypes import Array
from clients.options import Headers
from clients.spec import ModelSpec


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

    def _infer(
        self,
        inputs: Mapping[str, Any],
        *,
        outputs: Sequence[str] | None = None,
        classes: int = 0,
        timeout_s: float | None = None,
        request_id: str = "",
        headers: Headers | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Steps[dict[str, Array]]:
        spec, pool = self.spec, self.connection.pool
        arrays = codec.check_inputs(spec, inputs)
        with contextlib.ExitStack() as lent:
            regions = None
            if pool is not None:
                regions = yield from pool.lend(self.connection, arrays)
                lent.callback(pool.take_back, regions)
            request = codec.write(
                spec, arrays, outputs=outputs, request_id=request_id, classes=classes, parameters=parameters,
                regions=regions,
            )  # fmt: skip
            answer = yield from self.connection.call(
                "ModelInfer", request, model=spec.name, timeout_s=timeout_s, headers=headers, retry=self._retry
            )
        return codec.decode(spec, answer)

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
