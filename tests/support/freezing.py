"""A server that freezes (SIGSTOP) and goes on: its kernel still takes connections, and nothing answers on them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import psutil

from server import TritonServer


@contextlib.contextmanager
def frozen(server: TritonServer, *, for_s: float | None = None) -> Iterator[None]:
    """Frozen for the block, or from its beginning for `for_s`; alive again after it.

    Triton 2.51 can die of SIGSEGV when it goes on and finds its requests cancelled (docs/known-issues.md): then it is
    started again, at other ports.
    """
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.001)
    thaw = threading.Timer(for_s or 0.0, os.kill, [pid, signal.SIGCONT])
    if for_s is not None:
        thaw.start()
    try:
        yield
    finally:
        thaw.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        if for_s is None:
            time.sleep(0.5)  # it dies, if it does, when it looks at what was cancelled
        if not server.is_alive():
            server.stop()
            server.start()
