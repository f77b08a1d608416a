"""The arrival times of the parts of streamed answers, and the streams whose every part is recorded."""

from __future__ import annotations

from collections import deque

from loadtests.records.record import MOST_TIMELINES


class Parts:
    """The parts of one answer; times are `time.monotonic()`."""

    __slots__ = ("count", "first_s", "gap_s", "last_s", "times")

    def __init__(self) -> None:
        self.count = 0
        self.first_s = self.last_s = float("nan")
        self.gap_s = float("nan")
        """The longest time between two parts."""
        self.times: list[float] | None = None
        """When each came, where that is to be noted."""

    def add(self, when_s: float) -> None:
        """Another part is complete."""
        if self.count:
            gap_s = when_s - self.last_s
            if self.count == 1 or gap_s > self.gap_s:
                self.gap_s = gap_s
        else:
            self.first_s = when_s
        self.last_s = when_s
        self.count += 1
        if self.times is not None:
            self.times.append(when_s)

    def itl_s(self, done_s: float) -> float:
        """The mean time between two parts of an answer that was complete then; 0 for one part."""
        return (done_s - self.first_s) / (self.count - 1) if self.count > 1 else 0.0


class Timelines:
    """Notes each part of the streams that began last, so that a probe shows what it came to."""

    def __init__(self) -> None:
        self._followed: deque[tuple[int, Parts]] = deque()

    def follow(self, index: int, parts: Parts) -> None:
        """From its first part on, in place of the oldest."""
        parts.times = [parts.first_s]
        self._followed.append((index, parts))
        if len(self._followed) > MOST_TIMELINES:
            self._followed.popleft()[1].times = None

    def times(self) -> dict[int, list[float]]:
        """By the number of the request."""
        return {index: list(parts.times or ()) for index, parts in self._followed}
