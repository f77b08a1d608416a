"""The whole search against the reference queue: what it finds, what it keeps, and how it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
import threading

import pytest
from haste import HASTY
from interrupting import interrupt
from queueing import md1_capacity_per_s

from loadtests import CapacityRequest, Slo, find, write_report
from loadtests.errors import BadRequestError, ResultsError, SloUnreachableError, TargetError
from loadtests.results.result import INTERRUPTED
from loadtests.results.resume import usable_points
from loadtests.results.store import Run, Store, read_runs

pytestmark = [pytest.mark.process, pytest.mark.alone]

P99 = Slo.parse("p99=30ms")


CAPACITY_PER_S = md1_capacity_per_s(0.002, 0.03, 0.99)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A search of an M/D/1 queue with 2 ms of service, and its folder."""
    from queue_process import QueueProcess

    queue = QueueProcess("--service-ms", "2")
    try:
        folder, seen = tmp_path_factory.mktemp("results"), []
        made = {"folder": folder, "manifest": {"made": "here"}}
        request = CapacityRequest(queue.address, "queue", [P99], budget_s=6, timing=HASTY, **made)
        return find(request, on_point=seen.append), seen, folder
    finally:
        queue.stop()


def test_goes_beyond_what_the_server_can_do_and_passes_nothing_there(found):
    """A few seconds on a shared machine: how near a search comes is asserted on simulated queues."""
    result, _, _ = found
    above = [point for point in result.points if point.rate_per_s > CAPACITY_PER_S]
    assert above
    assert not any(point.verdict == "pass" for point in above)
    assert not result.partial


def test_json_has_the_keys_that_others_rely_on(found):
    result, seen, _ = found
    document = json.loads(json.dumps(result.to_json()))
    assert {
        "capacity_per_s", "capacity_estimate_per_s", "capacity_estimate_interval_per_s", "verdict", "slo", "model",
        "seeds", "manifest", "hardware", "partial", "points",
    } <= set(document)  # fmt: skip
    assert document["slo"] == "p99=30ms"
    assert document["manifest"] == {"made": "here"}
    assert len(document["points"]) == len(seen) == len(document["seeds"]) - 1
    for point in document["points"]:
        assert {
            "rate_per_s", "achieved_per_s", "p50_ms", "p99_ms", "verdict", "reason", "send_lag_p99_ms", "requests",
            "errors", "seed", "cpu_per_request_us", "queue_ms", "compute_ms", "mean_batch", "steps",
        } <= set(point)  # fmt: skip
        assert point["queue_ms"] is None  # this server has no statistics extension


def test_raw_results_give_the_same_answer_again(found):
    result, _, folder = found
    (stored,) = read_runs(folder)
    assert stored.result.to_json() == result.to_json()
    record = stored.record(result.points[0])
    assert len(record) == result.points[0].scheduled


def test_report_is_made_from_the_folder_alone(found):
    _, _, folder = found
    path = write_report(folder)
    text = path.read_text()
    assert text.count("<svg") >= 4
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    assert (folder / "queue" / "latest" / "points.csv").read_text().count("\n") == len(found[1]) + 1
    assert (folder / "queue" / "latest" / "latency.svg").read_text().startswith("<svg")


def test_a_search_that_was_killed_while_it_wrote_can_be_read(found, tmp_path):
    result, _, folder = found
    copy = tmp_path / "copy"
    shutil.copytree(folder / "queue" / "latest", copy)
    lines = (copy / "points.jsonl").read_text()
    (copy / "capacity.json").unlink()
    (copy / "points.jsonl").write_text(lines + lines[:50])
    (stored,) = read_runs(copy)
    assert [point.seed for point in stored.result.points] == [point.seed for point in result.points]
    assert stored.result.partial
    (copy / "points.jsonl").write_text("broken\n" + lines)
    with pytest.raises(ResultsError) as refused:
        read_runs(copy)
    assert (refused.value.path, refused.value.line) == (copy / "points.jsonl", 1)


@pytest.mark.parametrize(
    ("options", "model", "of_server"),
    [
        ([], "other", ""),
        (["--not-ready"], "queue", ""),
        (["--refuse", "input x has no rows"], "queue", "input x has no rows"),
    ],
    ids=["an unknown model", "a model that is not ready", "a model that refuses its request"],
)
def test_asks_before_it_measures(start_queue, shared_queue, options, model, of_server):
    address = start_queue(*options).address if options else shared_queue("--service-ms", "2").address
    with pytest.raises(TargetError) as raised:
        find(CapacityRequest(address, model, [P99]))
    assert (raised.value.server, raised.value.model) == (address, model)
    assert of_server in str(raised.value)  # the server's own words
    assert "\n" not in str(raised.value)


def test_an_slo_that_is_missed_without_load_is_not_measured(start_queue):
    with pytest.raises(SloUnreachableError) as raised:
        find(CapacityRequest(start_queue("--service-ms", "40").address, "queue", [P99]))
    assert raised.value.slo == "p99=30ms"
    assert 40 <= raised.value.unloaded_ms < 200
    assert "\n" not in str(raised.value)


def test_nobody_listens():
    with pytest.raises(TargetError) as raised:
        find(CapacityRequest("127.0.0.1:9", "queue", [P99]))
    assert raised.value.server == "127.0.0.1:9"


@pytest.mark.parametrize(
    "change",
    [
        {"server": "localhost"},
        {"server": "localhost:grpc"},
        {"slos": []},
        {"slos": [Slo.parse("errors=1%")]},
        {"payloads": []},
        {"max_per_s": 0.0},
        {"start_per_s": -1.0},
        {"budget_s": 0.0},
        {"tolerance": 2.0},
        {"gap": 0.0},
        {"gap": 2.0},
        {"gap": math.nan},
        {"timeout_s": 0.0},
    ],
)
def test_refuses_impossible_requests(shared_queue, change):
    known = set(change) & {"budget_s", "gap", "tolerance"}
    address = shared_queue("--service-ms", "2").address if known else "127.0.0.1:9"
    with pytest.raises(BadRequestError) as refused:
        find(CapacityRequest(**{"server": address, "model": "queue", "slos": [P99], "timing": HASTY, **change}))
    assert refused.value.field == next(iter(change))


def test_a_slow_model_ends_with_its_budget_and_says_before_what_it_needs(start_queue, tmp_path):
    queue = start_queue("--service-ms", "200")
    notes = []
    request = CapacityRequest(
        queue.address, "queue", [Slo.parse("p90=500ms")], budget_s=5, start_per_s=8, folder=tmp_path
    )
    result = find(request, on_note=notes.append)
    assert result.points
    assert sum(point.duration_s for point in result.points) < 5 + 0.2 + 1  # without starting generators and draining
    assert notes
    assert result.settings["least_s"] > 5
    assert (result.capacity_per_s, result.partial) == (None, False)


def test_a_budget_too_short_for_any_probe_is_a_result_and_leaves_an_earlier_one(shared_queue, tmp_path):
    address = shared_queue("--service-ms", "2").address
    folder = tmp_path / "results"
    Store(folder, Run("queue", address, (P99,), 0, {}, None, {}, "2026-11-22T00:00"))
    request = CapacityRequest(address, "queue", [Slo.parse("p99=5s")], budget_s=1, folder=folder)
    result = find(request)
    assert (result.verdict, result.points, result.folder, result.partial) == ("undecided", (), None, False)
    assert read_runs(folder)[0].run.slos == (P99,)


def test_a_server_that_dies_leaves_the_points_so_far(start_queue, tmp_path):
    queue = start_queue("--service-ms", "2")
    seen = []

    def watch(point):
        seen.append(point)
        if len(seen) == 1:
            threading.Timer(0.2, queue.process.kill).start()

    request = CapacityRequest(queue.address, "queue", [P99], budget_s=30, timing=HASTY, folder=tmp_path)
    result = find(request, on_point=watch)
    assert result.partial
    assert len(result.points) >= 1
    assert result.ended_because not in ("", INTERRUPTED)
    assert read_runs(tmp_path)[0].result.partial
    assert "partial" in write_report(tmp_path).read_text()


def test_a_server_that_freezes_is_no_server_that_is_slow(start_queue, tmp_path):
    queue = start_queue("--service-ms", "2")
    timing = dataclasses.replace(HASTY, drain_s=0.7)

    def watch(point):
        if point.number == 0:
            threading.Timer(0.1, queue.process.send_signal, (signal.SIGSTOP,)).start()

    request = CapacityRequest(queue.address, "queue", [P99], budget_s=30, timeout_s=0.3, timing=timing, folder=tmp_path)
    result = find(request, on_point=watch)
    assert result.partial
    assert len(result.points) >= 2
    assert result.points[-1].stopped == "connection lost"  # it says nothing about the rate, and is measured again
    assert usable_points(read_runs(tmp_path)[0]) == list(result.points[:-1])


def test_a_model_that_breaks_is_no_model_that_is_slow(start_queue):
    """What Triton's python backend does for ever once a model's process was killed."""
    queue = start_queue("--service-ms", "2", "--broken-after", "200")
    timing = dataclasses.replace(HASTY, drain_s=0.5)
    result = find(CapacityRequest(queue.address, "queue", [P99], budget_s=30, timing=timing))
    assert result.partial
    assert "Stub process 'queue_0' is not healthy." in result.ended_because  # the server's own words
    assert result.points[-1].stopped == "connection lost"
    assert result.points[-1].took_s > 0.5  # waiting is of the budget
    assert sum(point.took_s for point in result.points) < 10


def test_ctrl_c_keeps_what_was_measured(start_queue, tmp_path):
    queue = start_queue("--service-ms", "2")

    asked = CapacityRequest(queue.address, "queue", [P99], budget_s=30, timing=HASTY, folder=tmp_path)
    with interrupt(0.2) as timer:
        result = find(asked, on_point=lambda point: point.number or timer.start())
    assert result.partial
    assert result.ended_because == INTERRUPTED
    assert len(result.points) >= 1

    spent_s = sum(point.took_s for point in result.points)
    again = dataclasses.replace(asked, resume=True, folder=tmp_path / "queue", seed=77, budget_s=spent_s + 1.2)
    resumed = find(again)
    kept = [point for point in result.points if point.stopped != "asked"]
    assert [point.seed for point in resumed.points[: len(kept)]] == [point.seed for point in kept]
    assert len(resumed.points) > len(kept)
    assert [point.number for point in resumed.points] == list(range(len(resumed.points)))
    assert not resumed.partial
    assert resumed.seeds[0] == 0  # that of the search it goes on with
    assert resumed.settings["payloads_sha256"] == result.settings["payloads_sha256"]
    assert resumed.folder == result.folder
    (stored,) = read_runs(tmp_path)
    assert stored.result.to_json() == resumed.to_json()
    assert all(len(stored.record(point)) == point.scheduled for point in resumed.points)
    for change in ({"budget_s": spent_s}, {"slos": [Slo.parse("p99=31ms")]}, {"manifest": {"made": "later"}}):
        with pytest.raises(BadRequestError) as refused:
            find(dataclasses.replace(again, **change))
        assert refused.value.field == next(iter(change))


def test_nothing_to_resume(shared_queue, tmp_path):
    with pytest.raises(ResultsError) as refused:
        find(CapacityRequest(shared_queue("--service-ms", "2").address, "queue", [P99], folder=tmp_path, resume=True))
    assert refused.value.path == tmp_path


def test_a_bounded_queue_fails_by_its_errors(start_queue):
    queue = start_queue("--service-ms", "5", "--bound", "2")
    slos = [Slo.parse("p99=200ms")]
    request = CapacityRequest(queue.address, "queue", slos, budget_s=1.5, start_per_s=400, timing=HASTY)
    first = find(request).points[0]
    assert first.verdict == "fail"
    assert "Exceeds maximum queue size" in first.reason  # the server's own words
