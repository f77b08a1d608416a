"""Locust as the front, as a person uses it: headless, distributed, and in the browser."""

from __future__ import annotations

import csv
import json
import re
import signal
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from browser import Browser
from locust_process import LocustProcess, children, free_port, kill
from plain_server import PlainServer
from queue_process import request as queue_request
from queueing import md1_capacity_per_s

from loadtests import CapacityRequest, Slo, find
from loadtests.capacity import load
from loadtests.errors import BadRequestError
from loadtests.generator.messages import Limits
from loadtests.generator.process import GeneratorProcess, GeneratorSettings
from loadtests.judge.judge import evaluate
from loadtests.locust_ui.options import Reach, Wanted
from loadtests.records.point import Probe
from loadtests.records.record import histogram, percentile
from loadtests.target.access import Access
from loadtests.workload.schedule import constant, payload_choices, poisson
from loadtests.workload.shape import parse_shape

pytestmark = [pytest.mark.process, pytest.mark.alone]

StartLocust = Callable[..., LocustProcess]
P99 = Slo.parse("p99=100ms")
ROOMY = Limits(max_outstanding=10_000)


@pytest.fixture
def start_locust(tmp_path: Path) -> Iterator[StartLocust]:
    """Starts Locust with the given command line and ends it afterwards."""
    started: list[LocustProcess] = []

    def start(*options: str, **named: str) -> LocustProcess:
        started.append(LocustProcess(tmp_path / f"locust-{len(started)}.log", *options, **named))
        return started[-1]

    yield start
    for process in started:
        process.process.terminate()  # all at once, and only then one after the other
    for process in started:
        process.stop()


def test_headless_asks_a_mix_and_ends_with_the_verdict(small_server, start_locust, tmp_path):
    figures = tmp_path / "figures"
    options = ("--headless", "-u", "200", "-t", "30s", "--only-summary", "--json-file", str(figures))
    told = tmp_path / "told.jsonl"
    told.write_text('{"pauses_s": [0.01, 0.02, 0.02]}\n')
    slos = "p50=200ms, echo:p50=100ms, teller:ttft:p50=150ms"
    asked = ("--model", "double=3, echo, teller=2", "--inputs", f"teller={told}", "--slo", slos)
    process = start_locust(*options, "--host", small_server.grpc_url, *asked)
    process.wait_for("All users spawned")
    time.sleep(1)
    (generator,) = children(process.process.pid)
    maps = Path(f"/proc/{generator}/maps").read_text()
    assert "uvloop" in maps
    assert "gevent" not in maps  # Locust's patches stay in Locust's process
    process.process.terminate()
    code, said = process.wait()
    assert "Traceback" not in said
    every = r"^p50=200ms together and for each model, echo:p50=100ms, teller:ttft:p50=150ms: pass, "
    assert re.search(every, said, re.MULTILINE), said
    assert code == 0
    assert re.search(r"^\d+ requests at 200/s \(answered [\d.]+/s\): p50 \d+\.\d{3} ms", said, re.MULTILINE), said
    assert re.search(r"^echo: \d+ requests, 0 failed, p50 \d+\.\d{3} ms", said, re.MULTILINE), said
    entries = json.loads(figures.with_suffix(".json").read_text())
    rows = {(entry["name"], entry["method"]): entry["num_requests"] for entry in entries}
    assert rows["double", "infer"] == pytest.approx(3 * rows["echo", "infer"], rel=0.4)
    assert rows["teller", "stream"] == rows["teller", "ttft"] == rows["teller", "itl"] > 0


@pytest.mark.slow
def test_headless_tells_that_the_slo_does_not_hold(shared_queue, start_locust):
    address = shared_queue("--service-ms", "2").address
    options = ("--headless", "-u", "100", "-t", "2s", "--host", address, "--model", "queue", "--only-summary")
    code, said = start_locust(*options, "--slo", "p99=1ms").wait()
    assert re.search(r"^p99=1ms: (fail|undecided|invalid), ", said, re.MULTILINE), said
    assert code == 1


def test_what_cannot_be_run_is_one_line(start_locust):
    options = ("--headless", "-u", "10", "-t", "20s", "--only-summary", "--host", "127.0.0.1:9", "--model", "m")
    code, said = start_locust(*options).wait(15)
    assert code == 2
    (line,) = [line for line in said.splitlines() if "ERROR" in line]
    assert "127.0.0.1:9" in line
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("host", "model", "slo", "field"),
    [
        ("grpc://127.0.0.1:9", "", "p99=1s", "model"),
        ("", "m", "p99=1s", "server"),
        ("grpc://127.0.0.1:9", "m", "p99=fast", "slos"),
        ("grpc://127.0.0.1:9", "m=x", "p99=1s", "mix"),
        ("grpc://127.0.0.1:9", "m, n", "o:p99=1s", "slos"),
    ],
)
def test_options_that_cannot_be_used(host, model, slo, field):
    with pytest.raises(BadRequestError) as refused:
        wanted(host=host, model=model, slo=slo)
    assert refused.value.field == field


def wanted(host="grpc://127.0.0.1:9", model="m", slo="p99=1s", inputs="", seed=0) -> Wanted:
    options = SimpleNamespace(model=model, slo=slo, inputs=inputs, arrivals="poisson", seed=seed)
    return Wanted.of(SimpleNamespace(host=host, parsed_options=options))


def test_a_seed_below_zero_is_refused():
    with pytest.raises(BadRequestError) as refused:
        wanted(seed=-1)
    assert refused.value.field == "seed"


def test_a_model_that_keeps_state_is_none_for_this_front(small_server):
    with pytest.raises(BadRequestError) as refused:
        wanted(host=small_server.grpc_url, model="double, total").target(Reach(Access(), real_time=True))
    assert refused.value.field == "model"
    assert "total" in str(refused.value)


def test_files_of_inputs_are_for_one_model_each():
    assert wanted(inputs="a.jsonl").inputs == {"m": Path("a.jsonl")}
    assert wanted(model="m=2 n", inputs="n=b.jsonl, m=a.jsonl").inputs == {"m": Path("a.jsonl"), "n": Path("b.jsonl")}
    assert wanted(model="m=2 n").inputs == {}
    for text in ("a.jsonl", "m=", "o=c.jsonl"):
        with pytest.raises(BadRequestError) as refused:
            wanted(model="m,n", inputs=text)
        assert refused.value.field == "inputs"


def counts(process: LocustProcess, figures: Path) -> tuple[int, str, list[int]]:
    """The exit status, what was said, and how many requests the verdict, JSON, CSV and HTML each count."""
    code, said = process.wait()
    assert 'Traceback (most recent call last):\n  File "/' not in said, said
    (verdict,) = re.findall(r"^(\d+) requests at", said, re.MULTILINE) or ["0"]
    rows = json.loads(figures.with_suffix(".json").read_text())
    with figures.with_name("figures_stats.csv").open() as file:
        table = int(list(csv.DictReader(file))[-1]["Request Count"])
    page = re.findall(r'"num_requests": ?(\d+)', figures.with_suffix(".html").read_text())
    return code, said, [int(verdict), sum(row["num_requests"] for row in rows), table, int(page[-1])]


@pytest.fixture
def start_fleet(start_locust, tmp_path):
    """A headless master with two workers at a server, and its files `figures.*`."""

    def start(address: str, *options: str) -> tuple[LocustProcess, list[LocustProcess]]:
        port, figures = str(free_port()), str(tmp_path / "figures")
        files = ("--json-file", figures, "--csv", figures, "--html", f"{figures}.html", "--only-summary")
        asked = ("--host", address, "--model", "m", "--slo", "p90=1s", "--headless", "-u", "60", *files)
        listening = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", "2")
        master = start_locust("--master", *listening, *asked, *options)
        workers = [start_locust("--worker", "--master-port", port) for _ in range(2)]
        master.wait_for("All users spawned", 60.0)  # what a worker answered that leaves before counts for no rate
        return master, workers

    return start


def wait_until_answered(server: PlainServer, count: int, *processes: LocustProcess) -> None:
    until_s = time.monotonic() + 60
    while server.answered < count:
        said = "\n".join(process.log.read_text() for process in processes)
        assert time.monotonic() < until_s, f"{server.answered} answered: {said}"
        time.sleep(0.05)


def test_every_answered_request_counts_once_whoever_has_left(start_fleet, tmp_path):
    """One worker quits in the middle; then Ctrl-C reaches the others, as it does all processes of a terminal."""
    with PlainServer() as server:
        master, workers = start_fleet(server.address)
        wait_until_answered(server, 60, master, *workers)
        workers[0].process.terminate()
        workers[0].wait()
        wait_until_answered(server, server.answered + 60, master, *workers)
        for process in (master, workers[1]):
            process.process.send_signal(signal.SIGINT)
        code, said, found = counts(master, tmp_path / "figures")
        trials = server.answered - found[0]
    assert len(set(found)) == 1, found
    assert 2 <= trials <= 8  # each worker tries one request, and a few keep up the load until the last are answered
    assert code == 0, said
    assert "2 generator(s)" in said


@pytest.mark.slow
def test_a_worker_that_dies_is_named_and_its_requests_count(start_fleet, tmp_path):
    """Slow, because Locust takes seconds to miss it."""
    with PlainServer() as server:
        master, workers = start_fleet(server.address, "-t", "12s")
        wait_until_answered(server, 150, master)
        kill(workers[0].process.pid)
        code, said, found = counts(master, tmp_path / "figures")
        unknown = server.answered - found[0]
    assert len(set(found)) == 1, found
    assert 2 <= unknown <= 60  # a second of one worker's requests, at most, went with it
    assert code == 1
    assert re.search(r"^p90=1s: invalid, generator \d of 2 .* went missing", said, re.MULTILINE), said


@pytest.fixture(params=[2, pytest.param(4, marks=pytest.mark.slow)])
def distributed(request, shared_queue, start_locust) -> Iterator[tuple[GeneratorProcess, list[LocustProcess]]]:
    """A master with workers, as a capacity search uses it, at a queue with 1 ms of service."""
    port = str(free_port())
    workers = [start_locust("--worker", "--master-port", port) for _ in range(request.param)]
    target = GeneratorSettings(shared_queue("--service-ms", "1").address, [queue_request()] * 3)
    options = ("127.0.0.1", port, str(request.param))
    with GeneratorProcess(target, module="loadtests.locust_ui.master", options=options) as master:
        yield master, workers


def test_one_master_and_its_workers(distributed):
    """One schedule over all workers; percentiles are those of the pooled latencies."""
    master, workers = distributed
    schedule = poisson(500, seed=5, count=500)
    record, outcome = master.run_schedule(schedule, payload_choices(500, 3, seed=5), ROOMY, seed=5)
    assert np.array_equal(record.intended_s, schedule)
    assert record.ok.all(), (np.unique(record.status, return_counts=True), outcome)
    assert np.bincount(record.worker, minlength=len(workers)).min() > 80
    each = [record.where(record.worker == number).latencies_ms() for number in range(len(workers))]
    pooled = np.concatenate(each)
    merged = histogram(each[0])
    for one in each[1:]:
        merged.add(histogram(one))
    point = evaluate(Probe(0, "double", 500.0, 500, 5), record, outcome, [P99])
    for share, shown_ms in ((0.5, point.p50_ms), (0.9, point.p90_ms), (0.99, point.p99_ms), (0.999, point.p999_ms)):
        assert shown_ms == percentile(pooled, share)
        assert merged.get_value_at_percentile(share * 100) / 1e3 == pytest.approx(shown_ms, rel=1e-3, abs=1e-3)
    assert [share.name for share in point.workers] == ["1", "2", "3", "4"][: len(workers)]


@pytest.mark.slow
def test_a_worker_that_dies_spoils_its_probe_only(distributed):
    """Slow, because Locust may take the other workers for missing for half a minute."""
    master, workers = distributed
    threads = [threading.Timer(0.5, kill, (workers[-1].process.pid,))]
    record, outcome = master.run_schedule(
        constant(100, duration_s=30), payload_choices(3000, 3, seed=6), ROOMY, seed=6, on_ready=threads[0].start
    )
    assert "went missing" in outcome.lost
    assert outcome.wall_s < 15
    assert evaluate(Probe(1, "double", 100.0, 3000, 6), record, outcome, [P99]).verdict == "invalid"

    record, outcome = master.run_schedule(
        poisson(200, seed=7, count=200), payload_choices(200, 3, seed=7), ROOMY, seed=7
    )
    assert record.ok.all()
    assert not outcome.lost
    assert set(record.worker.tolist()) == set(range(len(workers) - 1))


@pytest.mark.slow
def test_a_search_over_locust_workers(start_queue, start_locust):
    port = str(free_port())
    for _ in range(4):
        start_locust("--worker", "--master-port", port)
    address = start_queue("--service-ms", "2").address
    slo = Slo.parse("p99=30ms")
    result = find(CapacityRequest(address, "queue", [slo], budget_s=15, workers=4, locust_master=port))
    assert not result.partial
    assert result.capacity_estimate_per_s == pytest.approx(md1_capacity_per_s(0.002, 0.03, 0.99), rel=0.35)
    assert all(len(point.workers) == 4 for point in result.points)


@pytest.mark.slow
def test_sequences_over_locust_workers(small_server, start_locust):
    port = str(free_port())
    for _ in range(2):
        start_locust("--worker", "--master-port", port)
    slos, more = [Slo.parse("p90=1s")], {"interval_s": 0.02, "workers": 2, "locust_master": port}
    point = load(CapacityRequest(small_server.grpc_url, "total", slos, **more), parse_shape("constant:10", 2.0))
    assert (point.requests, point.errors) == (20, 0)
    assert point.sequences is not None
    assert point.percentile_ms("gap", "p50") > 0
    assert [worker.requests > 0 for worker in point.workers] == [True, True]


def ask(port: int, path: str, **form: str) -> dict:
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_the_web_page_steers_the_rate_and_shows_the_slos(start_queue, start_locust, tmp_path):
    port = free_port()
    address = start_queue("--service-ms", "2").address
    process = start_locust("--host", address, "--web-host", "127.0.0.1", "--web-port", str(port), "--model", "queue")
    process.wait_for("Starting web interface")
    with Browser() as page:
        time.sleep(0.5)
        page.open(f"http://127.0.0.1:{port}/")
        page.wait_for("document.body && document.body.innerText.includes('one user is one request a second')")
        page.wait_for("document.querySelector('#fathom')?.innerText.includes('latencies run from')")
        assert page.evaluate("document.querySelector('[name=model]').value") == "queue"
        form = {"spawn_rate": "500", "host": f"grpc://{address}", "model": "queue", "slo": "p99=100ms, p50=20ms"}
        assert ask(port, "/swarm", user_count="80", **form)["success"]
        page.open(f"http://127.0.0.1:{port}/")
        page.wait_for("/\\d+ of [\\d,]+ over/.test(document.querySelector('#fathom')?.innerText)")
        page.wait_for("document.querySelector('#fathom').innerText.includes('p50=20ms')")
        page.evaluate("document.querySelector('#fathom button').click()")
        assert page.evaluate("document.querySelector('#fathom dl')") is None
        page.evaluate("document.querySelector('#fathom button').click()")
        assert "send lag p99" in page.evaluate("document.querySelector('#fathom dl').innerText")
        page.screenshot(tmp_path / "running.png")
        assert ask(port, "/swarm", user_count="200", **form)["success"]
        page.wait_for("document.querySelector('#fathom').innerText.includes('200.0')")
    until_s = time.monotonic() + 15
    while (status := ask(port, "/fathom/status"))["point"] is None or status["point"]["requests"] < 500:
        assert time.monotonic() < until_s, status
        time.sleep(0.2)
    assert status["point"]["achieved_per_s"] == pytest.approx(200, rel=0.2)
    ask(port, "/stop", stop="now")
    row = ask(port, "/stats/requests")["stats"][-1]
    assert row["num_requests"] >= status["point"]["requests"]
    assert row["response_time_percentile_0.99"] != round(row["response_time_percentile_0.99"])  # no whole milliseconds


FLOW = """
import gevent
import locust
from loadtests.locust_ui.triton_user import TritonUser

class Session(TritonUser):
    wait_time = locust.constant(0.05)

    def on_start(self):
        gevent.spawn(self.stop_when_seen)

    def stop_when_seen(self):
        seen = self.environment.stats.entries
        while len(seen) < 3 or min(entry.num_requests for entry in seen.values()) < 3:
            gevent.sleep(0.05)
        self.environment.runner.quit()

    @locust.task
    def twice(self):
        doubled = self.ask("double", x=[[1.0, 2.0]], step="first")["y"]
        assert self.ask("double", x=doubled, step="second")["y"].tolist() == [[4.0, 8.0]]

    @locust.task
    def fails(self):
        self.ask("double", x=[[1.0, 2.0, 3.0]], step="broken")
        raise AssertionError("a step that failed must end its task")
"""


def test_scripted_users_ask_one_thing_after_the_other(small_server, start_locust, tmp_path):
    script, figures = tmp_path / "flow.py", tmp_path / "figures"
    script.write_text(FLOW)
    options = ("--headless", "-u", "3", "-r", "3", "-t", "20s", "--only-summary", "--json-file", str(figures))
    _, said = start_locust(*options, "--host", small_server.grpc_url, locustfile=str(script)).wait()
    assert "Traceback" not in said, said
    assert "must end its task" not in said
    steps = {entry["name"]: entry for entry in json.loads(figures.with_suffix(".json").read_text())}
    assert steps["first"]["num_requests"] == pytest.approx(steps["second"]["num_requests"], abs=5)
    assert steps["first"]["num_failures"] == steps["second"]["num_failures"] == 0
    assert steps["broken"]["num_failures"] == steps["broken"]["num_requests"] > 0
    keys = [float(key) for key in steps["first"]["response_times"]]
    assert any(key != round(key) for key in keys)  # to the microsecond here, too


@pytest.mark.slow
def test_the_example_flow_runs(served, start_locust):
    options = ("--headless", "-u", "3", "-r", "3", "-t", "6s", "--only-summary", "--host", served.grpc_url)
    code, said = start_locust(*options, locustfile="loadtests/locust_ui/example_flow.py").wait()
    assert code == 0, said
    assert re.search(r"ask +more like this +[1-9]", said)
