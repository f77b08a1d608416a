"""Requests of one sequence for stateful models: `with model.sequence() as ask: ask(x=1); ask(x=2, end=True)`."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from typing import Any, Generic, TypeVar

import numpy as np

from . import codec, errors
from .addresses import is_balanced
from .codec import Outputs, check, invalid
from .life import UnusableClientError
from .model import BoundModel
from .options import Headers
from .servers import Server

Answer = TypeVar("Answer")
INTERRUPT_TIMEOUT_S = 2.0


class BoundSequence(Generic[Answer]):
    """Requests that a stateful model sees in order, on one server. Nothing is retried: the state would be wrong.

    Give the last request `end=True`. A sequence that is left without it is ended by a request of zeros, so that the
    server's slot is free at once; after Ctrl-C or a cancellation that takes `interrupt_timeout_s` at most. After an
    error other than InvalidInputError the sequence is over.
    """

    def __init__(
        self,
        model: BoundModel[Any, Any],
        *,
        sequence_id: int = 0,
        headers: Headers | None = None,
        interrupt_timeout_s: float = INTERRUPT_TIMEOUT_S,
    ) -> None:
        if not model.spec.sequence:
            raise invalid(model.spec, f"'{model.spec.name}' keeps no state: call it without a sequence")
        if not isinstance(sequence_id, int) or not 0 <= sequence_id < 1 << 63:
            raise invalid(model.spec, f"sequence_id {sequence_id!r} is not a whole number from 1 to {(1 << 63) - 1}")
        self.sequence_id = sequence_id or random.getrandbits(63) | 1  # Triton takes 0 for "no sequence"
        self._model, self._client, self._headers = model, model.client, headers
        self._interrupt_timeout_s = interrupt_timeout_s
        self._open = self._over = False
        self._like: Outputs = {}
        self._timeout_s: float | None = None  # of the last request: a server that hangs is not waited for longer
        self._rotation = self._client.rotation()
        self.server = self._rotation.pick(model.spec.name)
        self._own: Server | None = None
        if is_balanced(self.server.address):  # gRPC would send each request to another server
            self._own = self.server = Server(
                self.server.address, lambda address: self._client.open(address, balance=False)
            )

    def __call__(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        end: bool = False,
        timeout_s: float | None = None,
        request_id: str = "",
        **named: Any,
    ) -> Answer:
        """Send the next request of the sequence; see `Model`."""
        given = codec.named(self._model.spec, inputs, named)
        answer: Answer = self._client.run(self._send(given, end=end, timeout_s=timeout_s, request_id=request_id))
        return answer

    async def _send(
        self, inputs: Mapping[str, Any], *, end: bool, timeout_s: float | None, request_id: str = ""
    ) -> Outputs:
        spec, self._timeout_s = self._model.spec, self._client.within_s(timeout_s)
        if self._client.rotation() is not self._rotation:
            raise UnusableClientError(
                f"this sequence of '{spec.name}' belongs to the process that this one was forked from"
            )
        if self._over:
            raise invalid(spec, f"this sequence of '{spec.name}' has ended: start another")
        self._like = check(spec, inputs)
        parameters = {"sequence_id": self.sequence_id, "sequence_start": not self._open, "sequence_end": end}
        try:
            request = self._model.infer(
                self._like,
                parameters=parameters,
                headers=self._headers,
                server=self.server,
                timeout_s=self._timeout_s,
                request_id=request_id,
            )
            answer: Outputs = await self._model.counted(request)
        except errors.InvalidInputError:
            raise
        except BaseException:
            self._over = True  # whether the server has seen this request is not known, so its state is not either
            raise
        self._open, self._over = True, end
        return answer

    def _requests(self, inputs: Mapping[str, Any] | None, named: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One request for each row of axis 0, with the batch axis where the model has one."""
        spec = self._model.spec
        given = codec.named(spec, inputs, named)
        counts = {name: len(value) if hasattr(value, "__len__") else 0 for name, value in given.items()}
        if len({*counts.values()}) != 1 or not all(counts.values()):
            raise invalid(spec, f"axis 0 counts the requests of a sequence of '{spec.name}', one or more: got {counts}")
        rows = [slice(row, row + 1) if spec.batched else row for row in range(next(iter(counts.values())))]
        return [{name: value[row] for name, value in given.items()} for row in rows]

    async def _leave(self, kind: type[BaseException] | None) -> None:
        """Free the server's slot where no request was marked as the last one; `kind` ended the block."""
        timeout_s = self._client.timeout_s if self._timeout_s is None else self._timeout_s
        if kind is not None and not issubclass(kind, Exception):
            timeout_s = min(timeout_s, self._interrupt_timeout_s)
        if self._open and not self._over:
            blank = {
                name: np.full(a.shape, b"" if a.dtype.kind == "O" else 0, a.dtype) for name, a in self._like.items()
            }
            with contextlib.suppress(errors.InferenceError):
                await self._send(blank, end=True, timeout_s=timeout_s)
        self._over = True


class Sequence(BoundSequence[Outputs]):
    __doc__ = BoundSequence.__doc__

    def __enter__(self) -> Sequence:
        return self

    def each(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        interval_s: float = 0.0,
        timeout_s: float | None = None,
        **named: Any,
    ) -> Iterator[Outputs]:
        """Send one request for each row of axis 0, the last one with `end=True`, and yield the answers.

        Request i is sent i * `interval_s` seconds after the first, or as soon as request i - 1 is answered if that is
        later: the pace of a microphone. Raises InvalidInputError for inputs of different lengths or without a row.
        """
        requests, began_s = self._requests(inputs, named), time.monotonic()
        for index, request in enumerate(requests):
            self._client.run(self._client.pause(max(0.0, began_s + index * interval_s - time.monotonic())))
            yield self(request, end=index == len(requests) - 1, timeout_s=timeout_s)

    def __exit__(self, kind: type[BaseException] | None, *ended: object) -> None:
        try:
            self._client.run(self._leave(kind))
        finally:
            if self._own is not None:
                self._own.link.channel.close()


class AsyncSequence(BoundSequence[Coroutine[Any, Any, Outputs]]):
    __doc__ = BoundSequence.__doc__

    async def __aenter__(self) -> AsyncSequence:
        return self

    async def each(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        interval_s: float = 0.0,
        timeout_s: float | None = None,
        **named: Any,
    ) -> AsyncIterator[Outputs]:
        """As `Sequence.each`, awaited."""
        requests, began_s = self._requests(inputs, named), time.monotonic()
        for index, request in enumerate(requests):
            await self._client.pause(max(0.0, began_s + index * interval_s - time.monotonic()))
            yield await self(request, end=index == len(requests) - 1, timeout_s=timeout_s)

    async def __aexit__(self, kind: type[BaseException] | None, *ended: object) -> None:
        try:
            await self._client.run(self._leave(kind))
        finally:
            if self._own is not None:
                await self._own.link.channel.close()


def sequence(model: BoundModel[Any, Any], *, sequence_id: int = 0, headers: Headers | None = None) -> Sequence:
    """Requests that belong together, for a stateful model; see `BoundSequence`."""
    return Sequence(model, sequence_id=sequence_id, headers=headers)


def sequence_async(
    model: BoundModel[Any, Any], *, sequence_id: int = 0, headers: Headers | None = None
) -> AsyncSequence:
    """Requests that belong together, for a stateful model; see `BoundSequence`."""
    return AsyncSequence(model, sequence_id=sequence_id, headers=headers)
