"""Searches that look more briefly than they should, where a test is not about what they find."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from loadtests import CapacityRequest
from loadtests.search.budget import Timing

HASTY = Timing(shortest_probe_s=0.3, cpu_sample_s=0.05)


@contextmanager
def haste() -> Iterator[None]:
    """The same for `fathom capacity` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fathom.commands.capacity.CapacityRequest", partial(CapacityRequest, timing=HASTY))
        yield
