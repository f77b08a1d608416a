"""The reference queue as a process, of a test's own or shared by all that only ask it."""

from __future__ import annotations

import os
from unittest.mock import patch

with patch.dict(os.environ, LOCUST_SKIP_MONKEY_PATCH="1", LOCUST_SKIP_URLLIB3_PATCH="1"):
    import locust  # noqa: F401 - here first: later imports of it would patch the process of all tests

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


@pytest.fixture(scope="session")
def shared_queue() -> Iterator[StartQueue]:
    """The queue server with this command line, for tests that neither end it nor leave a backlog in it."""
    running: dict[tuple[str, ...], QueueProcess] = {}

    def find(*options: str) -> QueueProcess:
        if options not in running:
            running[options] = QueueProcess(*options)
        return running[options]

    yield find
    for queue in running.values():
        queue.stop()
