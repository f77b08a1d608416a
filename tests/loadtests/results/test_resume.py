"""What is measured is what is named: two runs that differ in more than their model are told apart."""

from __future__ import annotations

import dataclasses

import pytest

from loadtests.errors import BadRequestError
from loadtests.report import compare
from loadtests.report.prose import doubts
from loadtests.results.differences import differences
from loadtests.results.resume import resumed
from loadtests.results.store import Run, Store, read_runs
from loadtests.slo import Slo

P99 = Slo.parse("p99=20ms")
SETTINGS = {
    "workers": 1, "channels": 2, "real_time": True, "locust_master": None, "tls": False, "headers": [],
    "server_name": "triton 2.51.0", "arrivals": "poisson", "mix": {"a": 0.7, "b": 0.3},
    "sequences": {"a": {"interval_s": 0.08, "requests_mean": 9.0}},
    "payloads": 64, "payload_bytes_mean": 583.0, "payload_source": "given", "payloads_sha256": "11" * 32,
    "model_config_sha256": "22" * 32, "busy_before_share": 0.05,
}  # fmt: skip
HARDWARE = {"cpu": "EPYC", "cores": 2, "os": "Linux"}


def a_run(hardware=(), server="127.0.0.1:8001", **settings):
    return Run(
        "a+b", server, (P99,), 0, {**SETTINGS, **settings}, None, HARDWARE | dict(hardware), "2026-11-22T00:00+00:00"
    )


OTHER_REQUESTS = {
    "the models are asked in other shares": {"mix": {"a": 0.5, "b": 0.5}},
    "other requests of the same size and number": {"payloads_sha256": "33" * 32},
    "fewer requests, by a version that kept no digest": {"payloads": 8, "payloads_sha256": None},
    "made-up requests": {"payload_source": "made from the server's metadata", "payloads_sha256": None},
    "arrivals of another law": {"arrivals": "gamma:cv=2"},
    "sequences at another interval": {"sequences": {"a": {"interval_s": 0.1, "requests_mean": 9.0}}},
}
OTHER_SURROUNDINGS = {
    "another machine behind the same port": {"server": "triton.example:8001"},
    "another version of the server": {"server_name": "triton 2.68.0"},
    "more cores": {"hardware": {"cores": 64}},
    "a GPU": {"hardware": {"gpus": ["H200"]}},
    "more generators": {"workers": 4},
    "generators of Locust": {"locust_master": "5557"},
    "more connections": {"channels": 8},
    "generators without real-time priority": {"real_time": False},
    "encrypted": {"tls": True},
}


@pytest.fixture
def earlier(tmp_path):
    return read_runs(Store(tmp_path / "earlier", a_run()).folder)[0]


@pytest.mark.parametrize("case", OTHER_REQUESTS)
def test_a_search_is_not_resumed_with_other_requests(earlier, case):
    (found,) = differences(earlier.run, a_run(**OTHER_REQUESTS[case]))
    with pytest.raises(BadRequestError) as refused:
        resumed(earlier, a_run(**OTHER_REQUESTS[case]))
    assert refused.value.field == found.what
    assert all(value in str(refused.value) for value in (found.first, found.second, str(earlier.folder)))


@pytest.mark.parametrize("case", [*OTHER_SURROUNDINGS, "another model configuration"])
def test_a_search_that_goes_on_elsewhere_is_marked(earlier, case):
    run = a_run(**OTHER_SURROUNDINGS.get(case, {"model_config_sha256": "44" * 32}))
    (found,) = differences(earlier.run, run)
    once = resumed(earlier, run)
    (note,) = once.settings["resumed"]
    assert all(value in note for value in (found.what, found.first, found.second))
    again = resumed(dataclasses.replace(earlier, run=once), run)  # where it went on last
    assert list(again.settings["resumed"]) == [note]
    assert any(note in doubt for doubt in doubts(again.result([], partial="", folder=None)))


def test_a_search_keeps_its_start_and_the_worst_note_of_its_machine(earlier):
    calm = dataclasses.replace(a_run(), started_at="2026-11-23T00:00+00:00")
    busy = dataclasses.replace(earlier, run=a_run(busy_before_share=0.9))
    then = resumed(busy, calm)
    assert (then.started_at, then.settings["busy_before_share"]) == (earlier.run.started_at, 0.9)
    assert "resumed" not in then.settings


@pytest.mark.parametrize(
    "server",
    ["127.0.0.1:51321", "localhost:8001", "[::1]:8001", "dns:///localhost:8001", "ipv4:127.0.0.1:1", "unix:/tmp/s"],
)
def test_the_address_of_a_server_on_this_machine_is_no_difference(server):
    assert differences(a_run(), a_run(server=server)) == []


@pytest.mark.parametrize("case", [*OTHER_REQUESTS, *OTHER_SURROUNDINGS])
def test_a_comparison_names_what_else_differs(earlier, tmp_path, case):
    other = a_run(**{**OTHER_REQUESTS, **OTHER_SURROUNDINGS}[case])
    (found,) = differences(earlier.run, other)
    (change,) = compare.compare(["x", "y"], [earlier, read_runs(Store(tmp_path, other).folder)[0]]).changes
    assert any(all(value in note for value in (found.what, found.first, found.second)) for note in change.notes)


def test_another_model_configuration_is_what_a_comparison_is_for(earlier, tmp_path):
    other = read_runs(Store(tmp_path, a_run(model_config_sha256="44" * 32)).folder)[0]
    assert not any("different" in note for note in compare.compare(["x", "y"], [earlier, other]).changes[0].notes)
