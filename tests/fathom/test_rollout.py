"""New versions of a model under load, on a real Triton: no request fails, and what is worse is taken back."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import rolling_models
from complete_server import complete_server
from small_models import DOUBLE_CONFIG

from clients import Client, InferenceError, Retries
from export.repository import unfinished
from fathom.cli import main
from fathom.console.arguments import UsageError
from fathom.replica import Replica, RolloutError, Rules
from fathom.rollout import roll, watch
from server import TritonServer
from server.ports import free_ports

pytestmark = pytest.mark.process

TOKEN = "a-token"
HEADERS = {"triton-grpc-protocol-admin-token": TOKEN}
REQUESTS = int(os.environ.get("FATHOM_TEST_ROLL_REQUESTS", "600"))
QUICK = Rules(watch_s=0.5)


class Load:
    """Requests from several threads, without retries, until the block ends; answers and errors are counted."""

    def __init__(self, address: str, *, value: float = 1.0, threads: int = 4) -> None:
        self.answers: collections.Counter[float] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self._address, self._value = address, value
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        with Client(self._address, retries=Retries(reserve=0)) as client:
            double = client.model("double")
            while not self._stop.is_set():
                try:
                    self.answers[round(float(double(x=[[self._value, 0.5]])["y"][0, 0]), 3)] += 1
                except InferenceError as error:
                    self.errors[str(error)] += 1

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def outcomes(self) -> tuple[int, int]:
        return sum(self.answers.values()), sum(self.errors.values())

    def wait_for(self, answer: float, count: int) -> None:
        deadline = time.monotonic() + 60
        while self.answers[answer] < count:
            assert time.monotonic() < deadline, self.answers
            time.sleep(0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("rolling") / "model_repository"
    rolling_models.doubling(repository / "double" / "1")
    (repository / "double" / "config.pbtxt").write_text(rolling_models.CONFIG)
    extra = ("--model-control-mode=explicit", "--load-model=*")
    with TritonServer(repository, admin_token=TOKEN, extra=extra, stop_timeout_s=0) as running:
        yield running


@pytest.fixture
def client(server: TritonServer) -> Iterator[Client]:
    with Client(server.grpc_url, headers=HEADERS) as connected:
        yield connected


def versions(server: TritonServer) -> list[str]:
    return sorted(path.name for path in (server.model_repository / "double").iterdir() if path.is_dir())


def test_a_version_that_does_not_load_meets_no_traffic(server: TritonServer, client: Client, tmp_path: Path) -> None:
    before = versions(server)
    with Load(server.grpc_url) as load:
        with pytest.raises(RolloutError) as refused:
            roll([client], "double", rolling_models.broken(tmp_path / "new"), server.model_repository, QUICK)
        load.wait_for(2.0, load.answers[2.0] + 20)
    assert isinstance(refused.value.__cause__, InferenceError)
    assert load.errors == {}
    assert load.answers.keys() == {2.0}
    assert versions(server) == before


def test_the_command_reports_what_was_refused(
    server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FATHOM_ADMIN_TOKEN", TOKEN)
    where = ["--server", server.grpc_url, "--model-repository", str(server.model_repository)]
    files = rolling_models.tripling(tmp_path / "new")
    assert main(["publish", "double", "--from", str(files), "--watch", "0.1", *where]) == 1
    assert "0.5" in capsys.readouterr().err
    assert main(["publish", "double", "--from", str(tmp_path / "nothing"), *where]) == 2
    assert str(tmp_path / "nothing") in capsys.readouterr().err


def test_a_server_that_loads_nothing_on_request_is_one_line(
    small_server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = rolling_models.tripling(tmp_path / "new")
    where = ["--server", small_server.grpc_url, "--model-repository", str(small_server.model_repository)]
    assert main(["publish", "double", "--from", str(files), *where]) == 2
    said = capsys.readouterr().err
    assert "--model-control-mode=explicit" in said
    assert said.count("\n") == 1


def test_a_version_whose_publish_was_killed_is_rolled_back_by_the_next(
    server: TritonServer, client: Client, tmp_path: Path
) -> None:
    folder, before = server.model_repository / "double", versions(server)
    killed = int(before[-1]) + 1
    unfinished.begin(folder, killed, [client.endpoint, "elsewhere:8001"], tmp_path)
    rolling_models.tripling(folder / str(killed))
    Replica(client, "double", killed, QUICK).load()
    assert client.model("double")(x=[[1.0, 0.5]])["y"][0, 0] == 3.0
    reports: list[str] = []
    with pytest.raises(RolloutError):
        roll(
            [client], "double", rolling_models.broken(tmp_path / "new"), server.model_repository, QUICK, reports.append
        )
    assert versions(server) == before
    assert client.model("double")(x=[[1.0, 0.5]])["y"][0, 0] == 2.0
    assert unfinished.found(server.model_repository) == []
    assert any("elsewhere:8001" in report for report in reports)


def test_an_unknown_model_is_refused(server: TritonServer, client: Client, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="triple"):
        roll([client], "triple", tmp_path, server.model_repository, QUICK)


@pytest.mark.slow
def test_a_version_that_fails_real_requests_is_taken_back(server: TritonServer, client: Client, tmp_path: Path) -> None:
    before = versions(server)
    files = rolling_models.failing_for_large_inputs(tmp_path / "new")
    with Load(server.grpc_url, value=1000.0) as load:
        load.wait_for(2000.0, 50)
        with pytest.raises(RolloutError) as taken_back:
            roll([client], "double", files, server.model_repository, Rules(watch_s=20.0), outcomes=load.outcomes)
        assert taken_back.value.left_behind == ()
        load.wait_for(2000.0, load.answers[2000.0] + 50)
        errors_then = sum(load.errors.values())
        time.sleep(0.5)
        assert sum(load.errors.values()) == errors_then
    assert load.answers.keys() == {2000.0}
    assert versions(server) == before


def test_a_new_version_takes_over_and_no_request_fails(server: TritonServer, client: Client, tmp_path: Path) -> None:
    files = rolling_models.doubling_otherwise(tmp_path / "new")
    before = versions(server)
    with Load(server.grpc_url) as load:
        load.wait_for(2.0, REQUESTS // 3)
        done = roll([client], "double", files, server.model_repository, QUICK)
        load.wait_for(2.001, REQUESTS // 3)
    assert load.errors == {}
    assert load.answers.keys() == {2.0, 2.001}
    assert versions(server) == sorted([*before, str(done.version)])
    assert done.watched is not None
    assert (done.watched.requests > 0, done.watched.failed, done.watched.idle) == (True, 0, ())
    print(f"answered {dict(load.answers)}, failed {sum(load.errors.values())}")


REPLICA_RULES = Rules(watch_s=1.0, silent_s=1.0)


class Replicas:
    """Three servers of one repository with `double`, at fixed addresses."""

    def __init__(self, repository: Path) -> None:
        rolling_models.doubling(repository / "double" / "1")
        (repository / "double" / "config.pbtxt").write_text(f'backend: "onnxruntime"\n{DOUBLE_CONFIG}')
        self.repository, ports = repository, iter(free_ports("127.0.0.1", 9))
        extra = ("--model-control-mode=explicit", "--load-model=*")
        self.servers = [
            complete_server(
                repository, extra=extra, grpc_port=next(ports), http_port=next(ports), metrics_port=next(ports)
            )
            for _ in range(3)
        ]

    def start(self) -> None:
        """Start those that do not run."""
        dead = [server for server in self.servers if not server.is_alive()]
        with ThreadPoolExecutor() as starting:
            list(starting.map(TritonServer.start, dead))

    def clients(self, stack: contextlib.ExitStack) -> list[Client]:
        """Of an administrator, one for each."""
        return [stack.enter_context(Client(each.grpc_url, headers=each.admin_headers)) for each in self.servers]

    def kill(self, which: int) -> None:
        os.kill(self.servers[which].pid, signal.SIGKILL)
        while self.servers[which].is_alive():
            time.sleep(0.01)
        self.servers[which].stop()

    def served(self) -> str:
        """What each answers, as a multiple of its input; - for one that does not answer."""
        return " ".join(_answer(server) if server.is_alive() else "-" for server in self.servers)


def _answer(server: TritonServer) -> str:
    with Client(server.grpc_url) as client:
        return f"{client.model('double')(x=[[1.0, 0.5]])['y'][0, 0]:g}"


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    three = Replicas(tmp_path_factory.mktemp("replicas") / "model_repository")
    three.start()
    yield three
    for server in three.servers:
        server.stop()


KILLED = {  # B dies after this line of progress; the replicas that load then and before, A ... in order; those left
    "before anything is changed": ("", "", ""),
    "while the candidate is tried": ("agrees", "ABACB", "B"),
    "before its turn, when A has switched": ("A serves", "ABACB", "B"),
    "when it has switched, before C": ("B serves", "ABCACB", "B"),
    "in the watch": ("C serves", "ABCACB", "B"),
    "in the roll-back, which callers' failures began": ("failures", "ABCACB", "B"),
}
QUICK_ROWS = [row for row, (after, *_) in KILLED.items() if after in ("", "C serves", "failures")]


@pytest.mark.parametrize(
    "phase", [pytest.param(row, marks=() if row in QUICK_ROWS else pytest.mark.slow) for row in KILLED]
)
def test_one_of_three_replicas_dies(replicas: Replicas, tmp_path: Path, phase: str) -> None:
    after, loading, left_behind = KILLED[phase]
    replicas.start()
    names = dict(zip((server.grpc_url for server in replicas.servers), "ABC", strict=True))
    loads: list[str] = []

    def report(text: str) -> None:
        for address, name in names.items():
            text = text.replace(address, name)
        if after and after in text:
            replicas.kill(1)

    looks = iter([(0, 0)])  # before the new version came

    def outcomes() -> tuple[int, int]:
        if after == "failures" and (counts := next(looks, (0, 100))) != (0, 0):
            replicas.kill(1)
            return counts
        return 0, 0

    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Client(server.grpc_url, headers=server.admin_headers)) for server in replicas.servers
        ]
        for client in clients:
            _record_loads(client, loads)
        if not after:
            replicas.kill(1)
        files = rolling_models.doubling_otherwise(tmp_path / "new")
        with pytest.raises(RolloutError) as rolled_back:
            roll(clients, "double", files, replicas.repository, REPLICA_RULES, report, outcomes)
    print(f"{phase}: {rolled_back.value}")
    assert replicas.served() == "2 - 2"
    assert "".join(names[address] for address in rolled_back.value.left_behind) == left_behind
    assert "".join(names[address] for address in loads) == loading.removesuffix("B")
    assert not (replicas.repository / "double" / "2").exists()


@pytest.mark.slow
def test_a_replica_that_freezes_delays_nobody_and_is_named(replicas: Replicas, tmp_path: Path) -> None:
    """While it loads: its load would take ten minutes to fail."""
    replicas.start()
    frozen = replicas.servers[1]

    def report(text: str) -> None:
        if text.startswith(replicas.servers[0].grpc_url):
            os.kill(frozen.pid, signal.SIGSTOP)

    start_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Client(server.grpc_url, headers=server.admin_headers)) for server in replicas.servers
        ]
        files = rolling_models.doubling_otherwise(tmp_path / "new")
        with pytest.raises(RolloutError) as rolled_back:
            roll(clients, "double", files, replicas.repository, REPLICA_RULES, report)
    assert time.monotonic() - start_s < 60
    assert rolled_back.value.left_behind == (frozen.grpc_url,)
    assert (_answer(replicas.servers[0]), _answer(replicas.servers[2])) == ("2", "2")
    replicas.kill(1)


@pytest.mark.slow
def test_ctrl_c_in_the_watch_leaves_the_old_version(replicas: Replicas, tmp_path: Path) -> None:
    replicas.start()
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Client(server.grpc_url, headers=server.admin_headers)) for server in replicas.servers
        ]
        files = rolling_models.doubling_otherwise(tmp_path / "new")
        with pytest.raises(KeyboardInterrupt):
            roll(clients, "double", files, replicas.repository, REPLICA_RULES, outcomes=_interrupt)
    assert replicas.served() == "2 2 2"


def _interrupt() -> tuple[int, int]:
    raise KeyboardInterrupt


def _record_loads(client: Client, loads: list[str]) -> None:
    call = client.call

    def recorded(method: str, request: Any, **options: Any) -> Any:
        if method == "RepositoryModelLoad" and request.model_name == "double":
            loads.append(client.endpoint)
        return call(method, request, **options)

    client.call = recorded  # type: ignore[method-assign]


def test_no_traffic_is_no_success(
    server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new version serves, and nothing is known of it; Triton counts the requests of its warm-up like others."""
    monkeypatch.setenv("FATHOM_ADMIN_TOKEN", TOKEN)
    where = ["--server", server.grpc_url, "--model-repository", str(server.model_repository)]
    files = str(rolling_models.doubling_otherwise(tmp_path / "new"))
    assert main(["publish", "double", "--from", files, "--watch", "0.1", "--json", *where]) == 1
    done = json.loads(capsys.readouterr().out)
    assert done["watched"] == {"requests": 0, "failed": 0, "verdict": "undecided", "idle": [server.grpc_url]}
    assert str(done["version"]) in versions(server)


COUNTS = {  # answered, failed: whether that is more than 1 in 1,000 for certain, or less
    "one of the first twenty failed, as now and then of a good version": ((19, 1), "undecided"),
    "three of the first ten failed": ((7, 3), "fail"),
    "none of a few failed": ((100, 0), "undecided"),
    "none of enough failed": ((4_700, 0), "pass"),
}


@pytest.mark.parametrize("case", COUNTS)
def test_a_share_counts_from_enough_requests_on(case: str) -> None:
    counts, verdict = COUNTS[case]
    if verdict == "fail":
        with pytest.raises(RolloutError):
            watch([], Rules(watch_s=0), lambda: counts)
    else:
        watched = watch([], Rules(watch_s=0), lambda: counts)
        assert (watched.requests, watched.failed, watched.verdict) == (sum(counts), counts[1], verdict)
