"""New versions of a model under load, on a real Triton: no request fails, and what is worse is taken back."""

from __future__ import annotations

import collections
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rolling_models

from clients import Client, InferenceError, Retries
from fathom.cli import main
from fathom.console.arguments import UsageError
from fathom.rollout import RolloutError, Rules, roll
from server import TritonServer

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


def test_an_unknown_model_is_refused(server: TritonServer, client: Client, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="triple"):
        roll([client], "triple", tmp_path, server.model_repository, QUICK)


@pytest.mark.slow
def test_a_version_that_fails_real_requests_is_taken_back(server: TritonServer, client: Client, tmp_path: Path) -> None:
    before = versions(server)
    files = rolling_models.failing_for_large_inputs(tmp_path / "new")
    with Load(server.grpc_url, value=1000.0) as load:
        load.wait_for(2000.0, 50)
        with pytest.raises(RolloutError, match=r"version \d+"):
            roll([client], "double", files, server.model_repository, Rules(watch_s=20.0), seen=load.outcomes)
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
        version = roll([client], "double", files, server.model_repository, QUICK)
        load.wait_for(2.001, REQUESTS // 3)
    assert load.errors == {}
    assert load.answers.keys() == {2.0, 2.001}
    assert versions(server) == sorted([*before, str(version)])
    print(f"answered {dict(load.answers)}, failed {sum(load.errors.values())}")
