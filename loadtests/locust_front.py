"""Locust as the front of the open-loop generator: its users are the target rate, its tables show our latencies.

Every Locust process that would run users (the only one, or each worker) drives a generator process of its own and keeps
its rate at the number of its users. What the generator measured goes into Locust's statistics and, request by request,
to the master, which judges the SLOs over all of them.
"""

from __future__ import annotations

import logging
from typing import Any

import gevent
from locust import User, constant
from locust.runners import MasterRunner, WorkerRunner

from loadtests import locust_stats
from loadtests.batch import Batch
from loadtests.errors import LoadTestError
from loadtests.live import LiveGenerator
from loadtests.locust_options import Wanted
from loadtests.point import Point
from loadtests.window import Window

logger = logging.getLogger("fathom")
_FOLLOW_S = 0.1
_DRAIN_S = 30.0
_DRAIN, _DRAINED = "fathom_drain", "fathom_drained"
_REPORT = "fathom"
_FOR_EVER_S = 1e6


def _stand_for_one_request_per_second(user: User) -> None:
    pass


class OneRequestPerSecond(User):  # type: ignore[misc]
    """Does nothing itself: the number of these users is the rate at which the generator fires."""

    wait_time = constant(_FOR_EVER_S)
    tasks = [_stand_for_one_request_per_second]  # noqa: RUF012  (as Locust has it)


class Front:
    """Of one Locust process: `local`, `worker` or `master`."""

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.wanted: Wanted | None = None
        self.problem = ""
        self.window = Window()
        self._live: LiveGenerator | None = None
        self._unreported: list[dict[str, Any]] = []
        self._drained: set[str] = set()
        self._ending = False
        runner = environment.runner
        self._is_master, self._is_worker = isinstance(runner, MasterRunner), isinstance(runner, WorkerRunner)
        events = environment.events
        events.test_start.add_listener(self._begin)
        events.test_stopping.add_listener(self._drain)
        events.reset_stats.add_listener(self._forget)
        if self._is_master:
            runner.register_message(_DRAINED, self._note_drained)
            events.worker_report.add_listener(self._take_report)
        if self._is_worker:
            runner.register_message(_DRAIN, self._drain_when_asked, concurrent=True)
            events.report_to_master.add_listener(self._report)

    @property
    def seed(self) -> int:
        """Of this process: workers differ."""
        assert self.wanted is not None
        return self.wanted.seed + max(getattr(self.environment.runner, "worker_index", 0), 0)

    def point(self) -> Point | None:
        """The verdict on the present rate."""
        if self.wanted is None:
            return None
        if self._is_master:
            clients = self.environment.runner.clients
            for name in self.window.names:
                if name not in clients or clients[name].state == "missing":
                    self.window.forget(name)
        return self.window.point(self.wanted.slos, seed=self.wanted.seed, models=self.wanted.models)

    # Events of Locust.

    def _begin(self, **_: Any) -> None:
        self.window, self.problem, self._ending = Window(), "", False
        self._drained, self._unreported = set(), []
        try:
            self.wanted = Wanted.of(self.environment)
            if not self._is_master:
                target, mix = self.wanted.target()
                self._live = LiveGenerator(
                    target,
                    self._take,
                    seed=self.seed,
                    arrivals=self.wanted.arrivals,
                    mix=mix,
                    on_lost=self._fail,
                )
                self._live.start()
                gevent.spawn(self._follow, self._live)
        except LoadTestError as error:
            self._fail(" ".join(str(error).split()))

    def _forget(self, **_: Any) -> None:
        self.window = Window()

    def _follow(self, live: LiveGenerator) -> None:
        """Keeps the rate at the number of users."""
        rate = 0
        while live is self._live and not self._ending:
            wanted = self.environment.runner.user_count
            if wanted != rate:
                rate = wanted
                live.set_rate(float(rate))
            gevent.sleep(_FOLLOW_S)

    def _take(self, batch: Batch) -> None:
        assert self.wanted is not None
        locust_stats.feed_mix(self.environment.stats, self.wanted.models, batch.record, batch.messages)
        if self._is_worker:
            self._unreported.append(batch.pack())
        else:
            self.window.add(batch)

    def _report(self, client_id: str, data: dict[str, Any]) -> None:
        data[_REPORT] = {"batches": self._unreported, "problem": self.problem}
        self._unreported, self.problem = [], ""  # told once: the next test must not hear of it

    def _take_report(self, client_id: str, data: dict[str, Any]) -> None:
        told = data.get(_REPORT, {"batches": (), "problem": ""})
        for batch in told["batches"]:
            self.window.add(Batch.unpack(batch), client_id)
        if told["problem"] and not self.problem:
            self._fail(told["problem"])

    def _drain(self, **_: Any) -> None:
        """Before users are stopped: the last answers are waited for, and no change of the rate counts any more."""
        self._ending = True
        if self._is_master:
            clients = self.environment.runner.clients
            expected = {client.id for client in clients.all if client.state in ("running", "spawning")}
            for client_id in expected:
                self.environment.runner.send_message(_DRAIN, client_id=client_id)
            with gevent.Timeout(_DRAIN_S, False):
                while any(name not in self._drained and name in clients and clients[name].state != "missing"
                          for name in expected):  # fmt: skip
                    gevent.sleep(0.05)
        elif self._live is not None:
            live, self._live = self._live, None
            live.finish()

    def _drain_when_asked(self, environment: Any, msg: Any, **_: Any) -> None:
        self._drain()
        environment.runner._send_stats()
        environment.runner.send_message(_DRAINED, {})

    def _note_drained(self, environment: Any, msg: Any, **_: Any) -> None:
        self._drained.add(msg.node_id)

    def _fail(self, problem: str) -> None:
        """One line for the person, and an end to the test."""
        if self.problem or self._ending:
            return
        self.problem = problem
        logger.error(problem)
        if self._is_worker:
            return  # the master hears of it and decides
        runner, options = self.environment.runner, self.environment.parsed_options
        if options is not None and options.headless:
            self.environment.process_exit_code = 2
            gevent.spawn(runner.quit)
        else:
            gevent.spawn(runner.stop)
