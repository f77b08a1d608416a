"""Sequences under load against a real Triton: `total` has four slots, and fails where a sequence lacks its start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clients import Client
from loadtests import CapacityRequest, Slo, find
from loadtests.capacity import load
from loadtests.errors import SloUnreachableError
from loadtests.search.budget import Timing
from loadtests.target.client import Target
from loadtests.target.parameters import flagged
from loadtests.workload.inputs import encode_sequence
from loadtests.workload.shape import parse_shape

pytestmark = [pytest.mark.process, pytest.mark.alone]

P90, SLOWEST = Slo.parse("p90=50ms"), Slo.parse("gap:p90=100ms")
INTERVAL_S = 0.04


@pytest.fixture(scope="module")
def client(small_server):
    with Client(small_server.grpc_url, timeout_s=2) as made:
        yield made


@pytest.fixture(scope="module")
def asked(small_server, client):
    """Sequences of 4 and of 6 requests: they hold a slot for 0.16 s in the mean, so that 25 a second fill all four."""
    spec = client.model("total").spec
    payloads = [encode_sequence(spec, {"x": np.arange(count, dtype=np.int32)}) for count in (4, 6)]
    return CapacityRequest(small_server.grpc_url, "total", (P90, SLOWEST), payloads=payloads, interval_s=INTERVAL_S)


@pytest.fixture(autouse=True)
def no_slot_is_held(client):
    """Whatever a test did."""
    yield
    sequences = [client.model("total").sequence() for _ in range(4)]
    for sequence in sequences:
        sequence(x=[1], end=False)
    for sequence in sequences:
        assert sequence(x=[2], end=True)["total"].tolist() == [[3]]


def test_a_search_counts_sequences(asked, tmp_path):
    timing = Timing(shortest_probe_s=0.2, cpu_sample_s=0.05, cooldown_s=0.1)
    slos = (Slo.parse("p90=20ms"), Slo.parse("gap:p90=20ms"))
    result = find(replace(asked, slos=slos, budget_s=4.0, start_per_s=10.0, timing=timing, folder=tmp_path))
    assert result.unit == "sequences"
    assert all(point.rate_per_s < 40 for point in result.points if point.verdict == "pass")
    assert result.points
    assert sum(point.errors for point in result.points) == 0
    for point in result.points:
        assert point.sequences is not None
        assert 4 <= point.sequences.requests_mean <= 6
        assert point.sequences.at_once >= point.rate_per_s * point.sequences.length_s
        (step,) = point.steps
        assert step.share == 1.0
        assert step.requests >= point.requests * 4


def test_more_sequences_than_slots_wait_for_one(asked):
    point = load(asked, parse_shape("constant:60", 0.8))
    assert not point.passes
    assert point.errors == 0
    assert point.percentile_ms("gap", "p50") > SLOWEST.limit_ms / 2


def test_what_a_sequence_takes_alone(asked):
    with Target(asked.server, "total") as target:
        target.check()
        assert target.keeps_state
        times = target.stream(flagged(asked.payloads[0]), 5)
    assert 0 < times.latency_ms <= times.gap_ms
    assert times.parts == 1


@pytest.mark.parametrize("slo", ["p50=1us", "gap:p50=1us"])
def test_an_slo_that_is_out_of_reach(asked, slo):
    with pytest.raises(SloUnreachableError) as missed:
        find(replace(asked, slos=(Slo.parse(slo), Slo.parse("p99=1s"))))
    assert missed.value.slo == slo
