"""Sizes of requests, and latency by size."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.records.point import SizePoint
from loadtests.workload.sizes import Sizes, by_size, format_bytes

POOL = np.array([10] * 6 + [40] * 3 + [400])


def test_sizes_are_nearest_rank_percentiles():
    assert Sizes.of(POOL) == Sizes(10, 10, 40, 400)


def test_latency_is_told_of_small_middle_and_large_requests():
    latencies_ms = np.array([1.0, 2.0, 3.0, np.inf])
    found = by_size("m", latencies_ms, np.array([10, 10, 40, 400]), Sizes.of(POOL))
    assert found == (
        SizePoint("m", 10, 2, 1.0, 2.0),
        SizePoint("m", 40, 1, 3.0, 3.0),
        SizePoint("m", 400, 1, None, None),
    )


@pytest.mark.parametrize("sizes", [[100] * 5, [100, 110, 120, 150]])
def test_requests_of_about_one_size_have_no_classes(sizes):
    assert by_size("m", np.ones(len(sizes)), np.array(sizes), Sizes.of(np.array(sizes))) == ()


@pytest.mark.parametrize(("size", "text"), [(48, "48 B"), (4195, "4.2 kB"), (999_900, "1 MB"), (1_340_000, "1.34 MB")])
def test_bytes_are_written_for_a_person(size, text):
    assert format_bytes(size) == text
