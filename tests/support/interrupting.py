"""Ctrl-C for what a test runs in its own process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def interrupt(after_s: float) -> Iterator[threading.Timer]:
    """A timer that sends SIGINT to this process so long after its start. It is cancelled at the end of the block: where
    the test fails earlier, the signal would otherwise end the run of all tests."""
    timer = threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGINT))
    try:
        yield timer
    finally:
        timer.cancel()
