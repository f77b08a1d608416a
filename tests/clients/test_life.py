"""What fork, a second event loop, pickling and gevent do to a client."""

import asyncio
import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import time

import pytest

from clients import AsyncClient, Client, InferenceError, UnusableClient

X = [[1.0, 2.0]]
forks = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 on forks of processes with threads


def in_fork(check):
    """Whether `check` is true in a fork of this process; an exception's name where it raises one."""
    gc.collect()  # asyncio clients that other tests have left open
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(bool(check()))
        except BaseException as error:
            said = type(error).__name__
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@forks
def test_a_fork_asks_its_servers_in_turn_and_finds_them_again(small_server):
    with Client([small_server.grpc_url] * 2) as client:
        double = client.model("double")
        servers = client.rotation().servers

        def goes_on():
            client._opening.acquire(timeout=1)  # as the parent's thread may have held the lock
            client._opening.release()
            double(x=X)
            mine = client.rotation()
            assert not set(mine.servers) & set(servers), "channels are the parent's"
            assert {mine.pick(), mine.pick()} == set(mine.servers)
            mine.mark(mine.servers[0], up=False)
            until_s = time.monotonic() + 5
            while not mine.servers[0].up and time.monotonic() < until_s:
                time.sleep(0.05)
            return mine.servers[0].up

        assert in_fork(goes_on) == "True"
        assert in_fork(lambda: in_fork(goes_on) == "True") == "True"
        assert client.rotation().servers == servers
        assert double(x=X)["y"].tolist() == [[2, 4]]


@forks
def test_a_fork_may_make_clients_of_both_kinds(small_server):
    async def ask():
        async with AsyncClient(small_server.grpc_url) as client:
            return (await (await client.model("double"))(x=X))["y"].tolist() == [[2, 4]]

    with Client(small_server.grpc_url) as client:
        double = client.model("double")
        assert len(list(double.map([X] * 3))) == 3
        assert asyncio.run(ask())
        assert in_fork(lambda: len(list(double.map([X] * 3))) == 3) == "True"
        assert in_fork(lambda: asyncio.run(ask())) == "True"


@forks
def test_a_closed_client_is_closed_in_a_fork(small_server):
    client = Client(small_server.grpc_url)
    assert client.is_ready()
    client.close()
    assert in_fork(client.is_ready) == "ValueError"


@forks
def test_a_sequence_stays_in_its_process(python_server):
    with Client(python_server.grpc_url) as client, client.model("total").sequence() as ask:
        assert ask(x=[1])["total"].tolist() == [[1]]
        assert in_fork(lambda: ask(x=[1])) == "UnusableClient"
        assert ask(x=[2], end=True)["total"].tolist() == [[3]]


@forks
def test_a_fork_that_grpc_does_not_survive_says_so(small_server, monkeypatch):
    def new():
        return Client(small_server.grpc_url).is_ready()

    with Client(small_server.grpc_url) as client:
        slow = client.model("slow")
        thread = threading.Thread(target=slow, kwargs={"seconds": [0.8]})
        thread.start()
        time.sleep(0.1)
        assert in_fork(lambda: client.models()) == "UnusableClient"
        assert in_fork(new) == "UnusableClient"
        thread.join()
        assert in_fork(new) == "True"
        monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
        assert in_fork(new) == "UnusableClient"
        assert client.is_ready()


@forks
def test_a_fork_waits_for_a_short_call(small_server):
    with Client(small_server.grpc_url) as client:
        slow = client.model("slow")
        thread = threading.Thread(target=slow, kwargs={"seconds": [0.15]})
        thread.start()
        time.sleep(0.05)
        assert in_fork(client.is_ready) == "True"
        thread.join()


@forks
def test_a_fork_beside_an_open_asyncio_client_says_so(small_server):
    async def fork():
        async with AsyncClient(small_server.grpc_url) as client:
            double = await client.model("double")
            assert in_fork(lambda: Client(small_server.grpc_url).is_ready()) == "UnusableClient"
            assert (await double(x=X))["y"].tolist() == [[2, 4]]

    asyncio.run(fork())


@pytest.mark.parametrize("servers", [1, 2])
def test_a_second_event_loop_is_refused(small_server, servers):
    client = AsyncClient([small_server.grpc_url] * servers)
    double = asyncio.run(client.model("double"))

    async def ask_items():
        return [answer async for answer in double.map([X], errors="return")]

    for again in (client.is_ready, client.models, ask_items, lambda: double(x=X), lambda: double.one(x=X[0])):
        with pytest.raises(UnusableClient, match="another event loop"):
            asyncio.run(again())
    asyncio.run(client.close())
    asyncio.run(client.close())


def test_a_client_is_not_closed_from_another_loop_while_its_own_runs(small_server):
    async def use():
        async with AsyncClient(small_server.grpc_url) as client:
            double = await client.model("double")
            with pytest.raises(UnusableClient, match="another event loop"):
                await asyncio.to_thread(asyncio.run, client.close())
            assert (await double(x=X))["y"].tolist() == [[2, 4]]

    asyncio.run(use())


def test_an_asyncio_client_without_a_loop_says_so(small_server):
    client = AsyncClient(small_server.grpc_url)
    double = asyncio.run(client.model("double"))
    with pytest.raises(UnusableClient, match="running event loop"):
        double.stream(x=X)
    asyncio.run(client.close())


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_client_is_neither_copied_nor_pickled(kind, way):
    with pytest.raises(TypeError, match=r"Pass on the address \('127\.0\.0\.1:9'\)"):
        way(kind("127.0.0.1:9"))


def test_a_model_is_not_pickled(small_server):
    with Client(small_server.grpc_url) as client, pytest.raises(TypeError, match="Pass on the address"):
        pickle.dumps(client.model("double"))


GREENLETS = """
import sys
from gevent import monkey
monkey.patch_all()
import asyncio, time, gevent
from clients import AsyncClient, Client, UnusableClient
client = Client(sys.argv[1])
nap = client.model("nap")
nap(seconds=[0.0])
start, ticks = time.monotonic(), []
def tick():
    while True:
        gevent.sleep(0.02)
        ticks.append(1)
gevent.spawn(tick)
nap(seconds=[0.3])
assert len(ticks) > 5, "a call lets other greenlets run"
other = AsyncClient(sys.argv[1])
for refused in (lambda: asyncio.run(other.is_ready()), lambda: list(nap.map([[0.0]], errors="return"))):
    try:
        refused()
    except UnusableClient:
        continue
    raise AssertionError
client.close()
"""


def test_greenlets_of_gevent_share_a_client(python_server):
    ran = subprocess.run(
        [sys.executable, "-c", GREENLETS, python_server.grpc_url], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr


def test_the_error_is_one_of_the_package():
    assert issubclass(UnusableClient, InferenceError)
