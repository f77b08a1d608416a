"""Wait for what happens elsewhere: in another thread, process or server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], why: Callable[[], object] = lambda: "", *, seconds: float = 30.0) -> T:
    """The first true value of `condition`, which is asked every few milliseconds.

    Fails after `seconds`, more than a busy machine takes, with what `why` gives then.
    """
    end_s = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end_s, f"not in {seconds:g} s: {why() or condition}"
        time.sleep(0.02)
    return value
