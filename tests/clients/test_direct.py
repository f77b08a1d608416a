"""Asyncio calls underneath grpc.aio's own, and the public way where grpcio is another than expected."""

import asyncio

import grpc.aio
import pytest

from clients import AsyncClient, DeadlineExceeded, InvalidInput, ServerError, Unreachable, direct


def broken(*arguments):
    raise TypeError("unary_unary() takes other arguments now")


@pytest.fixture(params=["direct", "a name is missing", "the arguments have changed"])
def way(request, monkeypatch):
    if request.param == "a name is missing":
        monkeypatch.setattr(direct, "_NAMES", (*direct._NAMES, "gone"))
    elif request.param == "the arguments have changed":
        monkeypatch.setattr(direct, "_Call", broken)
    return request.param


def test_every_way_is_taken(way, small_server):
    async def ask():
        async with AsyncClient(small_server.grpc_url) as client:
            double = await client.model("double")
            public = client.rotation().servers[0].channel.unary_unary("/m")
            for n in range(3):
                assert (await double(x=[[n, 0]], headers={"x-caller": "me"}))["y"].tolist() == [[2 * n, 0]]
            return client.rotation().servers[0].infer, type(public)

    infer, public = asyncio.run(ask())
    assert isinstance(infer, public) == (way == "a name is missing")


def test_errors_and_deadlines(way, small_server):
    async def ask():
        async with AsyncClient(small_server.grpc_url) as client:
            slow = await client.model("slow")
            with pytest.raises(DeadlineExceeded) as caught:
                await slow(seconds=[[0.2]], timeout_s=0.02)
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
