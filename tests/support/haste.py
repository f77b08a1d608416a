"""Searches that look more briefly than they should, where a test is not about what they find."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def haste() -> Iterator[None]:
    """A first look of 0.3 s instead of 1 s, and no long look at the idle machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("loadtests.search.search._QUICK_S", 0.3)
        patch.setattr("loadtests.search.unloaded._LISTEN_S", 0.05)
        yield
