"""A Locust worker as a generator of a search."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from clients import TLS
from loadtests.errors import BadRequestError
from loadtests.locust_ui import jobs
from loadtests.locust_ui.options import Reach, add_arguments, take_reach
from loadtests.records.record import Outcome, Record
from loadtests.target.access import Access


def options(*words):
    parser = ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_certificates_and_tokens_are_no_options_that_a_master_would_send():
    given = options("--header", "authorization=secret", "--no-real-time", "--model", "m")
    reach = take_reach(given)
    assert reach == Reach(Access(None, {"authorization": "secret"}), real_time=False)
    assert "secret" not in str(given)
    assert given.model == "m"


@pytest.mark.parametrize("words", [("--tls-ca", "missing"), ("--tls-client-key", "me.key"), ("--header", "token")])
def test_options_that_cannot_be_used_are_refused_at_the_start(words):
    with pytest.raises(BadRequestError):
        take_reach(options(*words))


def test_a_worker_that_would_get_in_another_way_refuses():
    """Certificates and tokens stay on the worker's machine, so it must have been started with its own."""
    sent = []
    runner = SimpleNamespace(
        register_message=lambda *_, **__: None, send_message=lambda kind, data: sent.append((kind, data))
    )
    environment = SimpleNamespace(
        runner=runner, events=SimpleNamespace(quitting=SimpleNamespace(add_listener=lambda _: None))
    )
    worker = jobs.Jobs(environment, Reach(Access(headers={"authorization": "secret"})))
    searching = Access(TLS(), {"authorization": "secret"})
    worker._prepare(environment, SimpleNamespace(data={"job": 3, "access": searching.described()}))
    ((kind, data),) = sent
    assert (kind, data["job"], data["ours"]) == (jobs.REFUSED, 3, True)
    assert "secret" not in data["message"]


@pytest.mark.parametrize("slowest_s", [np.nan, 0.7], ids=["single requests", "sequences"])
@pytest.mark.parametrize("parts", [[0, 0, 0], [3, 0, 1]], ids=["ordinary answers", "streams"])
def test_a_record_survives_the_way_to_the_master(parts, slowest_s):
    times = np.array([0.1, 0.2, 0.3])
    sent = Record(times, times, times + 1, np.array([0, 14, 0], np.uint8), parts=np.array(parts, np.uint32))
    if any(parts):
        sent.first_s[:] = times + 0.5
    sent.gap_s[:] = 0.25 if any(parts) else slowest_s
    outcome = Outcome(1.0, 0.5, "", 1000.0)
    record, came = jobs.unpack({**jobs.pack(sent), "outcome": asdict(outcome)}, times)
    assert came == outcome
    for name, column in sent.columns().items():
        assert np.array_equal(getattr(record, name), column, equal_nan=True), name
