"""Triton's dynamic batcher of one model at work: its queue, the batches that wait for an instance, the instances.

The rules are those of Triton's core (`dynamic_batch_scheduler.cc`, `rate_limiter.cc`, `instance_queue.cc`, releases
24.10 to 26.06), written as events. One batcher thread puts batches together and parks when it has nothing to do. Who
may wake it, and when, decides the batches as much as the sizes do:

- With prefetching up to two batches an instance wait for one. The newest grows until it is full or starts, but not
  while all places are taken. Without prefetching a batch is put together when an instance is free.
- An arrival wakes the batcher only if there is a place for a batch and, unless shapes must be equal, enough rows wait
  for the next preferred size that the batcher noted.
- A batch that starts wakes the batcher, and so does one that ends, but a moment before its instance counts as free.
  Two threads then race. If the batcher looks first, it overlooks the instance: without prefetching it may sleep until
  the next arrival or its half-second poll, with prefetching the batch that waits next still grows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

from loadtests.simulation.pipeline import Batcher

POLL_S = 0.5
"""How long the batcher sleeps at most when nobody wakes it."""
_SLOTS_PER_INSTANCE = 2
_LEAST_WAIT_S = 1e-6
"""Triton counts the queue delay in whole microseconds."""

Start = Callable[["Scheduler", "Batch", float], None]
"""Told that an instance begins a batch, at which second."""
Alarm = Callable[["Scheduler", float, int], None]
"""Told when to call `alarm` with that number."""
Refuse = Callable[[int, float], None]
"""Told of a request that is refused, and when."""


class Batch:
    """Requests that are computed together."""

    __slots__ = ("oldest_s", "other_shape", "requests", "rows", "shape", "started", "waiting")

    def __init__(self) -> None:
        self.requests: list[int] = []
        self.rows = 0
        self.shape = 0
        self.oldest_s = 0.0
        self.other_shape = False
        """The next request is of another shape, so that nothing may be merged with this batch."""
        self.started = False
        self.waiting = False
        """For an instance."""


class Scheduler:
    """One model's batcher and instances; rows and shapes by number of the request."""

    def __init__(
        self,
        settings: Batcher,
        rows: list[int],
        shapes: list[int],
        start: Start,
        alarm: Alarm,
        refuse: Refuse,
        seed: int,
    ) -> None:
        self.settings = settings
        self.idle = settings.instances
        self._rows, self._shapes = rows, shapes
        self._start, self._set_alarm, self._refuse = start, alarm, refuse
        self._draw = Random(seed).random
        self._batcher_first = settings.overtakes if settings.prefetch else settings.overlooks
        self._preferred = frozenset(settings.preferred or (settings.max_batch,))
        self._largest = max(self._preferred)
        self._prefetch = settings.prefetch
        self._slots = _SLOTS_PER_INSTANCE * settings.instances
        self._queue: deque[tuple[int, float]] = deque()
        self._queued_rows = 0
        self._ready: deque[Batch] = deque()
        self._current = Batch()
        self._made = 0
        self._saturated = False
        self._next_preferred = 0
        self._running = False
        self._parked_at_slot = False
        self._parked_since_s = 0.0
        self._alarm_number = 0
        self._alarm_set = False

    def enqueue(self, request: int, now_s: float) -> bool:
        """Whether the batcher wakes of it: then `wake` must follow, after whatever else comes in this instant."""
        settings = self.settings
        if not settings.dynamic:
            batch = Batch()
            batch.requests, batch.rows, batch.oldest_s = [request], self._rows[request], now_s
            self._ready.append(batch)
            self._dispatch(now_s)
            return False
        self._queued_rows += self._rows[request]  # counted even when it is refused, as in Triton
        if settings.max_queue and len(self._queue) >= settings.max_queue:
            self._refuse(request, now_s)
            return False
        self._queue.append((request, now_s))
        wakes = self._has_slot() and (
            settings.equal_shapes
            or self._saturated
            or self._current.started
            or self._queued_rows >= self._next_preferred
        )
        if not wakes and not self._alarm_set:
            polls = int((now_s - self._parked_since_s) / POLL_S) + 1
            self._alarm_at(self._parked_since_s + polls * POLL_S)
        return wakes

    def alarm(self, number: int, now_s: float) -> None:
        """The time that was asked for is there."""
        if number != self._alarm_number:
            return
        self._alarm_set = False
        if self._parked_at_slot:
            self._expire(now_s)
            if not self._has_slot():
                if self._queue:
                    self._alarm_at(now_s + POLL_S)
                return
        self.wake(now_s)

    def finish(self, now_s: float) -> None:
        """A batch ended, and its instance is free again."""
        made = self._made
        batcher_first = self._draw() < self._batcher_first
        if batcher_first:
            self.wake(now_s)
        self.idle += 1
        self._dispatch(now_s)
        if not batcher_first or self._made > made:  # a batcher that had work to do looks again after it
            self.wake(now_s)

    def wake(self, now_s: float) -> None:
        """The batcher looks what there is to do, until it parks."""
        if self._parked_at_slot and not self._has_slot():
            return
        self._running = True
        self._run(now_s, past_slot=self._parked_at_slot)
        self._running = False

    def _run(self, now_s: float, *, past_slot: bool) -> None:
        while True:
            if not past_slot:
                if self._saturated or self._current.started:
                    self._current, self._saturated, self._next_preferred = Batch(), False, 0
                if not self._queue:
                    return self._park(now_s)
                if not self._has_slot():
                    self._park(now_s, at_slot=True)
                    return self._alarm_at(now_s + POLL_S)
            past_slot = False
            if self._current.started:
                continue
            wait_s, count = self._gather(now_s)
            if wait_s:
                self._park(now_s)
                return self._alarm_at(now_s + wait_s)
            if count:
                self._take(count)
                if not self._current.waiting:
                    self._current.waiting = True
                    self._made += 1
                    self._ready.append(self._current)
                    self._dispatch(now_s)
            elif self._queue and not self._saturated:
                return self._park(now_s)  # Triton spins here until the batch of another shape starts

    def _gather(self, now_s: float) -> tuple[float, int]:
        """How long to wait for more, and if not at all how many waiting requests go into the current batch."""
        settings, batch, rows_of = self.settings, self._current, self._rows
        if settings.timeout_s:
            self._expire(now_s)
            if not self._queue:
                return 0.0, 0
        pending = count = best = best_count = 0
        cannot_grow = False
        for request, _ in self._queue:
            rows = rows_of[request]
            if not batch.rows and not count:
                batch.shape = self._shapes[request]
            else:
                total = batch.rows + pending + rows
                if total > self._largest and not best:
                    best, best_count = pending, count
                    self._saturated = True
                if total > settings.max_batch:
                    cannot_grow = True
                    break
                if settings.equal_shapes and self._shapes[request] != batch.shape:
                    batch.other_shape = cannot_grow = True
                    break
            pending += rows
            count += 1
            if batch.rows + pending in self._preferred:
                best, best_count = pending, count
        age_s = now_s - self._queue[0][1]
        exceeded = settings.delay_s > 0 and age_s >= settings.delay_s - _LEAST_WAIT_S
        if best and not exceeded:
            self._saturated |= not settings.delay_s
            return 0.0, best_count
        if not count:
            return 0.0, 0
        if cannot_grow or batch.rows + pending >= self._largest:
            self._saturated = True
            return 0.0, count
        if exceeded or not settings.delay_s:
            return 0.0, count
        total = batch.rows + pending
        self._next_preferred = min(size for size in self._preferred if size > total) - batch.rows
        if not self._saturated and batch.rows and batch.rows not in self._preferred:
            return 0.0, count
        wait_s = settings.delay_s - age_s
        if settings.timeout_s:
            wait_s = min(wait_s, max(settings.timeout_s - age_s, _LEAST_WAIT_S))
        return wait_s, 0

    def _take(self, count: int) -> None:
        batch = self._current
        for _ in range(count):
            request, since_s = self._queue.popleft()
            if not batch.requests:
                batch.oldest_s = since_s
            batch.requests.append(request)
            batch.rows += self._rows[request]
            self._queued_rows -= self._rows[request]

    def _dispatch(self, now_s: float) -> None:
        """Free instances begin what is ready, and the batcher hears of each."""
        while self.idle and self._ready:
            batch = self._ready.popleft()
            batch.started = True
            if self.settings.delay_s and not batch.other_shape:
                self._merge(batch, now_s)
            self.idle -= 1
            self._start(self, batch, now_s)
            if not self._running:
                self.wake(now_s)

    def _merge(self, batch: Batch, now_s: float) -> None:
        """With a queue delay an instance joins ready batches that waited longer than that, if they fit together."""
        ready, settings = self._ready, self.settings
        while ready and not ready[0].other_shape and now_s - ready[0].oldest_s > settings.delay_s:
            following = ready[0]
            following.started = True  # as Triton marks it even when it does not fit
            if batch.rows + following.rows > settings.max_batch:
                return
            if settings.equal_shapes and following.shape != batch.shape:
                return
            batch.requests += following.requests
            batch.rows += following.rows
            ready.popleft()

    def _has_slot(self) -> bool:
        return len(self._ready) < self._slots if self._prefetch else self.idle > len(self._ready)

    def _expire(self, now_s: float) -> None:
        """Refuse those that waited too long: they are the oldest."""
        timeout_s = self.settings.timeout_s
        while timeout_s and self._queue and now_s - self._queue[0][1] > timeout_s:
            request, _ = self._queue.popleft()
            self._queued_rows -= self._rows[request]
            self._refuse(request, now_s)

    def _park(self, now_s: float, *, at_slot: bool = False) -> None:
        self._parked_at_slot, self._parked_since_s = at_slot, now_s
        self._alarm_number += 1
        self._alarm_set = False

    def _alarm_at(self, at_s: float) -> None:
        self._alarm_number += 1
        self._alarm_set = True
        self._set_alarm(self, at_s, self._alarm_number)
