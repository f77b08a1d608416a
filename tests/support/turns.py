"""The tests in two workers of pytest-xdist: which share one, and which run while the other waits."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

WORKER = os.environ.get("PYTEST_XDIST_WORKER")
TESTS = Path(__file__).parents[1]
QUEUE, ROOM = TESTS / "conftest.py", Path(__file__)
"""Two files that all workers see and none writes."""


class ByFolder(LoadScopeScheduling):
    """A folder's tests share a worker and so its servers; the folders that need exported models are one."""

    def _split_scope(self, nodeid: str) -> str:
        folder = nodeid.split("/")[1]
        return "models" if needs_models(folder) else folder


def needs_models(folder: str) -> bool:
    """Whether tests of this folder ask for what takes long to export; the first worker begins with them."""
    return folder in ("benchmarks", "export", "fathom")


def order(item: pytest.Item) -> tuple[bool, bool]:
    """Several workers begin with the models; a worker ends with what is to run alone."""
    first = needs_models(item.path.relative_to(TESTS).parts[0])
    return (WORKER is not None and not first, item.get_closest_marker("alone") is not None)


@contextlib.contextmanager
def turn(item: pytest.Item) -> Iterator[None]:
    """Waits until no worker runs a test that is marked `alone`, and before such a one until none runs any.

    Who waits keeps those that come later from passing by, so that a test that would be alone has its turn.
    """
    if WORKER is None:
        yield
        return
    with ROOM.open() as room:
        with QUEUE.open() as queue:
            fcntl.flock(queue, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        yield
