"""Load on KServe-v2 servers that say little about themselves."""

from __future__ import annotations

import logging
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
from haste import HASTY
from plain_server import PlainServer

from clients import ModelSpec, TensorSpec, codec
from loadtests import CapacityRequest, Slo, find
from loadtests.capacity import load
from loadtests.locust_ui.options import Reach, Wanted
from loadtests.results.store import read_runs
from loadtests.target.client import Target
from loadtests.workload.shape import parse_shape
from loadtests.workload.sizes import Sizes
from loadtests.workload.workload import ModelWeight

pytestmark = pytest.mark.process

P90 = Slo.parse("p90=1s")

SERVERS: dict[str, tuple[dict[str, Any], tuple[tuple[int, ...], ...], bool]] = {
    "none of the extensions: one row a request": ({}, ((1, 4),), True),
    "a name with slashes": ({"model": "team/m"}, ((1, 4),), True),
    "a batch of one at most": ({"most_rows": 1}, ((1, 4),), True),
    "no batch axis: a text of any length beside a row": (
        {"inputs": (("x", "FP32", (4,)), ("t", "BYTES", (-1,)))},
        ((4,), (16,)),
        True,
    ),
    "every dimension is known": ({"inputs": (("x", "FP32", (3, 4)),)}, ((3, 4),), False),
    "a scalar": ({"inputs": (("x", "FP32", ()),)}, ((),), False),
    "a configuration without a batch": ({"without": ("ModelStatistics",)}, ((16, 4),), True),
    "a configuration with a batch": ({"without": (), "most_rows": 8}, ((1, 4),), False),
}
"""What a server is like, the shapes it is asked with, and whether something about them is assumed."""


@pytest.mark.parametrize("case", SERVERS)
def test_the_first_request_fits_what_is_known(case, caplog):
    """What is made up is said aloud where the server leaves it open."""
    like, shapes, assumed = SERVERS[case]
    with PlainServer(**like) as server, caplog.at_level(logging.WARNING, "fathom"):
        options = SimpleNamespace(model=server.model, slo="p90=1s", inputs="", arrivals="poisson", seed=0)
        target, *_ = Wanted.of(SimpleNamespace(host=server.address, parsed_options=options)).target(Reach())
    assert len(target.payloads) > 1
    assert dict(server.shapes) == {shapes: 1}
    assert [server.model in record.getMessage() for record in caplog.records] == [True] * assumed


@pytest.mark.parametrize("like", [{}, {"typed": True}, {"empty": True}], ids=str)
def test_every_answer_counts_whatever_it_holds(like):
    with PlainServer(**like) as server:
        point = load(CapacityRequest(server.address, server.model, [P90]), parse_shape("constant:100", 0.3))
    assert (point.errors, point.requests, point.queue_ms) == (0, 30, None)
    assert server.answered == 31


def test_latencies_are_told_by_the_size_of_the_request():
    inputs = (("t", "BYTES", (-1,)),)
    spec = ModelSpec("m", "", 0, {"t": TensorSpec("t", "BYTES", (-1,))}, {})
    payloads = [codec.encode(spec, {"t": [b"x" * size]}) for size in (6, 6, 996)]
    told: dict[str, Any] = {}
    with PlainServer("m", inputs=inputs) as server:
        share = ModelWeight("m", payloads=payloads, source="a file")
        request = CapacityRequest(server.address, "m", [P90], mix=[share])
        point = load(request, parse_shape("constant:100", 0.3), told.update)
    assert [(entry.up_to_bytes, entry.requests) for entry in point.sizes] == [(10, 20), (1000, 10)]
    assert all(0 < entry.p50_ms <= entry.p99_ms <= point.max_ms for entry in point.sizes)
    assert told["payload_sizes"] == {"m": asdict(Sizes(3, 10, 1000, 1000))}
    assert (told["payload_source"], told["arrivals"]) == ("a file", "constant")


def test_a_search_says_what_it_assumed_and_can_be_read_again(tmp_path):
    with PlainServer("team/m") as server:
        request = CapacityRequest(
            server.address, server.model, [Slo.parse("p50=500ms")], budget_s=3, start_per_s=40, max_per_s=80,
            folder=tmp_path, timing=HASTY,
        )  # fmt: skip
        result = find(request)
    assert result.points
    assert all(point.errors == 0 for point in result.points)
    (stored,) = read_runs(tmp_path)
    assert stored.run.model == "team/m"
    assert "x FP32 [1, 4]" in stored.run.settings["payload_source"]


def test_a_model_is_asked_by_the_name_that_was_given():
    """Some servers answer with another name, or none."""
    with PlainServer("alias") as server, Target(server.address, "alias") as target:
        server.told_name = ""
        assert target.metadata().name == "alias"
