"""A request that nobody waits for any more is cancelled on the server too: Triton's own counter says so."""

import asyncio
import re
import signal
import threading
import time
import urllib.request

import pytest
from waiting import until

from clients import AsyncClient, Client, DeadlineExceededError, OverloadedError, ServerError

pytestmark = pytest.mark.process


def cancelled(server, model="nap"):
    """Triton's count of cancelled requests. It counts those that it drops from the queue, not those it interrupts."""
    with urllib.request.urlopen(server.metrics_url) as answer:
        text = answer.read().decode()
    pattern = rf'nv_inference_request_failure\{{model="{model}",reason="CANCELED",version="1"\}} (\d+)'
    return sum(int(count) for count in re.findall(pattern, text))


def until_cancelled(server, count):
    until(lambda: cancelled(server) >= count, lambda: cancelled(server))
    return cancelled(server)


class Busy:
    """Keeps the only instance of `nap` busy, so that the next request waits in the queue."""

    def __init__(self, nap, seconds=0.8):
        self._thread = threading.Thread(target=nap, kwargs={"seconds": [seconds]})

    def __enter__(self):
        self._thread.start()
        time.sleep(0.15)

    def __exit__(self, *ended):
        self._thread.join()


@pytest.fixture(scope="module")
def nap(python_server):
    with Client(python_server.grpc_url) as client:
        yield client.model("nap")


def test_a_deadline_cancels_on_the_server(nap, python_server):
    before = cancelled(python_server)
    with Busy(nap), pytest.raises(DeadlineExceededError, match=r"0\.2 s"):
        nap(seconds=[9.0], timeout_s=0.2)
    assert until_cancelled(python_server, before + 1) == before + 1


def test_ctrl_c_cancels_on_the_server(nap, python_server):
    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = cancelled(python_server)
    usual = signal.signal(signal.SIGALRM, interrupt)  # what Python does at SIGINT, without a stray one for pytest
    try:
        with Busy(nap, 1.2):
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(KeyboardInterrupt):
                nap(seconds=[9.0])
    finally:
        signal.signal(signal.SIGALRM, usual)
    assert until_cancelled(python_server, before + 1) == before + 1


def test_asyncio_cancellation_and_deadlines_cancel_on_the_server(nap, python_server):
    async def leave():
        async with AsyncClient(python_server.grpc_url) as client:
            asked = await client.model("nap")
            task = asyncio.create_task(asked(seconds=[9.0]))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await asked(seconds=[9.0])
            with pytest.raises(DeadlineExceededError):
                await asked(seconds=[9.0], timeout_s=0.1)

    before = cancelled(python_server)
    with Busy(nap, 1.0):
        asyncio.run(leave())
    assert until_cancelled(python_server, before + 3) == before + 3


def test_a_running_request_is_told_too(nap):
    """A model that asks `request.is_cancelled()` stops; Triton 2.51 counts only what it drops from the queue."""
    with pytest.raises(DeadlineExceededError):
        nap(seconds=[9.0], timeout_s=0.2)
    assert nap(seconds=[0.0], timeout_s=5)  # the only instance is free again


def test_a_queue_timeout_is_overload_not_a_broken_connection(python_server):
    with Client(python_server.grpc_url) as client:
        brief_nap = client.model("brief_nap")
        with Busy(brief_nap), pytest.raises(OverloadedError) as caught:
            brief_nap(seconds=[0.0])
    assert (caught.value.model, caught.value.endpoint) == ("brief_nap", python_server.grpc_url)
    assert (caught.value.status, caught.value.source) == ("UNAVAILABLE", "server")
    assert "timeout" in caught.value.details
    assert client.budget.retried == 0


def test_closing_a_client_ends_its_calls(python_server):
    with Client(python_server.grpc_url) as client:
        asked, ends = client.model("nap"), []

        def ask():
            try:
                asked(seconds=[5.0])
            except ServerError as error:
                ends.append((error.status, error.source))

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.2)
        client.close()
        thread.join(3)
    assert ends == [("CANCELLED", "client")]


def test_closing_a_client_ends_its_streams(python_server):
    with Client(python_server.grpc_url) as client:
        parts = client.model("counter").stream(count=90, pause_s=0.1)
        next(parts)
    with pytest.raises(ServerError) as caught:
        list(parts)
    assert (caught.value.status, caught.value.source) == ("CANCELLED", "client")


def test_closing_an_asyncio_client_ends_its_streams(python_server):
    async def drain(parts):
        return [part async for part in parts]

    async def close():
        async with AsyncClient(python_server.grpc_url) as client:
            drained = asyncio.create_task(drain((await client.model("counter")).stream(count=90, pause_s=0.1)))
            await asyncio.sleep(0.1)
        with pytest.raises(ServerError) as caught:
            await drained
        assert (caught.value.status, caught.value.source) == ("CANCELLED", "client")

    asyncio.run(close())


def test_closing_an_asyncio_client_ends_its_calls(python_server):
    async def close():
        async with AsyncClient(python_server.grpc_url) as client:
            nap = await client.model("nap")
            call = asyncio.create_task(nap(seconds=[5.0]))
            await asyncio.sleep(0.1)
        with pytest.raises(ServerError) as caught:
            await call
        assert (caught.value.status, caught.value.source) == ("CANCELLED", "client")

    asyncio.run(close())
