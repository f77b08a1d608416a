"""Two real Tritons behind a real HAProxy with TLS: what a client sees when one of them is killed, stopped or hangs."""

from __future__ import annotations

import collections
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from balancer import Fleet
from debian import needs
from replica import Replica

from clients import TLS, Client, InferenceError, Retries

pytestmark = [pytest.mark.process, needs("haproxy", "haproxy")]
CONCURRENCY = 16
DETECTION_S = 3.5  # a check starts at most 1 s after the hang, and two of 1 s each time out, 0.25 s apart
NO_RETRIES = Retries(reserve=0)
REQUESTS = [1_500, pytest.param(20_000, marks=pytest.mark.slow)]
# A Triton older than 25.04 may end so when what it held is cancelled while it completes (docs/known-issues.md):
# when it goes on, or under the requests after.
CRASHED = 128 + signal.SIGSEGV


@dataclass(frozen=True)
class Figures:
    """What clients saw of one fault."""

    fault: str
    retries: bool
    requests: int
    errors: dict[str, int]
    retried: int
    longest_s: float
    out_of_use_s: float  # from the fault until the balancer sent the server nothing more
    back_in_use_s: float  # from ready again until the balancer used it again
    ended: tuple[int, ...]  # exit statuses of the server until it was used again
    answered: dict[str, int]

    def row(self) -> str:
        errors = ", ".join(f"{count} {kind}" for kind, count in self.errors.items()) or "0"
        back = f"{self.back_in_use_s:.2f} s" + (f", ended with {self.ended}" if CRASHED in self.ended else "")
        shares = " / ".join(str(count) for _, count in sorted(self.answered.items()))
        return (
            f"| {self.fault} | {'yes' if self.retries else 'no'} | {self.requests:,} | {errors} | {self.retried} | "
            f"{self.longest_s:.2f} s | {self.out_of_use_s:.2f} s | {back} | {shares} |"
        )


def kill(replica: Replica) -> None:
    os.kill(replica.pid, signal.SIGKILL)


def drain(replica: Replica) -> None:
    replica.terminate()


def hang(replica: Replica) -> None:
    os.kill(replica.pid, signal.SIGSTOP)


def fire(client: Client, requests: int, third: threading.Event) -> tuple[dict[str, int], float]:
    """Send `requests`, CONCURRENCY at a time, `third` set after a third; errors by kind, longest call in seconds."""
    model = client.model("double")
    errors: collections.Counter[str] = collections.Counter()

    def ask(number: int) -> float:
        start = time.monotonic()
        try:
            answer = model(x=[[number, 1.0]], timeout_s=20.0)
            assert answer["y"].tolist() == [[2.0 * number, 2.0]]
        except InferenceError as error:
            errors[f"{type(error).__name__}: {error} ({error.status}, {error.details})"] += 1
        finally:
            if number == requests // 3:
                third.set()
        return time.monotonic() - start

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        futures = [pool.submit(ask, number) for number in range(requests)]
        longest = max(future.result() for future in futures)
    return dict(errors), longest


def meet(fleet: Fleet, fault: Callable[[Replica], None], requests: int, retries: Retries) -> Figures:
    """One fault of triton-a under load, and its return, under what is left of the load."""
    victim, balancer = fleet.replicas[0], fleet.balancer
    before = balancer.answered()

    third = threading.Event()
    with Client(balancer.address, tls=TLS(ca=balancer.ca), retries=retries) as client, ThreadPoolExecutor(1) as loading:
        load = loading.submit(fire, client, requests, third)
        assert third.wait(120)
        fault(victim)
        out_of_use_s = balancer.await_change(victim.name, "UP")
        if fault is hang:
            os.kill(victim.pid, signal.SIGCONT)
        else:
            victim.wait()
        # From this thread, since a process is sent its death signal when the thread that started it ends.
        back = fleet.bring_back(victim)
        errors, longest = load.result()
        retried = client.budget.spent
    return Figures(
        fault=fault.__name__,
        retries=retries is not NO_RETRIES,
        requests=requests,
        errors=errors,
        retried=retried,
        longest_s=longest,
        out_of_use_s=out_of_use_s,
        back_in_use_s=back.after_s,
        ended=back.ended,
        answered={name: count - before[name] for name, count in balancer.answered().items()},
    )


def test_requests_of_one_connection_are_spread_over_both_servers(healthy: Fleet) -> None:
    balancer = healthy.balancer
    before = balancer.answered()
    with Client(balancer.address, tls=TLS(ca=balancer.ca)) as client:
        double = client.model("double")
        for number in range(100):
            double(x=[[number, 0.0]])
    shares = {name: count - before[name] for name, count in balancer.answered().items()}
    assert all(40 <= share <= 62 for share in shares.values()), shares


@pytest.mark.parametrize("requests", REQUESTS)
def test_a_hanging_triton_holds_requests_no_longer_than_the_health_check(
    healthy: Fleet, requests: int, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = meet(healthy, hang, requests, Retries())
    hung = healthy.replicas[0]
    hung.kill()  # what it still has of the hang must not end it in the next test
    healthy.bring_back(hung)
    with capsys.disabled():
        print("\n" + seen.row())
    assert seen.errors == {}
    assert seen.longest_s < DETECTION_S + 1
    assert seen.ended in ((), (CRASHED,))


@pytest.mark.parametrize("requests", REQUESTS)
def test_a_stopped_triton_costs_clients_nothing_even_without_retries(
    healthy: Fleet, requests: int, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = meet(healthy, drain, requests, NO_RETRIES)
    with capsys.disabled():
        print("\n" + seen.row())
    assert seen.errors == {}
    assert seen.ended == (0,)


@pytest.mark.parametrize("requests", REQUESTS)
def test_a_killed_triton_costs_clients_nothing(
    healthy: Fleet, requests: int, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = meet(healthy, kill, requests, Retries())
    with capsys.disabled():
        print("\n" + seen.row())
    assert seen.errors == {}
    assert seen.longest_s < DETECTION_S
    assert seen.ended == (128 + signal.SIGKILL,)
