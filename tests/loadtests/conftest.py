"""The reference queue as a process, and a simulated one for tests that need hundreds of searches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SERVER = Path(__file__).with_name("queue_server.py")
StartQueue = Callable[..., "QueueProcess"]


class QueueProcess:
    """A running `queue_server.py`."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen([sys.executable, str(SERVER), *options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = f"127.0.0.1:{self.process.stdout.readline().strip()}"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start_queue() -> Iterator[StartQueue]:
    """Starts queue servers with the given command line and ends them afterwards."""
    started: list[QueueProcess] = []

    def start(*options: str) -> QueueProcess:
        started.append(QueueProcess(*options))
        return started[-1]

    yield start
    for queue in started:
        queue.stop()
