"""Several models in one schedule, against a real Triton."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from haste import HASTY

from fathom import cli
from loadtests import CapacityRequest, Slo, find, write_report
from loadtests.capacity import load
from loadtests.errors import BadRequestError, InputFileError
from loadtests.records.record import OK, Record
from loadtests.results.store import read_runs
from loadtests.workload.shape import parse_shape
from loadtests.workload.trace import read_trace
from loadtests.workload.workload import ModelWeight, Workload, scoped

pytestmark = pytest.mark.process

MIX = (ModelWeight("double", 3.0), ModelWeight("echo", 1.0))
P99 = Slo.parse("p99=200ms")


@pytest.fixture(scope="module")
def workload(small_server):
    with Workload(small_server.grpc_url, MIX, seed=1) as made:
        made.check()
        yield made


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a", ModelWeight("a")),
        ("a=0.7", ModelWeight("a", 0.7)),
        ("a_b=2", ModelWeight("a_b", 2.0)),
        ("a@1", ModelWeight("a", priority=1)),
        ("a@2=0.5", ModelWeight("a", 0.5, priority=2)),
        ("a@b=3", ModelWeight("a@b", 3.0)),
    ],
)
def test_shares_are_read(text, share):
    assert ModelWeight.parse(text) == share


@pytest.mark.parametrize(
    "text", ["", "=1", "a=", "a=x", "a=0", "a=-1", "a=nan", "a b", "a@0", "a@-1=2", "a@4294967296"]
)
def test_refuses_other_shares(text):
    with pytest.raises(BadRequestError) as refused:
        ModelWeight.parse(text)
    assert refused.value.field == "mix"
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("shares", "field"),
    [((), "mix"), ((ModelWeight("a"), ModelWeight("a")), "mix"), ((ModelWeight("a", 1.0, ()),), "payloads")],
    ids=["no model", "a model twice", "no payloads"],
)
def test_refuses_impossible_traffic(shares, field):
    with pytest.raises(BadRequestError) as refused:
        Workload("127.0.0.1:9", shares)
    assert refused.value.field == field


def test_slos_of_a_mix_are_for_each_model_and_for_all():
    named = Slo.parse("echo:p50=5ms")
    assert [str(slo) for slo in scoped([P99, named], ["double", "echo"])] == [
        "p99=200ms", "echo:p50=5ms", "double:p99=200ms", "echo:p99=200ms",
    ]  # fmt: skip
    assert scoped([named], ["echo"]) == (Slo.parse("p50=5ms"),)
    with pytest.raises(BadRequestError) as refused:
        scoped([named], ["double"])
    assert refused.value.field == "slos"
    assert "echo" in str(refused.value)


def test_requests_are_shared_by_weight_and_follow_from_the_seed(workload):
    choices = workload.choices(4000, seed=5)
    assert np.array_equal(choices, workload.choices(4000, seed=5))
    assert not np.array_equal(choices, workload.choices(4000, seed=6))
    times = np.arange(4000.0)
    owners = workload.marked(Record(times, times, times, np.zeros(4000, np.uint8)), choices).model
    assert np.mean(owners == 0) == pytest.approx(0.75, abs=0.03)
    for model in (0, 1):  # all payloads of a model are used equally
        counts = np.unique(choices[owners == model], return_counts=True)[1]
        assert len(counts) == 32
        assert counts.max() - counts.min() <= 1


def test_a_mix_is_judged_for_each_model_and_together(small_server):
    request = CapacityRequest(small_server.grpc_url, "double+echo", [P99], mix=MIX, workers=2)
    point = load(request, parse_shape("step:100,200", 1.5))
    assert point.errors == 0
    assert [entry.model for entry in point.models] == ["double", "echo"]
    assert sum(entry.requests for entry in point.models) == point.requests
    assert point.models[0].requests == pytest.approx(0.75 * point.requests, rel=0.2)
    assert [count.slo for count in point.slos] == ["p99=200ms", "double:p99=200ms", "echo:p99=200ms"]
    assert {step.model for step in point.steps} == {"double", "echo"}
    assert sum(step.requests for step in point.steps) == point.requests
    assert {step.model: step.share for step in point.steps} == {
        entry.model: entry.requests / point.requests for entry in point.models
    }
    assert point.queue_ms == pytest.approx(sum(step.share * step.queue_ms for step in point.steps))


def test_refuses_a_priority_that_the_model_does_not_have(small_server):
    mix = [ModelWeight("double"), ModelWeight("double", priority=1)]
    with Workload(small_server.grpc_url, mix) as made, pytest.raises(BadRequestError) as refused:
        made.check()
    assert refused.value.field == "mix"
    assert "double@1" in str(refused.value)


def test_a_model_that_is_too_slow_fails_the_mix(small_server):
    """`slow` sleeps for up to a second a request."""
    slos = [Slo.parse("double:p50=150ms"), Slo.parse("slow:p50=150ms")]
    mix = (ModelWeight("double", 0.9), ModelWeight("slow", 0.1))
    point = load(CapacityRequest(small_server.grpc_url, "mix", slos, mix=mix), parse_shape("poisson:60", 1.5))
    assert point.verdict == "fail"
    assert [count.verdict for count in point.slos] == ["pass", "fail"]
    assert {entry.model: entry.verdict for entry in point.models} == {"double": "pass", "slow": "fail"}


def test_a_search_over_a_mix_is_kept_and_read_again(small_server, tmp_path):
    request = CapacityRequest(
        small_server.grpc_url, "double+echo", [P99], mix=MIX, budget_s=1, max_per_s=150.0, folder=tmp_path, timing=HASTY
    )
    result = find(request)
    stored = read_runs(tmp_path)[0]
    assert stored.result.to_json() == result.to_json()
    assert result.settings["mix"] == {"double": 0.75, "echo": 0.25}
    assert set(stored.record(result.points[-1]).model.tolist()) == {0, 1}
    page = write_report(tmp_path).read_text()
    assert "fathom capacity double=0.75 echo=0.25 --slo p99=200ms --server" in page
    assert page.count("p99 limit") == 2  # once in each width of the picture, not once for each model
    of_models = page.partition("Each model of the mix")[2].partition("</table>")[0]
    assert f"<td>{result.points[0].models[1].requests}</td>" in of_models


def test_a_trace_says_which_model_and_payload(workload, small_server, tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("offset_s,model,payload\n0,echo,31\n0.01,double,0\n0.02,double,5\n")
    trace = read_trace(path)
    assert workload.choices_of(trace, seed=0).tolist() == [63, 0, 5]
    point = load(CapacityRequest(small_server.grpc_url, "double+echo", [P99], mix=MIX), trace)
    assert (point.requests, point.errors, point.verdict) == (3, OK, "undecided")
    assert [entry.requests for entry in point.models] == [2, 1]


@pytest.mark.parametrize(
    ("row", "value"), [("0.5,other,1", "'other'"), ("0.5,echo,32", "payload 32")], ids=["its model", "its payload"]
)
def test_a_trace_that_does_not_fit_names_its_line(workload, tmp_path, row, value):
    path = tmp_path / "trace.csv"
    path.write_text(f"offset_s,model,payload\n0,echo,0\n{row}\n")
    with pytest.raises(InputFileError) as refused:
        workload.choices_of(read_trace(path), seed=0)
    assert (refused.value.path, refused.value.line) == (path, 3)
    assert value in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["nothing"], "nothing"),
        (["double", "--schedule", "poisson"], "'poisson'"),
        (["double", "--workers", "300"], "300"),
        (["double=x"], "'double=x'"),
        (["double", "--trace", "TRACE"], "'soon'"),
    ],
)
def test_bad_input_is_one_line(small_server, tmp_path, capsys, arguments, value):
    trace = tmp_path / "trace.csv"
    trace.write_text("0.1\nsoon\n")
    options = [str(trace) if option == "TRACE" else option for option in arguments]
    status = cli.main(["load", *options, "--slo", "p99=200ms", "--duration", "1", "--server", small_server.grpc_url])
    said = capsys.readouterr().err
    assert status == 2
    assert value in said
    assert said.count("\n") == 1


def test_the_command_fires_a_mix_and_says_what_held(small_server, capsys):
    status = cli.main(
        ["load", "double=3", "echo", "--slo", "p50=200ms", "--schedule", "poisson:100", "--duration", "1",
         "--server", small_server.grpc_url]
    )  # fmt: skip
    said = capsys.readouterr().out
    assert status in (0, 1)
    assert "echo" in said
    assert "p50=200ms: " in said


def test_a_rate_beyond_the_generator_is_invalid_and_says_what_to_do(small_server):
    """A million requests a second are more than one process can send."""
    request = CapacityRequest(small_server.grpc_url, "double", [Slo.parse("p99=1ms")])
    point = load(request, parse_shape("constant:1000000", 0.015))
    assert point.verdict == "invalid"
    assert "--workers" in point.reason


def test_a_server_that_dies_is_told_and_what_was_measured_counts(start_queue, monkeypatch):
    queue = start_queue("--service-ms", "2")
    kill = threading.Timer(0.4, queue.process.kill)
    monkeypatch.setattr(Workload, "statistics", lambda self: kill.start() or [])  # asked just before the first request
    point = load(CapacityRequest(queue.address, "queue", [P99], workers=2), parse_shape("constant:50", 20))
    assert point.stopped == "connection lost"
    assert point.verdict == "fail"
    assert point.p50_ms < 200


@pytest.mark.slow
def test_the_capacity_command_takes_a_mix(small_server, tmp_path, capsys):
    status = cli.main(
        ["capacity", "double=3", "echo", "--slo", "p90=200ms", "--max-rate", "100", "--budget", "4", "--workers", "2",
         "--json", "--report", str(tmp_path), "--server", small_server.grpc_url]
    )  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    assert status in (0, 1)
    assert document["model"] == "double+echo"
    assert {slo["slo"] for slo in document["points"][0]["slos"]} == {"p90=200ms", "double:p90=200ms", "echo:p90=200ms"}
    assert len(document["points"][0]["workers"]) == 2
