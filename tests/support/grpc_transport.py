"""The reference that the generator's own transport is compared with: the official Python client, `grpc.aio`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from loadtests.generator.parts import Parts
from loadtests.generator.stream_message import error_of, failure_of, read_part
from loadtests.generator.transport import METHOD, STREAM_METHOD, OnDone, OnFirst
from loadtests.records.record import EMPTY_RESPONSE, OK, UNAVAILABLE
from loadtests.target.access import Access

INTERNAL = 13


class GrpcTransport:
    """A `transport.Transport` over grpc.aio, with identity (de)serialisers."""

    def __init__(
        self,
        server: str,
        payloads: Sequence[bytes],
        on_done: OnDone,
        on_first: OnFirst = lambda index, parts: None,
        *,
        channels: int,
        timeout_s: float,
        access: Access | None = None,
        streamed: Iterable[int] = (),
    ) -> None:
        self._on_first = on_first
        self._streamed = frozenset(streamed)
        self._access = access or Access()
        self._server = server
        self._payloads = payloads
        self._on_done = on_done
        self.connections = channels
        self._timeout_s = timeout_s
        self._channels: list[Any] = []
        self._calls: list[Any] = []
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.lost = False
        self.broken = ""

    async def open(self) -> None:
        import grpc

        options = [
            ("grpc.use_local_subchannel_pool", 1),  # or all channels would share one connection
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ]
        for _ in range(self.connections):
            tls = self._access.tls
            channel = (
                grpc.aio.secure_channel(self._server, tls.credentials(), options=options)
                if tls
                else grpc.aio.insecure_channel(self._server, options=options)
            )
            self._channels.append(channel)
            self._calls.append((channel.unary_unary(METHOD), channel.unary_stream(STREAM_METHOD)))
            try:
                await asyncio.wait_for(channel.channel_ready(), self._timeout_s)
            except TimeoutError:
                raise OSError(f"no connection within {self._timeout_s:g} s") from None

    def send(self, index: int, payload: int) -> None:
        is_streamed = payload in self._streamed
        call = self._calls[index % self.connections][is_streamed](
            self._payloads[payload], timeout=self._timeout_s, metadata=self._access.metadata()
        )
        answering = self._answer_in_parts(index, call) if is_streamed else self._answer(call)
        self._tasks[index] = asyncio.ensure_future(self._report(index, call, answering))

    def flush(self) -> None:
        pass

    async def _answer(self, call: Any) -> tuple[int, str]:
        return (OK, "") if await call else (EMPTY_RESPONSE, "the answer has no body")

    async def _answer_in_parts(self, index: int, call: Any) -> tuple[int, str]:
        parts, failure, is_final = Parts(), None, True
        async for message in call:
            failure = error_of(message) if failure is None else failure
            has_outputs, final = read_part(message)
            is_final = is_final if final is None else final
            if failure is None and has_outputs:
                parts.add(time.monotonic())
                if parts.count == 1:
                    self._on_first(index, parts)
        if failure is not None:
            return failure_of(failure)
        if not is_final:
            return INTERNAL, "no final response"
        return (OK, "") if parts.count else (EMPTY_RESPONSE, "the answer has no part")

    async def _report(self, index: int, call: Any, answering: Coroutine[Any, Any, tuple[int, str]]) -> None:
        import grpc

        try:
            status, message = await answering
        except grpc.aio.AioRpcError as error:
            status, message = error.code().value[0], error.details() or ""
            self.lost = status == UNAVAILABLE and "failed to connect" in message
        except asyncio.CancelledError:
            call.cancel()
            return
        done_s = time.monotonic()
        if self._tasks.pop(index, None) is not None:
            self._on_done(index, done_s, status, message)

    def cancel(self, index: int) -> None:
        if task := self._tasks.pop(index, None):
            task.cancel()

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
