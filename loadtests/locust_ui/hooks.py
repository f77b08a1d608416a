"""Connects the front to Locust's events: options, statistics, panel, closing summary and exit status."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import locust.runners
import locust.stats
from grpc.experimental import gevent as grpc_gevent

from loadtests.errors import BadRequestError
from loadtests.judge.streams import describe_streams
from loadtests.locust_ui import guard, stats
from loadtests.locust_ui import options as locust_options
from loadtests.locust_ui.front import Front
from loadtests.locust_ui.jobs import Jobs, look_often
from loadtests.locust_ui.panel import Panel
from loadtests.records.point import Point
from loadtests.slo import Slo, describe_slos, format_rate
from loadtests.text import guard_output

_REPORT_INTERVAL_S = 1.0
_RAMP_PER_S = 100.0
_CSV_MARGIN_S = 0.2


def install(events: Any) -> None:
    """Called once, when the locustfile is imported."""
    guard_output()
    grpc_gevent.init_gevent()
    stats.install()
    look_often()
    locust.runners.WORKER_REPORT_INTERVAL = _REPORT_INTERVAL_S
    logging.getLogger("locust.runners").addFilter(_not_about_spawn_rates)
    events.init_command_line_parser.add_listener(locust_options.add_arguments)
    events.init_command_line_parser.add_listener(guard.listen_on_loopback)
    events.init.add_listener(_attach)


def _attach(environment: Any, runner: Any, web_ui: Any, **_: Any) -> None:
    options = environment.parsed_options
    if environment.host:
        environment.host = locust_options.with_scheme(environment.host)
    if options is not None and options.spawn_rate is None:
        # Users cost nothing here, so nobody needs to wait for them.
        options.spawn_rate = max(options.num_users or 0, _RAMP_PER_S) if options.headless else _RAMP_PER_S
    try:
        reach = locust_options.take_reach(options)
    except BadRequestError as error:
        logging.getLogger("fathom").error(error)
        raise SystemExit(2) from None
    front = Front(environment, reach)
    if web_ui is not None:
        guard.protect(web_ui)
        Panel(front).attach(web_ui)
    if isinstance(runner, locust.runners.WorkerRunner):
        Jobs(environment, reach)
    else:
        if isinstance(runner, locust.runners.MasterRunner) and options.master_bind_host == guard.LOOPBACK:
            logging.getLogger("fathom").info("for workers on other machines, start with --master-bind-host 0.0.0.0")
        environment.events.test_start.add_listener(_at_interrupt(environment))
        environment.events.quitting.add_listener(lambda **_: _conclude(front))


def _at_interrupt(environment: Any) -> Callable[..., None]:
    """Lets Ctrl-C end a test as `--run-time` does: Locust would write its HTML report before the last answers came."""
    waiting: list[Any] = []

    def quit_now() -> None:
        waiting.pop().cancel()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C ends the process at once
        environment.runner.quit()
        if environment.web_ui is not None:
            environment.web_ui.stop()

    def listen(**_: Any) -> None:
        if not waiting:
            waiting.append(gevent.signal_handler(signal.SIGINT, quit_now))

    return listen


def _conclude(front: Front) -> None:
    """Prints the verdict. Without a page the exit status follows it: 0 for a pass, 1 for others, 2 for a problem."""
    environment, options = front.environment, front.environment.parsed_options
    if front.problem or (front.wanted is None and not options.headless):
        return
    front.drain()
    if options.csv_prefix:
        gevent.sleep(locust.stats.CSV_STATS_INTERVAL_SEC + _CSV_MARGIN_S)  # Locust writes the tables only so often
    point = front.point()
    if options.headless:
        environment.process_exit_code = 0 if point is not None and point.verdict == "pass" else 1
    for line in summary(point, front.wanted.slos if front.wanted else (), front.lost):
        print(line, file=sys.stderr)


def summary(point: Point | None, slos: tuple[Slo, ...], lost: Sequence[str] = ()) -> list[str]:
    """What the last rate came to, for a person."""
    if point is None:
        return ["; ".join(["no request was answered", *(f"generator {how}" for how in lost)])]
    names = {"p50": point.p50_ms, "p90": point.p90_ms, "p99": point.p99_ms, "p99.9": point.p999_ms}
    latencies = ", ".join(f"{name} {value:.3f} ms" for name, value in names.items() if value is not None)
    worst = max(point.workers, key=lambda share: share.send_lag_p99_ms)
    each = [
        f"{entry.model}: {entry.requests} requests, {entry.errors} failed, "
        + ", ".join(f"{name} {value:.3f} ms" for name, value in (("p50", entry.p50_ms), ("p99", entry.p99_ms)) if value)
        + f", {entry.verdict}"
        for entry in point.models
    ]
    return [
        f"{point.requests} requests at {format_rate(point.rate_per_s)} (answered "
        f"{format_rate(point.achieved_per_s)}): {latencies}",
        *each,
        *([f"tokens: {streams}"] if (streams := describe_streams(point)) else []),
        f"{len(point.workers)} generator(s), worst send lag p99 {worst.send_lag_p99_ms:.3f} ms",
        f"{describe_slos(slos)}: {point.verdict}, {point.reason}",
    ]


def _not_about_spawn_rates(record: logging.LogRecord) -> bool:
    return "spawn rate is very high" not in record.getMessage()
