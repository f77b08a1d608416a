"""Calls underneath grpc's own, and the public way where grpcio is another than expected."""

import asyncio
import threading
import time

import grpc.aio
import numpy as np
import pytest
from grpc import _observability

from clients import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidInput,
    Retries,
    ServerError,
    Unreachable,
    codec,
    direct,
)


def broken(*arguments):
    raise TypeError("unary_unary() takes other arguments now")


@pytest.fixture(params=["direct", "a name is missing", "the arguments have changed", "grpc observes its calls"])
def way(request, monkeypatch):
    if request.param == "a name is missing":
        monkeypatch.setattr(direct, "_NAMES", (*direct._NAMES, "gone"))
        monkeypatch.setattr(direct, "_BLOCKING_NAMES", (*direct._BLOCKING_NAMES[:-1], "Gone"))
    elif request.param == "the arguments have changed":
        monkeypatch.setattr(direct, "_Call", broken)
        first, _, *others = direct._BLOCKING_NAMES  # another operation takes other arguments
        monkeypatch.setattr(direct, "_BLOCKING_NAMES", (first, "SendCloseFromClientOperation", *others))
    elif request.param == "grpc observes its calls":
        monkeypatch.setattr(_observability, "_OBSERVABILITY_PLUGIN", Observer())
    return request.param


class Observer:
    """What grpc asks of a plugin that records nothing."""

    tracing_enabled = stats_enabled = observability_enabled = False


PUBLIC = ("a name is missing", "grpc observes its calls")


def test_a_blocking_call_takes_every_way(way, small_server):
    with Client(small_server.grpc_url, retries=Retries(overloaded=True)) as client:
        double, slow = client.model("double"), client.model("slow")
        server = client.rotation().servers[0]
        assert isinstance(server.infer, grpc.UnaryUnaryMultiCallable) == (way in PUBLIC)
        for n in range(3):
            assert double(x=[[n, 0]], headers={"x-caller": "me"})["y"].tolist() == [[2 * n, 0]]
        slow(seconds=[[0.0]])  # its queue is short: what tests before left in it is over now
        with pytest.raises(DeadlineExceeded) as caught:
            slow(seconds=[[0.05]], timeout_s=0.02)
        assert "Deadline Exceeded" in caught.value.details
        with pytest.raises(grpc.RpcError, match="unknown model") as failed:
            server.infer(b"", timeout=1.0, metadata=None)
        assert failed.value.code() is grpc.StatusCode.NOT_FOUND
        assert "unknown model" in failed.value.details()
        assert "unknown model" in failed.value.debug_error_string()
        assert dict(failed.value.trailing_metadata() or ()) == {}


def test_a_blocking_call_where_nobody_listens(way):
    call = direct.unary(grpc.insecure_channel("127.0.0.1:9"), "/m")
    with pytest.raises(grpc.RpcError, match="refused") as failed:
        call(b"", timeout=2.0, metadata=(("x-caller", "me"),))
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_blocking_call_on_a_channel_that_is_closed(way, python_server):
    with Client(python_server.grpc_url) as client:
        nap, ended = client.model("nap"), []

        def ask():
            with pytest.raises(ServerError, match="the client was closed") as caught:
                nap(seconds=[0.5])
            ended.append(caught.value.status)

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.1)
        channel = client.rotation().servers[0].channel
    asking.join(5)
    assert ended == ["CANCELLED"]
    with pytest.raises(ValueError, match="closed"):
        direct.unary(channel, "/m")(b"", timeout=1.0, metadata=None)


def test_every_way_is_taken(way, small_server):
    async def ask():
        async with AsyncClient(small_server.grpc_url) as client:
            double = await client.model("double")
            public = client.rotation().servers[0].channel.unary_unary("/m")
            for n in range(3):
                assert (await double(x=[[n, 0]], headers={"x-caller": "me"}))["y"].tolist() == [[2 * n, 0]]
            return client.rotation().servers[0].infer, type(public)

    infer, public = asyncio.run(ask())
    assert isinstance(infer, public) == (way in PUBLIC)


def test_errors_and_deadlines(way, small_server):
    async def ask():
        async with AsyncClient(small_server.grpc_url, retries=Retries(overloaded=True)) as client:
            slow = await client.model("slow")
            await slow(seconds=[[0.0]])
            with pytest.raises(DeadlineExceeded) as caught:
                await slow(seconds=[[0.05]], timeout_s=0.02)
            assert "Deadline Exceeded" in caught.value.details
            server = client.rotation().servers[0]
            reply = await client.send(server, server.infer, b"", 1.0, None)
            assert isinstance(reply, grpc.aio.AioRpcError)
            assert reply.code() is grpc.StatusCode.NOT_FOUND
            assert "unknown model" in reply.details()
            with pytest.raises(InvalidInput, match="'seconds'"):
                await slow(seconds=[[0.2, 0.2]])

    asyncio.run(ask())


def test_nobody_listens(way, small_server):
    async def ask():
        async with AsyncClient(small_server.grpc_url) as client:
            double = await client.model("double")
            await client.rotation().servers[0].channel.close()
            client.rotation().servers[0]._open = lambda _: client.open("127.0.0.1:9")
            client.rotation().servers[0].connect()
            with pytest.raises(Unreachable, match="refused"):
                await double(x=[[1, 2]], timeout_s=0.2)

    asyncio.run(ask())


def test_a_cancelled_task_and_a_closed_client(way, python_server):
    async def ask():
        async with AsyncClient(python_server.grpc_url) as client:
            nap = await client.model("nap")
            await nap(seconds=[0.0])  # its queue is short: the naps of the test before are over now
            tasks = [asyncio.create_task(nap(seconds=[0.3])) for _ in range(2)]
            await asyncio.sleep(0.05)
            tasks[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[0]
            assert len(client.rotation().servers[0].calls) == 1
        with pytest.raises(ServerError, match="the client was closed"):
            await tasks[1]

    asyncio.run(ask())


def test_cancelled_before_it_starts_beside_others(small_server):
    """Calls beside many others wait for a turn of the loop: until then the server knows nothing of them."""

    async def ask():
        async with AsyncClient(small_server.grpc_url) as client:
            double = await client.model("double")
            request = codec.encode(double.spec, {"x": np.ones((1, 2), np.float32)})
            infer = client.rotation().servers[0].infer
            calls = [infer(request, timeout=5.0, metadata=None) for _ in range(direct.TOGETHER + 4)]

            async def answer(call):
                return codec.decode(double.spec, await call)["y"].tolist()

            tasks = [asyncio.create_task(answer(call)) for call in calls]
            await asyncio.sleep(0)
            calls[-1].cancel()
            tasks[-2].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    *answers, cancelled, dropped = asyncio.run(ask())
    assert answers == [[[2, 2]]] * (direct.TOGETHER + 2)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert isinstance(dropped, asyncio.CancelledError)
