"""What fork, a second event loop, pickling and gevent do to a client."""

import asyncio
import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from clients import AsyncClient, Client, InferenceError, UnusableClientError

pytestmark = pytest.mark.process

X = [[1.0, 2.0]]
FORKED_CLIENTS = str(Path(__file__).parents[1] / "support" / "forked_clients.py")

FORKS = {
    "a client, its servers in turn": "True",
    "a client whose parent still asks": "True",
    "a fork of a fork": "True",
    "a client of a name, which is looked up again": "True",
    "a new client of each kind, after both in the parent": "True",
    "a map, after one in the parent": "True",
    "a closed client": "ValueError",
    "a sequence of the parent": "UnusableClientError",
    "a client, after a call of another thread that ends soon": "True",
    "a client, in a call of another thread": "UnusableClientError",
    "a new client, in a call of another thread": "UnusableClientError",
    "a new client, in a map": "UnusableClientError",
    "a new client, beside an open asyncio client": "UnusableClientError",
    "a new client, without gRPC's support of forks": "UnusableClientError",
}

ENDED_BY_GRPC = ("a new client, in a map", "a new client, beside an open asyncio client")
"""There gRPC's own handlers of a fork may end the child before any Python runs in it."""


@pytest.fixture(scope="module")
def forks(python_server):
    """What the checks of tests/support/forked_clients.py came to, each in a fork of one process."""
    command = [sys.executable, FORKED_CLIENTS, python_server.grpc_url]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("case", FORKS)
def test_in_a_fork(forks, case):
    ended_by_grpc = {""} if case in ENDED_BY_GRPC else set()
    assert forks[case] in {FORKS[case], *ended_by_grpc}


def test_every_fork_is_looked_at(forks):
    assert set(forks) == set(FORKS)


@pytest.mark.parametrize("servers", [1, 2])
def test_a_second_event_loop_is_refused(small_server, servers):
    client = AsyncClient([small_server.grpc_url] * servers)
    double = asyncio.run(client.model("double"))

    async def ask_items():
        return [answer async for answer in double.map([X], errors="return")]

    for again in (client.is_ready, client.models, ask_items, lambda: double(x=X), lambda: double.one(x=X[0])):
        with pytest.raises(UnusableClientError):
            asyncio.run(again())
    asyncio.run(client.close())
    asyncio.run(client.close())


def test_a_client_is_not_closed_from_another_loop_while_its_own_runs(small_server):
    async def use():
        async with AsyncClient(small_server.grpc_url) as client:
            double = await client.model("double")
            with pytest.raises(UnusableClientError):
                await asyncio.to_thread(asyncio.run, client.close())
            assert (await double(x=X))["y"].tolist() == [[2, 4]]

    asyncio.run(use())


def test_an_asyncio_client_without_a_loop_says_so(small_server):
    client = AsyncClient(small_server.grpc_url)
    double = asyncio.run(client.model("double"))
    with pytest.raises(UnusableClientError):
        double.stream(x=X)
    asyncio.run(client.close())


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_client_is_neither_copied_nor_pickled(kind, way):
    with pytest.raises(TypeError, match=r"127\.0\.0\.1:9"):
        way(kind("127.0.0.1:9"))


def test_a_model_is_not_pickled(small_server):
    with Client(small_server.grpc_url) as client, pytest.raises(TypeError, match=small_server.grpc_url):
        pickle.dumps(client.model("double"))


GREENLETS = """
import sys
from gevent import monkey
monkey.patch_all()
import asyncio, time, gevent
from clients import AsyncClient, Client, UnusableClientError
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
    except UnusableClientError:
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
    assert issubclass(UnusableClientError, InferenceError)
