"""The reference queue as a process, and a simulated one for tests that need hundreds of searches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from queue_process import QueueProcess

StartQueue = Callable[..., QueueProcess]


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
