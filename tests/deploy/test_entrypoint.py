"""The container's entry point: tells the balancer, waits, passes SIGTERM on, and ends as its child ends."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from replica import ENTRYPOINT, LOOPBACK

from server.ports import free_ports

pytestmark = pytest.mark.process

# A handler would not do: Python sleeps on where the signal comes just before the sleep.
WAITS = (
    "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); print('up', flush=True); "
    "signal.sigwait([signal.SIGTERM]); raise SystemExit(7)"
)


@contextlib.contextmanager
def entered(program: str, *, drain_s: float) -> Iterator[tuple[subprocess.Popen[str], int]]:
    (port,) = free_ports(LOOPBACK, 1)
    command = [sys.executable, str(ENTRYPOINT), f"--address={LOOPBACK}", f"--port={port}", f"--drain={drain_s}", "--"]
    with subprocess.Popen([*command, sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, port
        finally:
            process.terminate()
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()


def ask(port: int) -> str:
    with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
        return connection.makefile().read()


def test_a_watched_server_is_drained_before_it_is_stopped() -> None:
    with entered(WAITS, drain_s=1) as (process, port):
        assert process.stdout.readline() == "up\n"
        assert ask(port) == "up ready\n"
        start = time.monotonic()
        process.terminate()
        while (answer := ask(port)) == "up ready\n":
            time.sleep(0.02)
        assert answer == "drain\n"
        assert process.wait(5) == 7
        assert 1 <= time.monotonic() - start < 4


def test_nothing_is_waited_for_when_nobody_asks() -> None:
    with entered(WAITS, drain_s=30) as (process, _):
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.wait(5) == 7


def test_a_second_signal_ends_the_wait() -> None:
    with entered(WAITS, drain_s=30) as (process, port):
        assert process.stdout.readline() == "up\n"
        ask(port)
        process.terminate()
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 7


@pytest.mark.parametrize("attempt", range(5))
def test_signals_that_come_at_once_end_it_too(attempt: int) -> None:
    """Docker's stop and a Ctrl-C, or one to the group and one of a parent's death."""
    with entered(WAITS, drain_s=1) as (process, port):
        assert process.stdout.readline() == "up\n"
        ask(port)
        until = time.monotonic() + 5
        while process.poll() is None and time.monotonic() < until:
            process.terminate()  # until its very end
        assert process.poll() == 7


@pytest.mark.parametrize(
    ("program", "status"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 128 + 9)]
)
def test_the_end_of_the_server_is_its_own(program: str, status: int) -> None:
    with entered(program, drain_s=30) as (process, _):
        assert process.wait(5) == status
