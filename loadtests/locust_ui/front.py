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
from locust.runners import STATE_INIT, STATE_MISSING, STATE_RUNNING, STATE_SPAWNING, MasterRunner, WorkerRunner

from clients import InferenceError
from loadtests.errors import LoadTestError
from loadtests.generator.live import LiveRun
from loadtests.generator.messages import Batch
from loadtests.locust_ui import stats
from loadtests.locust_ui.options import Reach, Wanted
from loadtests.locust_ui.rates import Rates
from loadtests.locust_ui.window import Window
from loadtests.records.point import Point
from loadtests.workload.arrivals import parse_arrivals

logger = logging.getLogger("fathom")
_FOLLOW_S = 0.1
_ANSWER_S = 15.0
"""A worker may need so much longer than its generator to finish and report."""
_DRAIN, _DRAINED, _REBALANCE = "fathom_drain", "fathom_drained", "fathom_rebalance"
_REPORT = "fathom"
_FOR_EVER_S = 1e6


def _stand_for_one_request_per_second(user: User) -> None:
    pass


class OneRequestPerSecond(User):  # type: ignore[misc]
    """Does nothing itself: the number of these users is the rate at which the generator sends."""

    wait_time = constant(_FOR_EVER_S)
    tasks = [_stand_for_one_request_per_second]  # noqa: RUF012  (as Locust has it)


class Front:
    """The front of one Locust process: `local`, `worker` or `master`."""

    def __init__(self, environment: Any, reach: Reach) -> None:
        self.environment = environment
        self._reach = reach
        self.wanted: Wanted | None = None
        self.problem = ""
        self.window, self.rates = Window(), Rates()
        self._live: LiveRun | None = None
        self._streaming = frozenset[str]()
        self._unreported: list[dict[str, Any]] = []
        self._drained: set[str] = set()
        self._took_part: set[str] = set()
        self._left: dict[str, str] = {}
        self._draining: gevent.Greenlet | None = None
        self._rebalancing = False
        self._reached: int | None = None
        runner = environment.runner
        self._is_master, self._is_worker = isinstance(runner, MasterRunner), isinstance(runner, WorkerRunner)
        events = environment.events
        events.test_start.add_listener(self._begin)
        events.test_stopping.add_listener(self.drain)
        events.reset_stats.add_listener(self._forget)
        if self._is_master:
            runner.register_message(_DRAINED, self._note_drained)
            events.worker_report.add_listener(self._take_report)
            events.spawning_complete.add_listener(self._note_reached)
            self._start, runner.start = runner.start, self._announce_and_start
        if self._is_worker:
            runner.register_message(_DRAIN, self._drain_when_asked, concurrent=True)
            runner.register_message(_REBALANCE, self._note_rebalancing)
            events.report_to_master.add_listener(self._report)
            events.quitting.add_listener(self._report_the_last)
            if runner.worker_state != STATE_INIT:  # it joined a test that runs, and Locust has started users already
                self._begin()

    @property
    def seed(self) -> int:
        """The seed of this process; that of each worker differs."""
        assert self.wanted is not None
        return self.wanted.seed + max(getattr(self.environment.runner, "worker_index", 0), 0)

    def point(self) -> Point | None:
        """The verdict on the present rate."""
        if self.wanted is None:
            return None
        if not self._ending:
            self._left = self._gone()
        seed, models = self.wanted.seed, self.wanted.models
        found = self.window.point(self.wanted.slos, seed=seed, models=models, left=self._left)
        if found is not None:
            self.rates.add(found)
        return found

    @property
    def lost(self) -> list[str]:
        """The workers of this test that went without a word."""
        return [f"({name}) {how}" for name, how in self._left.items() if how]

    def drain(self, **_: Any) -> None:
        """Waits for the last answers of the test that runs, if one does. No change of the rate counts any more."""
        if self._draining is None:
            self._left = self._gone()
            self._draining = gevent.spawn(self._finish)
        self._draining.join()

    @property
    def _ending(self) -> bool:
        return self._draining is not None

    def _gone(self) -> dict[str, str]:
        """The workers of this test that are not here any more, and how those went that did not drain."""
        if not self._is_master:
            return {}
        present = {client.id for client in self.environment.runner.clients.all if client.state != STATE_MISSING}
        return {name: "" if name in self._drained else "went missing" for name in self._took_part - present}

    # Events of Locust.

    def _begin(self, **_: Any) -> None:
        self._forget()
        self.problem, self._live, self._draining = "", None, None
        self._drained, self._unreported, self._left, self._rebalancing = set(), [], {}, False
        try:
            self.wanted = Wanted.of(self.environment)
            if not self._is_master:
                target, mix, self._streaming = self.wanted.target(self._reach)
                self._live = LiveRun(
                    target,
                    self._take,
                    seed=self.seed,
                    arrivals=parse_arrivals(self.wanted.arrivals),
                    mix=mix,
                    on_lost=self._fail,
                )
                self._live.start()
                gevent.spawn(self._follow, self._live)
        except (LoadTestError, InferenceError) as error:
            self._fail(" ".join(str(error).split()))

    def _forget(self, **_: Any) -> None:
        self.window, self.rates = Window(), Rates()

    def _follow(self, live: LiveRun) -> None:
        """Keeps the rate at the number of users."""
        rate = 0
        while live is self._live and not self._ending:
            wanted = self.environment.runner.user_count
            if wanted != rate:
                rate = wanted
                live.set_rate(float(rate), rebalanced=self._rebalancing)
            gevent.sleep(_FOLLOW_S)

    def _announce_and_start(self, user_count: int, *args: Any, **named: Any) -> None:
        """Tell the workers of this master whether the total rate changes, or only each worker's part of it.

        Locust starts the same number of users anew when a worker joins or quits.
        """
        runner = self.environment.runner
        if runner.state not in (STATE_RUNNING, STATE_SPAWNING):
            self._took_part = set()
        elif self._ending:
            return  # a worker quits while the last answers of all are awaited
        if user_count != self._reached:
            self._reached = None
            for name in self._gone():  # they have no part in what comes
                self._took_part.discard(name)
                self.window.forget(name)
        for name in self._took_part:
            runner.send_message(_REBALANCE, {"rebalancing": self._reached is not None}, client_id=name)
        self._took_part |= {client.id for client in runner.clients.all if client.state != STATE_MISSING}
        self._start(user_count, *args, **named)

    def _note_reached(self, user_count: int, **_: Any) -> None:
        self._reached = self.environment.runner.target_user_count

    def _note_rebalancing(self, environment: Any, msg: Any, **_: Any) -> None:
        gevent.sleep(2 * _FOLLOW_S)  # a change that came before is followed by now
        self._rebalancing = msg.data["rebalancing"]

    def _take(self, batch: Batch) -> None:
        assert self.wanted is not None
        stats.feed_mix(self.environment.stats, self.wanted.models, batch.record, batch.messages, self._streaming)
        if self._is_worker:
            self._unreported.append(batch.pack())
        else:
            self.window.add(batch)

    def _report(self, client_id: str, data: dict[str, Any]) -> None:
        data[_REPORT] = {"batches": self._unreported, "problem": self.problem}
        self._unreported, self.problem = [], ""  # reported once, and not to the next test

    def _take_report(self, client_id: str, data: dict[str, Any]) -> None:
        report = data.get(_REPORT, {"batches": (), "problem": ""})
        for batch in report["batches"]:
            self.window.add(Batch.unpack(batch), client_id)
        if report["problem"] and not self.problem:
            self._fail(report["problem"])

    def _finish(self) -> None:
        self._reached = None
        if self._live is not None:
            self._live.finish()
        if self._is_master and self.wanted is not None:
            clients = self.environment.runner.clients
            expected = self._took_part - self._left.keys()
            for client_id in expected:
                self.environment.runner.send_message(_DRAIN, client_id=client_id)
            with gevent.Timeout(self.wanted.timeout_s + _ANSWER_S, False):
                while any(name not in self._drained and name in clients and clients[name].state != STATE_MISSING
                          for name in expected):  # fmt: skip
                    gevent.sleep(0.05)
            for name in self._took_part - self._drained:
                self._left.setdefault(name, "did not report its last answers")

    def _drain_when_asked(self, environment: Any, msg: Any, **_: Any) -> None:
        self._report_the_last(environment)

    def _report_the_last(self, environment: Any, **_: Any) -> None:
        """Also before a worker that is stopped by itself tells the master that it quits."""
        self.drain()
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
