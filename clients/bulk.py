"""Many requests through one model: bounded in flight and in memory, answered in the order of the items."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import queue
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any, Literal

import grpc

from clients.connection import Pause, Send, Steps
from clients.datatypes import Array
from clients.errors import InferenceError, InvalidInput
from clients.servers import Cut
from clients.spec import ModelSpec

if TYPE_CHECKING:
    from clients.async_client import AsyncModel
    from clients.client import Model

Outputs = dict[str, Array]
Errors = Literal["raise", "return"]
AHEAD = 2  # answers waiting behind a slow one, in multiples of what is in flight


def in_order(
    model: Model, items: Iterable[Any], *, in_flight: int, errors: Errors, progress: bool, **options: Any
) -> Iterator[Outputs | InferenceError]:
    """What `Model.map` does. One thread: items are taken, and answers decoded, by the caller's own."""
    _check(in_flight, errors)
    source = iter(items)
    calls = _Calls(model.client._closed.is_set)
    waiting: deque[_Call] = deque()  # in the order of the items
    failure: Exception | None = None
    more = True
    with _bar(items, progress) as advance:
        try:
            while True:
                while more and calls.running < in_flight and len(waiting) < AHEAD * in_flight:
                    try:
                        item = next(source)
                    except StopIteration:
                        more = False
                    except Exception as error:  # of the caller's iterable: raised when what came before is answered
                        more, failure = False, error
                    else:
                        waiting.append(calls.start(lambda item=item: model._infer(named(model.spec, item), **options)))  # type: ignore[misc]
                if waiting and waiting[0].finished:
                    advance()
                    yield waiting.popleft().outcome(errors)
                elif waiting:
                    calls.wait()
                elif failure is not None:
                    raise failure
                else:
                    return
        finally:
            calls.cancel()


async def in_order_async(
    model: AsyncModel,
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    in_flight: int,
    errors: Errors,
    progress: bool,
    **options: Any,
) -> AsyncIterator[Outputs | InferenceError]:
    """What `AsyncModel.map` does."""
    _check(in_flight, errors)
    take = _taker(items)
    waiting: deque[asyncio.Future[Outputs | InferenceError]] = deque()
    changed = asyncio.Event()  # there is an item to wait for, or room for another, or no more of them
    room = asyncio.Semaphore(AHEAD * in_flight)
    taking = asyncio.Lock()
    loop = asyncio.get_running_loop()
    over = False

    async def keep_asking() -> None:
        nonlocal over
        while not over:
            await room.acquire()
            async with taking:
                if over:
                    return
                answer: asyncio.Future[Outputs | InferenceError] = loop.create_future()
                try:
                    item = await take()
                except StopAsyncIteration:
                    over = True
                    return
                except Exception as error:
                    over = True
                    answer.set_exception(error)
                    return
                finally:
                    if not over or answer.done():
                        waiting.append(answer)
                    changed.set()
            try:
                answer.set_result(await model(named(model.spec, item), **options))
            except InferenceError as error:
                answer.set_result(error)
            except Exception as error:
                answer.set_exception(error)

    workers = [asyncio.ensure_future(keep_asking()) for _ in range(in_flight)]
    try:
        with _bar(items, progress) as advance:
            for index in itertools.count():
                while not waiting:
                    if over:
                        return
                    changed.clear()
                    await changed.wait()
                outcome = await waiting[0]
                waiting.popleft()
                room.release()
                if isinstance(outcome, InferenceError) and errors == "raise":
                    outcome.add_note(f"item {index} of map")
                    raise outcome
                advance()
                yield outcome
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for answer in waiting:
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen: no "never retrieved" when the consumer has gone


def named(spec: ModelSpec, item: Any) -> Mapping[str, Any]:
    """An item of `map` as named inputs: a mapping as it is, anything else for the model's only input."""
    if isinstance(item, Mapping):
        return item
    required = [name for name, tensor in spec.inputs.items() if not tensor.optional]
    if len(required) != 1:
        raise InvalidInput(
            f"an item for '{spec.name}' is {type(item).__name__}: it takes several inputs, so each item must be a "
            f"mapping with {', '.join(map(repr, spec.inputs))}",
            model=spec.name,
        )
    return {required[0]: item}


class _Call:
    """One item on its way."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.finished = False
        self.result: Outputs | None = None
        self.error: Exception | None = None
        self.steps: Steps[Outputs] | None = None
        self.sent: tuple[Send, Any] | None = None  # the step and its gRPC future

    def outcome(self, errors: Errors) -> Outputs | InferenceError:
        if self.error is None:
            assert self.result is not None
            return self.result
        if isinstance(self.error, InferenceError) and errors == "return":
            return self.error
        self.error.add_note(f"item {self.index} of map")
        raise self.error


class _Calls:
    """Drives the steps of many calls in one thread over gRPC's futures."""

    def __init__(self, is_closed: Callable[[], bool]) -> None:
        self.running = 0
        self._is_closed = is_closed
        self._index = itertools.count()
        self._live: set[_Call] = set()
        self._done: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._paused: list[tuple[float, int, _Call]] = []

    def start(self, make: Callable[[], Steps[Outputs]]) -> _Call:
        call = _Call(next(self._index))
        self.running += 1
        self._live.add(call)
        try:
            call.steps = make()
        except InferenceError as error:
            self._finish(call, error=error)
        else:
            self._advance(call, lambda steps: next(steps))
        return call

    def wait(self) -> None:
        """Carry on with the next call that has an answer, or whose pause is over."""
        pause_s = self._paused[0][0] - time.monotonic() if self._paused else None
        if pause_s is None or pause_s > 0:
            try:
                call = self._done.get(timeout=pause_s)
            except queue.Empty:
                return
            self._answered(call)
        else:
            self._advance(heapq.heappop(self._paused)[2], lambda steps: steps.send(None))

    def cancel(self) -> None:
        """Cancel what is in flight, here and on the server."""
        for call in self._live:
            if call.sent is not None:
                call.sent[1].cancel()
            if call.steps is not None:
                call.steps.close()
        self._live.clear()

    def _answered(self, call: _Call) -> None:
        assert call.sent is not None
        (_, future), call.sent = call.sent, None
        try:
            answer = future.result()
        except grpc.FutureCancelledError:
            self._advance(call, lambda steps: steps.throw(Cut()))  # its server was given up, see Client.run
        except grpc.RpcError as error:
            failure = Cut() if error.code() is grpc.StatusCode.CANCELLED and not self._is_closed() else error
            self._advance(call, lambda steps: steps.throw(failure))
        else:
            self._advance(call, lambda steps: steps.send(answer))

    def _advance(self, call: _Call, resume: Callable[[Steps[Outputs]], Any]) -> None:
        assert call.steps is not None
        try:
            step = resume(call.steps)
            while type(step) is Send:
                try:
                    method: Any = step.server.method(step.method)
                    future = method.future(step.request, timeout=step.timeout_s, metadata=step.metadata)
                except ValueError:  # the channel was closed between choosing and calling
                    if self._is_closed():
                        raise
                    step = call.steps.throw(Cut())
                    continue
                call.sent = step, future
                future.add_done_callback(lambda _: self._done.put(call))
                return
            assert isinstance(step, Pause)
            heapq.heappush(self._paused, (time.monotonic() + step.seconds, call.index, call))
        except StopIteration as end:
            self._finish(call, result=end.value)
        except Exception as error:
            self._finish(call, error=error)

    def _finish(self, call: _Call, *, result: Outputs | None = None, error: Exception | None = None) -> None:
        call.finished, call.result, call.error = True, result, error
        self.running -= 1
        self._live.discard(call)


def _taker(items: Iterable[Any] | AsyncIterable[Any]) -> Callable[[], Any]:
    """The next item, awaited; StopAsyncIteration at the end."""
    if isinstance(items, AsyncIterable):
        return aiter(items).__anext__
    source = iter(items)

    async def take() -> Any:
        for item in source:
            return item
        raise StopAsyncIteration

    return take


@contextlib.contextmanager
def _bar(items: object, shown: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr; yields what to call for every answer."""
    if not shown:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("answered", total=len(items) if isinstance(items, Sized) else None)
        yield lambda: bars.advance(task)


def _check(in_flight: int, errors: str) -> None:
    if in_flight < 1:
        raise ValueError(f"in_flight is {in_flight}: at least one request must be in flight")
    if errors not in ("raise", "return"):
        raise ValueError(f"errors is '{errors}': choose 'raise' or 'return'")
