"""Where a client works: its process and forks of it, one event loop, greenlets; never a pickle.

gRPC survives a fork only where no other thread is in a call and no asyncio channel is open at that moment; elsewhere
the child crashes or hangs in its next call. A client in the child begins anew: its channels, threads and locks are the
parent's. In a child that gRPC has not survived it raises UnusableClientError instead.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import sys
import threading
import time
import weakref
from typing import Any, Protocol

from .errors import InferenceError

WAIT_S = 0.25  # before a fork, for calls of other threads to end
_OFF = ("0", "false", "no", "off")
_inherited: list[dict[str, Any]] = []  # what a fork has from its parent: ending it would touch gRPC
_forking = ""  # why a fork that begins now will be one that gRPC does not survive
_broken = ""  # why gRPC does not work in this process


class UnusableClientError(InferenceError):
    """A client where it cannot work: another event loop, a fork that broke gRPC. The message says what to do."""

    label = "UnusableClient"


class Renewable(Protocol):
    """A client that a fork of its process can begin anew."""

    endpoint: str

    @property
    def is_asyncio(self) -> bool:
        """Whether it needs an event loop."""

    def renew(self) -> None:
        """Forget every channel, thread and lock."""


_clients: weakref.WeakSet[Renewable] = weakref.WeakSet()  # with open channels


def settle(client: Renewable) -> None:
    """Prepare for a client that opens its channels. Raises UnusableClientError where gRPC cannot work."""
    if _broken:
        raise UnusableClientError(
            f"gRPC does not work in this process, which was forked {_broken}: start processes with multiprocessing's "
            "'spawn' or 'forkserver', or fork before the first request",
            endpoint=client.endpoint,
        )
    if client.is_asyncio:
        refuse_greenlets(client.endpoint)
    elif _is_patched_by_gevent():
        from grpc.experimental import gevent

        gevent.init_gevent()  # calls then let other greenlets run
    _watch_forks()
    _clients.add(client)


def refuse_greenlets(endpoint: str) -> None:
    """Raise UnusableClientError in a process that gevent has patched, for what needs asyncio."""
    if _is_patched_by_gevent():
        raise UnusableClientError(
            "gRPC's asyncio, which AsyncClient and Model.map use, hangs in a process that gevent has patched: use "
            "Client in greenlets, such as gevent.pool.Pool(64).imap(model, inputs)",
            endpoint=endpoint,
        )


def hold_to_loop(loop: asyncio.AbstractEventLoop | None, endpoint: str) -> asyncio.AbstractEventLoop:
    """The running event loop, which must be `loop` where that is given. Raises UnusableClientError."""
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        message = "an AsyncClient works in a running event loop only: await it there, or use Client"
        raise UnusableClientError(message, endpoint=endpoint) from None
    if loop is not None and loop is not running:
        message = "this AsyncClient belongs to another event loop: make one per loop, or use Client, which needs none"
        raise UnusableClientError(message, endpoint=endpoint)
    return running


def _is_patched_by_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)


def _before_fork() -> None:
    global _forking
    _forking = ""
    if os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "1").strip().lower() in _OFF:
        _forking = "with GRPC_ENABLE_FORK_SUPPORT=0"
    elif _asyncio_runs():
        _forking = "while an AsyncClient, or a Model.map, was open"
    else:
        until_s = time.monotonic() + WAIT_S
        while _others_call():
            if time.monotonic() >= until_s:
                _forking = "while another thread was in a call"
                break
            time.sleep(0.001)


def _asyncio_runs() -> bool:
    """Whether gRPC's asyncio has its thread, which it has while there is a channel, closed or not."""
    for _ in range(2):
        if not any("_poll_wrapper" in thread.name for thread in threading.enumerate()):
            return False
        gc.collect()  # channels that are closed
    return True


def _others_call() -> bool:
    """Whether another thread is in a call of gRPC, this package's or not."""
    own = threading.get_ident()
    for thread, frame in sys._current_frames().items():
        while thread != own and frame is not None:
            if frame.f_code.co_filename.endswith("grpc/_channel.py"):
                return True
            frame = frame.f_back  # type: ignore[assignment]
    return False


def _in_child() -> None:
    global _broken
    _broken = _broken or _forking
    for client in list(_clients):
        _inherited.append(dict(vars(client)))
        client.renew()
    _clients.clear()
