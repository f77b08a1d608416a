"""`fathom capacity --against`: what it refuses before anything is started, and what it shows of two servers."""

from __future__ import annotations

import argparse
import json

import pytest
from haste import haste
from queue_process import QueueProcess

from clients import TLS
from fathom import against
from fathom.cli import main
from fathom.console.arguments import UsageError
from loadtests.results.store import read_runs
from loadtests.target.access import Access


@pytest.fixture
def repositories(tmp_path):
    """`mine` with `cat` in the configurations `cpu` and `fast`, `other` with `dog`, and `empty`."""
    for model in ("mine/cat", "other/dog", "empty"):
        (tmp_path / model).mkdir(parents=True)
    for file in (
        "mine/cat/config.pbtxt",
        "mine/cat/configs/cpu.pbtxt",
        "mine/cat/configs/fast.pbtxt",
        "other/dog/config.pbtxt",
    ):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    return tmp_path


REFUSED = {
    "the same folder, by another path": ("{}/other/../mine", [], "the model repository of the first server"),
    "a folder without models": ("{}/empty", [], "no models"),
    "a repository without the model": ("{}/other", [], "dog"),
    "the same server": ("h:1", ["--server", "h:1"], "h:1"),
    "the server that is asked by default": ("localhost:8001", [], "localhost:8001"),
    "neither a folder nor a configuration": ("fats", [], "cpu, fast"),
    "the configuration that is measured already": ("cpu", [], "cpu"),
    "generators of Locust": ("h:1", ["--locust-master", "5557"], "--locust-master"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused_in_one_line(repositories, capsys, case):
    other, more, value = REFUSED[case]
    other = other.format(repositories)
    asked = ["capacity", "cat", "--slo", "p99=9ms", "--model-repository", str(repositories / "mine")]
    assert main([*asked, *more, "--against", other]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert value in told


@pytest.mark.parametrize(
    ("access", "taken", "why"),
    [(Access(), 2**60, "it does not fit into memory"), (Access(tls=TLS()), None, "it would have no TLS")],
)
def test_a_second_server_is_not_started_in_vain(repositories, access, taken, why):
    arguments = argparse.Namespace(
        against=str(repositories / "other"),
        models=["double"],
        model_repository=repositories / "mine",
        tritonserver=None,
        server=None,
    )
    with pytest.raises(UsageError), against.connect(arguments, access, taken):
        pytest.fail(why)


@pytest.mark.process
@pytest.mark.alone
def test_two_servers_are_measured_in_turns_and_compared(tmp_path, capsys):
    queues = [QueueProcess("--service-ms", ms) for ms in ("4", "2")]
    one, other = (queue.address for queue in queues)
    asked = ["capacity", "queue", "--slo", "p90=40ms", "--budget", "2s", "--server", one, "--against", other]
    try:
        with haste():
            status = main([*asked, "--report", str(tmp_path), "--json"])
            assert main(["capacity", "dog", *asked[2:], "--report", str(tmp_path)]) == 2
    finally:
        for queue in queues:
            queue.stop()
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert [side["side"] for side in document["sides"]] == [one, other]
    (change,) = document["comparison"]["changes"]
    assert change["name"] == other
    assert status == (1 if change["finding"] == "unknown" else 0)
    assert (document["report"] is not None) == bool(document["comparison"])
    runs = [read_runs(folder)[0] for folder in (tmp_path, tmp_path / against.FOLDER)]
    assert [len(run.result.points) for run in runs] == [len(side["points"]) for side in document["sides"]]
    assert "dog" in told.err.splitlines()[-1]
