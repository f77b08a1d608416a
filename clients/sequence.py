"""Requests of one sequence for stateful models: `with model.sequence() as ask: ask(x=1); ask(x=2, end=True)`."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from clients import errors
from clients.codec import check_inputs
from clients.datatypes import Array
from clients.inputs import invalid
from clients.options import Headers, is_balanced
from clients.servers import Server

if TYPE_CHECKING:
    from clients.async_client import AsyncModel
    from clients.client import Model
    from clients.connection import Steps
    from clients.model import BoundModel


class _State:
    """What the server has been told of a sequence, without I/O."""

    def __init__(self, model: BoundModel, sequence_id: int, headers: Headers | None) -> None:
        if not model.spec.sequence:
            raise invalid(model.spec, f"'{model.spec.name}' keeps no state: call it without a sequence")
        self.sequence_id = sequence_id or random.getrandbits(63) | 1  # Triton takes 0 for "no sequence"
        self._model, self._headers = model, headers
        self._open = self._over = False
        self._like: dict[str, Array] = {}
        connection = model.connection
        self.server = connection.rotation().pick()
        self.own_server: Server | None = None
        if is_balanced(self.server.address):  # gRPC would send each request to another server
            self.own_server = self.server = Server(self.server.address, connection.open_unbalanced)

    def ask(self, inputs: Mapping[str, Any], *, end: bool, **options: Any) -> Steps[dict[str, Array]]:
        name = self._model.spec.name
        if self._over:
            raise invalid(self._model.spec, f"this sequence of '{name}' is over: begin another")
        self._like = check_inputs(self._model.spec, inputs)
        parameters = {"sequence_id": self.sequence_id, "sequence_start": not self._open, "sequence_end": end}
        try:
            answer = yield from self._model._infer(
                self._like, parameters=parameters, headers=self._headers, server=self.server, **options
            )
        except errors.InvalidInput:
            raise
        except BaseException:
            self._over = True  # whether the server has seen this request is not known, so its state is not either
            raise
        self._open, self._over = True, end
        return answer

    def leave(self) -> Steps[None]:
        """Free the server's slot where the caller has not said that a request is the last one."""
        if self._open and not self._over:
            blank = {
                name: np.full(a.shape, b"" if a.dtype.kind == "O" else 0, a.dtype) for name, a in self._like.items()
            }
            with contextlib.suppress(errors.InferenceError):
                yield from self.ask(blank, end=True)
        self._over = True


class Sequence:
    """Requests that a stateful model sees in order, on one server. Nothing is retried: the state would be wrong.

    Give the last request `end=True`. A sequence that is left without it is ended by a request of zeros, so that the
    server's slot is free at once. After an error other than InvalidInput the sequence is over.
    """

    def __init__(self, model: Model, sequence_id: int, headers: Headers | None) -> None:
        self._client = model.client
        self._state = _State(model, sequence_id, headers)
        self.sequence_id = self._state.sequence_id

    def __call__(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        end: bool = False,
        timeout_s: float | None = None,
        request_id: str = "",
        **named: Any,
    ) -> dict[str, Array]:
        """Send the next request of the sequence; see `Model.__call__`."""
        ask = self._state.ask({**(inputs or {}), **named}, end=end, timeout_s=timeout_s, request_id=request_id)
        return self._client.run(ask)

    def __enter__(self) -> Sequence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._client.run(self._state.leave())
        finally:
            if self._state.own_server is not None:
                self._state.own_server.channel.close()


class AsyncSequence:
    """`Sequence`, awaited."""

    def __init__(self, model: AsyncModel, sequence_id: int, headers: Headers | None) -> None:
        self._client = model.client
        self._state = _State(model, sequence_id, headers)
        self.sequence_id = self._state.sequence_id

    async def __call__(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        end: bool = False,
        timeout_s: float | None = None,
        request_id: str = "",
        **named: Any,
    ) -> dict[str, Array]:
        """Send the next request of the sequence; see `Model.__call__`."""
        ask = self._state.ask({**(inputs or {}), **named}, end=end, timeout_s=timeout_s, request_id=request_id)
        return await self._client.run(ask)

    async def __aenter__(self) -> AsyncSequence:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._client.run(self._state.leave())
        finally:
            if self._state.own_server is not None:
                await self._state.own_server.channel.close()
