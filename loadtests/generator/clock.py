"""A wake-up for an event loop that is precise to tens of microseconds.

Event loops round their own timers to whole milliseconds (epoll and libuv both do), which is as long as a fast model
takes. Linux's timerfd has no such rounding; elsewhere the loop's own timer is used.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_NANOSECONDS = 1_000_000_000


class Alarm:
    """Calls `callback` once each time it was set, at or shortly after the `time.monotonic()` instant it was set to."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._fd = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd >= 0:
            self._spec = array.array("q", [0, 0, 0, 0])  # struct itimerspec: interval, then the instant
            self._spec_address = ctypes.c_void_p(self._spec.buffer_info()[0])
            loop.add_reader(self._fd, self._expired)

    def set(self, at_s: float) -> None:
        """Replaces an earlier instant. A past one calls back at once."""
        if self._fd < 0:
            if self._handle is not None:
                self._handle.cancel()
            self._handle = self._loop.call_at(at_s, self._callback)
            return
        at_ns = max(int(at_s * _NANOSECONDS), 1)  # an instant of zero would disarm the timer
        self._spec[2], self._spec[3] = divmod(at_ns, _NANOSECONDS)
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, self._spec_address, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # set anew between the expiry and this call
        self._callback()


# How the generator gets to send on time on a machine that others use too.

_NICENESS = -10


def take_priority(*, real_time: bool = True) -> str:
    """Real-time priority where that is allowed, else a better nice value, else nothing; returns which.

    A late send invalidates the measurement, and on a machine shared with a busy server the scheduler delays an ordinary
    process by milliseconds: p99 send lag on two busy cores was 5-13 ms as usual, 4-7 ms at nice -10 and 0.2 ms here.
    The generator needs little time and sleeps between sends, so the server loses nothing by it.

    Threads started afterwards have the same priority. gRPC receives in threads of its own, and with ordinary ones the
    reference queue (`tests/loadtests/queue_server.py`) answered 14-56 ms late at its p99 on two overbooked cores, with
    these 3-9 ms.
    """
    if not real_time:
        return "normal"
    with contextlib.suppress(OSError, AttributeError):  # no permission; not Linux
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        return "real-time"
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
        return f"nice {_NICENESS}"
    return "normal"
