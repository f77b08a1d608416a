"""Asyncio calls over the object underneath grpc.aio's own calls: a fifth less CPU for a small request.

For every call grpc.aio makes a task, a wrapper and an entry in a set of calls, of which a request that is awaited at
once needs none. What is used here is private to grpc.aio: where any of it is missing, or takes other arguments than in
grpcio 1.85, all calls go the public way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from typing import Any

import grpc
import grpc.aio

_NAMES = ("unary_unary", "cancel", "is_ok", "is_locally_cancelled", "_status", "_initial_metadata")
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def unary(channel: Any, method: str) -> Callable[..., Any]:
    """`channel.unary_unary(method)`, or for an asyncio channel a cheaper callable that does the same for bytes."""
    public: Callable[..., Any] = channel.unary_unary(method)
    if not isinstance(channel, grpc.aio.Channel):
        return public
    try:
        from grpc._cython import cygrpc

        inner, name = channel._channel, method.encode()
        if not all(hasattr(cygrpc._AioCall, needed) for needed in _NAMES) or not callable(inner.call):
            return public
    except (ImportError, AttributeError):
        return public
    changed = False

    def call(request: bytes, *, timeout: float, metadata: tuple[tuple[str, str], ...] | None) -> Any:
        nonlocal changed
        if not changed:
            try:
                return _Call(inner.call(name, time.time() + timeout, None, None, 0), request, metadata or ())
            except (TypeError, AttributeError):
                changed = True  # nothing was sent
        return public(request, timeout=timeout, metadata=metadata)

    return call


class _Call:
    """One request, to be awaited at once; `cancel` ends it with asyncio.CancelledError, as in grpc.aio."""

    __slots__ = ("_call", "_steps")

    def __init__(self, call: Any, request: bytes, metadata: tuple[tuple[str, str], ...]) -> None:
        self._call = call
        self._steps = call.unary_unary(request, metadata, None).__await__()

    def cancel(self) -> None:
        self._call.cancel("Locally cancelled by application!")

    def __await__(self) -> Generator[Any, Any, bytes]:
        call = self._call
        try:
            answer: bytes = yield from self._steps
        except BaseException:  # asyncio.CancelledError, or the caller's coroutine was dropped
            call.cancel("Locally cancelled by application!")
            raise
        if call.is_ok():
            return answer
        if call.is_locally_cancelled():
            raise asyncio.CancelledError
        status = call._status
        raise grpc.aio.AioRpcError(
            _CODES.get(status.code(), grpc.StatusCode.UNKNOWN),
            grpc.aio.Metadata(*call._initial_metadata or ()),
            grpc.aio.Metadata(*status.trailing_metadata() or ()),
            details=status.details(),
            debug_error_string=status.debug_error_string(),
        )
