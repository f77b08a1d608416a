"""A Locust worker as a generator of a search."""

from __future__ import annotations

from types import SimpleNamespace

from clients import TLS
from loadtests.locust_ui import jobs
from loadtests.locust_ui.options import Reach
from loadtests.target.access import Access


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
