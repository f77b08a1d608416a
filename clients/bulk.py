"""Many requests through one model: bounded in flight and in memory, answered in the order of the items."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Literal, Protocol

from . import life
from .codec import Outputs
from .connection import Connection
from .errors import InferenceError, InvalidInputError
from .model import BoundModel, Later
from .spec import ModelSpec

AnyConnection = Connection[Any, Any, Any]
AwaitedModel = BoundModel[Later[Outputs], Any]
Errors = Literal["raise", "return"]
AHEAD = 2  # items held, in multiples of what is in flight: answers wait here behind a slow one


class Twinned(Protocol):
    """A blocking model that can also send from an event loop."""

    spec: ModelSpec

    @property
    def client(self) -> AnyConnection:
        """The client that it belongs to."""

    def _twin(self) -> contextlib.AbstractAsyncContextManager[AwaitedModel]:
        """The same model on the running event loop."""


class _Slot:
    """The place of one item's answer in the order."""

    __slots__ = ("done", "index", "value")

    def __init__(self, index: int) -> None:
        self.index = index
        self.done = False
        self.value: Outputs | Exception | None = None

    def outcome(self, errors: Errors) -> Outputs | InferenceError:
        """The answer, or the error where errors are returned. Raises it where they are not."""
        value = self.value
        assert value is not None
        if isinstance(value, Exception) and not (errors == "return" and isinstance(value, InferenceError)):
            if isinstance(value, InferenceError):
                value.add_note(f"item {self.index} of map")
            raise value
        return value


def in_order(
    model: Twinned,
    items: Iterable[Any],
    *,
    in_flight: int = 64,
    errors: Errors = "raise",
    progress: bool = False,
    outputs: Sequence[str] | None = None,
    timeout_s: float | None = None,
) -> Iterator[Outputs | InferenceError]:
    """Infer every item, `in_flight` at a time, and yield the answers in the order of the items.

    An item is a mapping of named inputs, or the value of the only input; `AsyncModel` takes asynchronous iterables too.
    However long `items` is, at most twice `in_flight` of them are held. With errors="return" an item that fails gives
    its error instead of an answer; with "raise" the first such error ends the loop. Leaving the loop cancels what is in
    flight. `progress` shows a bar.
    """
    # Items are taken by the caller's thread, and answered by an event loop in another one.
    _check(model.client, in_flight, errors)
    timeout_s = model.client.within_s(timeout_s)
    options = {"outputs": outputs, "timeout_s": timeout_s}
    source = iter(items)
    slots: deque[_Slot] = deque()
    taken = 0
    with _bar(items, progress) as advance, _Crew(model, in_flight, options) as crew:
        while True:
            while source is not None and len(slots) < AHEAD * in_flight:
                slot = _Slot(taken)
                try:
                    item = next(source)
                except StopIteration:
                    source = None  # type: ignore[assignment]
                    break
                except Exception as error:  # of the caller's iterable: raised when what came before is answered
                    source = None  # type: ignore[assignment]
                    slot.value, slot.done = error, True
                else:
                    taken += 1
                    crew.hand_over(slot, item)
                slots.append(slot)
            if not slots:
                return
            crew.wait_for(slots[0])
            advance()
            yield slots.popleft().outcome(errors)


class _Crew:
    """Workers on an event loop of their own thread, over a connection of their own."""

    def __init__(self, model: Twinned, in_flight: int, options: Mapping[str, Any]) -> None:
        self._model = model
        self._in_flight = in_flight
        self._options = options
        self._todo: deque[tuple[_Slot, Any]] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._awaited: _Slot | None = None
        self._answered = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_ignore_shared_wakeups)
        self._work: asyncio.Task[None] | None = None
        self._failure: Exception | None = None  # of the connection itself, not of an item
        self._thread = threading.Thread(target=self._run, name="fathom-map", daemon=True)

    def __enter__(self) -> _Crew:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join()

    def hand_over(self, slot: _Slot, item: Any) -> None:
        """Let a worker answer `item` into `slot`."""
        self._todo.append((slot, item))
        if self._idle:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself: wait_for says why
                self._loop.call_soon_threadsafe(self._wake)

    def wait_for(self, slot: _Slot) -> None:
        """Return when `slot` is answered."""
        while not slot.done:
            self._answered.clear()
            self._awaited = slot  # first: a worker that finishes now sees it, or this thread sees that it has finished
            if not slot.done and self._failure is None:
                self._answered.wait()
            if self._failure is not None:
                raise self._failure

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._work = self._loop.create_task(self._answer_all())
        try:
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._work)
        except Exception as error:
            self._failure = error
            self._answered.set()
        finally:
            self._loop.close()

    def _cancel(self) -> None:
        assert self._work is not None
        self._work.cancel()

    def _wake(self) -> None:
        for worker in self._idle:
            if not worker.done():
                worker.set_result(None)
        self._idle.clear()

    async def _answer_all(self) -> None:
        async with self._model._twin() as model:
            await asyncio.gather(*(self._keep_answering(model) for _ in range(self._in_flight)))

    async def _keep_answering(self, model: AwaitedModel) -> None:
        while True:
            if not self._todo:
                idle = self._loop.create_future()
                self._idle.append(idle)
                if not self._todo:  # the other thread looks at who is idle after it has added an item
                    await idle
                continue
            slot, item = self._todo.popleft()
            try:
                slot.value = await model(named(model.spec, item), **self._options)
            except Exception as error:
                slot.value = error
            slot.done = True
            if slot is self._awaited:
                self._answered.set()


def _ignore_shared_wakeups(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """gRPC wakes the loops of all threads for what one of them may read; the others find nothing."""
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)


async def in_order_async(
    model: AwaitedModel,
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    in_flight: int = 64,
    errors: Errors = "raise",
    progress: bool = False,
    outputs: Sequence[str] | None = None,
    timeout_s: float | None = None,
) -> AsyncIterator[Outputs | InferenceError]:
    _check(model.client, in_flight, errors)
    timeout_s = model.client.within_s(timeout_s)
    stream = aiter(items) if isinstance(items, AsyncIterable) else None
    source: Iterator[Any] = iter(()) if isinstance(items, AsyncIterable) else iter(items)
    loop = asyncio.get_running_loop()
    slots: deque[_Slot] = deque()
    room: list[asyncio.Future[None]] = []  # workers that wait for it
    taking = asyncio.Lock()
    consumer: asyncio.Future[None] | None = None
    taken, over = 0, False

    def wake() -> None:
        if consumer is not None and not consumer.done():
            consumer.set_result(None)

    def fill(slot: _Slot, value: Outputs | Exception) -> None:
        slot.value, slot.done = value, True
        if slot is slots[0]:
            wake()

    async def keep_sending() -> None:
        nonlocal taken, over
        while not over:
            if len(slots) >= AHEAD * in_flight:
                room.append(loop.create_future())
                await room[-1]
                continue
            if stream is not None:
                await taking.acquire()  # items are numbered in the order in which they come
            try:
                if over:
                    return
                slot = _Slot(taken)
                item = next(source) if stream is None else await anext(stream)
            except (StopIteration, StopAsyncIteration):
                over = True
                wake()
                return
            except Exception as error:
                over = True
                slots.append(slot)
                fill(slot, error)
                return
            else:
                taken += 1
                slots.append(slot)
            finally:
                if stream is not None:
                    taking.release()
            try:
                fill(slot, await model(named(model.spec, item), outputs=outputs, timeout_s=timeout_s))
            except Exception as error:
                fill(slot, error)

    workers = [loop.create_task(keep_sending()) for _ in range(in_flight)]
    try:
        with _bar(items, progress) as advance:
            while slots or not over:
                if not slots or not slots[0].done:
                    consumer = loop.create_future()
                    await consumer
                    continue
                slot = slots.popleft()
                if room and not (waiting := room.pop()).done():
                    waiting.set_result(None)
                advance()
                yield slot.outcome(errors)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


in_order_async.__doc__ = in_order.__doc__


def named(spec: ModelSpec, item: Any) -> Mapping[str, Any]:
    """An item of `map` as named inputs: a mapping as it is, anything else for the model's only input."""
    if isinstance(item, Mapping):
        return item
    required = [name for name, tensor in spec.inputs.items() if not tensor.optional]
    if len(required) != 1:
        raise InvalidInputError(
            f"an item for '{spec.name}' is {type(item).__name__}: it takes several inputs, so each item must be a "
            f"mapping with {', '.join(map(repr, spec.inputs))}",
            model=spec.name,
        )
    return {required[0]: item}


@contextlib.contextmanager
def _bar(items: object, shown: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr; yields the function to call for every answer."""
    if not shown:
        yield lambda: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        raise ImportError("a progress bar needs rich: pip install rich") from None

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("answered", total=len(items) if isinstance(items, Sized) else None)
        yield lambda: bars.advance(task)


def _check(client: AnyConnection, in_flight: int, errors: str) -> None:
    life.refuse_greenlets(client.endpoint)
    client.rotation()  # raises what would else be the error of every item
    if in_flight < 1:
        raise ValueError(f"in_flight is {in_flight}: give 1 or more")
    if errors not in ("raise", "return"):
        raise ValueError(f"errors is '{errors}': choose 'raise' or 'return'")
