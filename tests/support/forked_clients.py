"""What a client does in a fork: `python forked_clients.py URL` forks once for each check, and prints as JSON what came
of it: True or False, or the name of an exception. The server has the models of `python_models`.

In a process of its own: gRPC's asyncio runs on in a process until the last channel is collected.
"""

import asyncio
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable

from clients import AsyncClient, Client

URL = sys.argv[1]
LONGEST_S = 15


def in_fork(check: Callable[[], object]) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(LONGEST_S)  # a hang is no answer
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


def works(client: Client) -> bool:
    return client.model("nap")(seconds=[0.0])["slept"].size == 1


def new() -> bool:
    with Client(URL) as client:
        return works(client)


def maps(client: Client) -> bool:
    return len(list(client.model("nap").map([[0.0]] * 3, in_flight=2))) == 3


async def waits() -> bool:
    async with AsyncClient(URL) as client:
        return (await (await client.model("nap"))(seconds=[0.0]))["slept"].size == 1


async def forks_beside() -> str:
    async with AsyncClient(URL) as client:
        await client.is_ready()
        return in_fork(new)


def beside_a_call(client: Client, seconds: float, check: Callable[[], object]) -> str:
    thread = threading.Thread(target=client.model("nap"), kwargs={"seconds": [seconds]})
    thread.start()
    time.sleep(0.05)
    said = in_fork(check)
    thread.join()
    return said


def goes_on(client: Client) -> Callable[[], bool]:
    """A check: its own channels are asked in turn, and a server that was down is found again."""
    parents = set(client.rotation().servers)

    def check() -> bool:
        answered, mine = works(client), client.rotation()
        in_turn = {mine.pick(), mine.pick()} == set(mine.servers) and not parents & set(mine.servers)
        mine.mark(mine.servers[0], up=False)
        until_s = time.monotonic() + 5
        while not mine.servers[0].up and time.monotonic() < until_s:
            time.sleep(0.05)
        return answered and in_turn and mine.servers[0].up

    return check


def main() -> dict[str, str]:
    found: dict[str, str] = {}
    with Client([URL, URL]) as two:
        works(two)
        check = goes_on(two)
        found["a client, its servers in turn"] = in_fork(check)
        found["a client whose parent still asks"] = in_fork(lambda: works(two)) if works(two) else "False"
        found["a fork of a fork"] = in_fork(lambda: works(two) and in_fork(check) == "True")
    with Client(f"dns:///localhost:{URL.rpartition(':')[2]}") as named:
        works(named)
        found["a client of a name, which is looked up again"] = in_fork(lambda: works(named))
    with Client(URL) as client:
        with client.model("total").sequence() as ask:
            ask(x=[1])
            found["a sequence of the parent"] = in_fork(lambda: ask(x=[1]))
            ask(x=[1], end=True)
        soon = "a client, after a call of another thread that ends soon"
        found[soon] = beside_a_call(client, 0.08, lambda: works(client))
        found["a client, in a call of another thread"] = beside_a_call(client, 0.6, lambda: works(client))
        found["a new client, in a call of another thread"] = beside_a_call(client, 0.6, new)
        assert maps(client)
        found["a map, after one in the parent"] = in_fork(lambda: maps(client))
        answers = client.model("nap").map([[0.0], [0.3]], in_flight=1)
        next(answers)
        found["a new client, in a map"] = in_fork(new)
        list(answers)
        assert asyncio.run(waits())
        both = "a new client of each kind, after both in the parent"
        found[both] = in_fork(lambda: new() and asyncio.run(waits()))
        found["a new client, beside an open asyncio client"] = asyncio.run(forks_beside())
    found["a closed client"] = in_fork(lambda: works(client))
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    found["a new client, without gRPC's support of forks"] = in_fork(new)
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks of processes with threads
    print(json.dumps(main()))
