"""Two servers that are killed and restarted in turn while a client keeps asking."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from complete_server import complete_server

from clients import AsyncClient, Client, InferenceError
from clients.connection import Connection
from server import TritonServer
from server.ports import free_ports

RETURN_S = 2.0


class Pair:
    """Two servers of `double` at fixed addresses: `with Pair(repository) as pair: pair.addresses`."""

    def __init__(self, repository: Path) -> None:
        ports = iter(free_ports("127.0.0.1", 6))
        self.servers = [
            complete_server(repository, grpc_port=next(ports), http_port=next(ports), metrics_port=next(ports))
            for _ in range(2)
        ]

    def __enter__(self) -> Pair:
        with ThreadPoolExecutor() as starting:
            list(starting.map(TritonServer.start, self.servers))
        return self

    def __exit__(self, *ended: object) -> None:
        for server in self.servers:
            server.stop()

    @property
    def addresses(self) -> list[str]:
        return [server.grpc_url for server in self.servers]

    def kill(self, which: int) -> None:
        os.kill(self.servers[which].pid, signal.SIGKILL)

    def restart(self, which: int) -> None:
        self.servers[which].stop()
        self.servers[which].start()

    def revive(self, which: int) -> None:
        """Start it again if it is dead, as a restart policy does: Triton 2.51 can die of SIGSEGV when it goes on after
        a hang and finds its requests cancelled (docs/guides/docker.md)."""
        if not self.servers[which].is_alive():
            self.restart(which)


@dataclass
class Outcome:
    """What became of the requests; each carried its own number, and an answer counts if it is that number doubled."""

    answers: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    asked: int = 0
    kills: int = 0
    seconds: float = 0.0
    retried: int = 0
    may_have_run_twice: int = 0

    def record(self, number: int, answer: object, latency_s: float) -> None:
        self.latencies_s.append(latency_s)
        if answer == [[2.0 * number, 1.0]]:
            self.answers[number] += 1
        else:
            self.wrong.append(f"{number} was answered {answer}")

    def finish(self, seconds: float, faults: Faults, client: Connection) -> None:
        self.seconds, self.asked = seconds, next(faults.numbers)
        self.retried, self.may_have_run_twice = client.budget.retried, client.budget.spent

    @property
    def lost(self) -> int:
        return self.asked - len(self.answers)

    @property
    def duplicated(self) -> int:
        return sum(count - 1 for count in self.answers.values())

    def text(self) -> str:
        ordered = sorted(self.latencies_s)
        p50, p99 = (ordered[int(len(ordered) * q)] * 1e3 for q in (0.5, 0.99))
        return (
            f"{self.asked} requests in {self.seconds:.1f} s over two servers, {self.kills} SIGKILLs and restarts: "
            f"{self.lost} lost, {self.duplicated} duplicated, {len(self.wrong)} wrong; {self.retried} retries, "
            f"{self.may_have_run_twice} of them of requests that may have run; p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
            f"slowest {ordered[-1] * 1e3:.0f} ms"
        )


class Faults:
    """Kills and restarts the servers in turn until `requests` have been asked and `kills` have died."""

    def __init__(self, pair: Pair, requests: int, kills: int = 2) -> None:
        self._pair, self._requests, self._kills = pair, requests, kills
        self.outcome = Outcome()
        self.done = threading.Event()
        self.numbers = itertools.count()

    def next_number(self) -> int | None:
        """The number of the next request, or None when it is over."""
        if self.done.is_set():
            return None
        self.outcome.asked = number = next(self.numbers)
        return number

    def run(self) -> None:
        try:
            for which in itertools.cycle((0, 1)):
                time.sleep(0.5)
                self._pair.kill(which)
                self.outcome.kills += 1
                time.sleep(0.3)
                self._pair.restart(which)
                if self.outcome.kills >= self._kills and self.outcome.asked >= self._requests:
                    return
                time.sleep(RETURN_S)  # the other is killed next: this one must be in use by then
        finally:
            self.done.set()


def ask_with_threads(pair: Pair, requests: int, in_flight: int, kills: int = 2) -> Outcome:
    """Ask from `in_flight` threads while the servers die in turn."""
    faults = Faults(pair, requests, kills)
    outcome = faults.outcome

    def ask() -> None:
        while (number := faults.next_number()) is not None:
            start = time.perf_counter()
            try:
                answer = double(x=[[number, 0.5]])["y"].tolist()
            except InferenceError as error:
                outcome.errors.append(f"{number}: {type(error).__name__}: {error}")
            else:
                outcome.record(number, answer, time.perf_counter() - start)

    with Client(pair.addresses) as client, ThreadPoolExecutor(in_flight) as pool:
        double = client.model("double")
        start = time.monotonic()
        asking = [pool.submit(ask) for _ in range(in_flight)]
        faults.run()
        for asked in asking:
            asked.result()
        outcome.finish(time.monotonic() - start, faults, client)
    return outcome


async def ask_with_tasks(pair: Pair, requests: int, in_flight: int) -> Outcome:
    """The same with the asyncio client."""
    faults = Faults(pair, requests)
    outcome = faults.outcome
    async with AsyncClient(pair.addresses) as client:
        double = await client.model("double")

        async def ask() -> None:
            while (number := faults.next_number()) is not None:
                start = time.perf_counter()
                try:
                    answer = (await double(x=[[number, 0.5]]))["y"].tolist()
                except InferenceError as error:
                    outcome.errors.append(f"{number}: {type(error).__name__}: {error}")
                else:
                    outcome.record(number, answer, time.perf_counter() - start)

        start = time.monotonic()
        asking = [asyncio.create_task(ask()) for _ in range(in_flight)]
        await asyncio.to_thread(faults.run)
        await asyncio.gather(*asking)
        outcome.finish(time.monotonic() - start, faults, client)
    return outcome
