"""Closed-loop users that follow a script: each waits for an answer before it goes on, as a person or a batch job would.

For the question "how many requests a second?" use the open-loop front instead (`locustfile.py`): users that wait for a
slow server ask it less, and so hide how slow it is. A script answers another question: does a whole flow work, and how
long does each of its steps take, with so many sessions at a time?

    class Search(TritonUser):
        wait_time = between(1, 3)

        @task
        def search(self) -> None:
            self.ask("text_embedding", text=["play some jazz"])
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from grpc.experimental import gevent as grpc_gevent
from locust import User
from locust.exception import RescheduleTask, StopTest

from clients import TLS, Client, InferenceError
from clients.options import Headers
from loadtests.locust_ui import stats
from loadtests.locust_ui.options import SCHEME

grpc_gevent.init_gevent()
stats.install()


class TritonUser(User):  # type: ignore[misc]
    """All users of a process share one connection to `host`; a step that fails ends the task it is in."""

    abstract = True
    timeout_s: ClassVar[float] = 10.0
    """Deadline of each request."""
    tls: ClassVar[TLS | None] = None
    headers: ClassVar[Headers] = {}
    """Sent with each request, as `clients.Client` has them."""
    _clients: ClassVar[dict[str, Client]] = {}

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        server = (self.host or "").removeprefix(SCHEME)
        if not server:
            raise StopTest("no server: give --host HOST:PORT of its gRPC endpoint")
        if server not in self._clients:
            self._clients[server] = Client(server, timeout_s=self.timeout_s, tls=self.tls, headers=self.headers)
        self.client = self._clients[server]

    def ask(
        self, model: str, inputs: Mapping[str, Any] | None = None, *, step: str = "", **named: Any
    ) -> Mapping[str, Any]:
        """The outputs by name. Locust's tables show the request as `step`, by default the model's name."""
        began_s = time.perf_counter()
        outputs: Mapping[str, Any] = {}
        failure: InferenceError | None = None
        try:
            outputs = self.client.model(model)({**(inputs or {}), **named})
        except InferenceError as error:
            failure = error
        self.environment.events.request.fire(
            request_type="ask",
            name=step or model,
            response_time=(time.perf_counter() - began_s) * 1e3,
            response_length=sum(array.nbytes for array in outputs.values()),
            exception=failure,
            context=self.context(),
        )
        if failure is not None:
            raise RescheduleTask(str(failure)) from failure
        return outputs
