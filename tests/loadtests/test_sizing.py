"""A plan is arithmetic on proven points: checked by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest
from simulated import simulate

from fathom.cli import main
from fathom.commands.plan import choose, describe
from loadtests.errors import BadRequestError, ResultsError
from loadtests.records.point import Probe
from loadtests.results.result import summarise
from loadtests.results.store import Run, Store
from loadtests.sizing import expected_p99_ms, latency_curve, make_plan, queue_policy
from loadtests.slo import Slo

SLO = Slo.parse("p99=50ms")


def point(rate_per_s, p99_ms, phase="bisect", **changes):
    made = simulate(Probe(0, phase, rate_per_s, 2000, 1), SLO, 1e-6, None)
    return dataclasses.replace(made, p99_ms=p99_ms, **{"took_s": 2.0, **changes})


def result(points, **settings):
    return summarise(points, [SLO], model="m", server="s", base_seed=0, settings={"unloaded_ms": 10.0, **settings})


MEASURED = result([point(100, 12.0), point(400, 20.0), point(800, 30.0, "confirm"), point(1000, 90.0)])


def test_replicas_are_those_needed_with_headroom_and_the_spare():
    plan = make_plan(MEASURED, 20_000, cost_per_hour=4.0)
    assert plan.proven_per_s == 800
    assert plan.replicas == 33  # 20000 / (800 x 0.8) = 31.25: 32, and one that may be gone
    assert plan.load_without_spare_per_s == 625.0
    assert plan.load_without_spare_per_s <= 0.8 * 800
    assert plan.load_per_s == pytest.approx(20_000 / 33)
    assert plan.expected_p99_ms == pytest.approx(20 + 10 * (20_000 / 33 - 400) / 400)
    assert plan.cost_per_million == pytest.approx(33 * 4 / (20_000 * 3600) * 1e6)


@pytest.mark.parametrize(
    ("rate", "headroom", "spare", "replicas", "why"),
    [
        (800, 0.0, 0, 1, "exactly what one holds"),
        (801, 0.0, 0, 2, "one request more"),
        (640, 0.2, 1, 2, "headroom is kept by the ones that are left"),
        (1, 0.5, 1, 2, "never fewer than one and the spare"),
    ],
)
def test_edges(rate, headroom, spare, replicas, why):
    assert make_plan(MEASURED, rate, headroom=headroom, spare=spare).replicas == replicas, why


ESTIMATED = dataclasses.replace(
    MEASURED, capacity_estimate_per_s=1000.0, capacity_estimate_interval_per_s=(900.0, 1100.0)
)


@pytest.mark.parametrize(
    ("measured", "wanted", "basis", "rate", "why"),
    [
        (ESTIMATED, None, "interval", 900.0, "the interval's lower end is higher than what is proven"),
        (dataclasses.replace(ESTIMATED, capacity_per_s=950.0), None, "proven", 950.0, "what is proven is higher"),
        (dataclasses.replace(ESTIMATED, capacity_per_s=None), None, "interval", 900.0, "nothing is proven"),
        (ESTIMATED, "proven", "proven", 800.0, "asked for"),
        (ESTIMATED, "estimate", "estimate", 1000.0, "asked for"),
    ],
)
def test_a_plan_says_on_which_rate_it_rests(measured, wanted, basis, rate, why):
    plan = make_plan(measured, 20_000, basis=wanted)
    assert (plan.basis, plan.replica_per_s) == (basis, rate), why


def test_a_basis_that_was_not_measured_is_refused():
    with pytest.raises(ResultsError):
        make_plan(dataclasses.replace(ESTIMATED, capacity_per_s=None), 20_000, basis="proven")


def test_who_waits_in_a_full_queue_still_keeps_the_slo():
    size, timeout_us = queue_policy(MEASURED, 800.0)
    assert size == 32  # 800/s in the 40 ms that are left of the 50 ms
    assert timeout_us == 40_000
    assert queue_policy(result([point(800, 30.0, "confirm")], unloaded_ms=60.0), 800.0) == (1, 1)


def test_the_p99_between_measured_points_never_falls_with_the_rate():
    curve = latency_curve([point(100, 20.0), point(200, 12.0), point(300, 30.0), point(400, 99.0, stopped="hopeless")])
    assert curve == [(100, 20.0), (200, 20.0), (300, 30.0)]
    assert expected_p99_ms(curve, 250) == 25.0
    assert expected_p99_ms(curve, 10) == 20.0
    assert expected_p99_ms(curve, 301) is None
    assert expected_p99_ms([], 10) is None
    assert make_plan(MEASURED, 10).p99_is_upper_bound


def test_promises_nothing_without_a_certificate():
    with pytest.raises(ResultsError):
        make_plan(result([point(100, 12.0)]), 1000)


@pytest.mark.parametrize(
    "change", [{"rate_per_s": 0}, {"rate_per_s": float("nan")}, {"headroom": 1.0}, {"headroom": -0.1}, {"spare": -1},
               {"cost_per_hour": -1.0}, {"rate_per_s": 1e12}]
)  # fmt: skip
def test_refuses_impossible_numbers(change):
    with pytest.raises(BadRequestError) as refused:
        make_plan(MEASURED, **{"rate_per_s": 1000.0, **change})
    assert refused.value.field == next(iter(change))


@pytest.fixture
def folder(tmp_path):
    for model in ("cat", "dog"):
        run = Run(model, "s:1", (SLO,), 0, {"unloaded_ms": 10.0}, None, {"cpu": "none"}, "2026-11-22T00:00")
        store = Store(tmp_path, run)
        for measured in MEASURED.points:
            store.add(measured)
    return tmp_path


def test_the_command_prints_one_document(folder, capsys):
    asked = ["plan", "--rate", "20000", "--report", str(folder), "--model", "cat", "--cost-per-hour", "4", "--json"]
    assert main(asked) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["replicas"], document["spare"], document["max_queue_size"]) == (33, 1, 32)
    assert document["cost_per_million"] == pytest.approx(1.8333, rel=1e-3)
    assert len(document["assumptions"]) >= 6


def test_the_command_tells_a_person(folder, capsys):
    assert main(["plan", "--rate", "20000", "--report", str(folder), "--model", "dog"]) == 0
    told = capsys.readouterr().out
    plan = make_plan(choose(folder, "dog").result, 20_000)
    assert told.splitlines() == describe(plan)
    assert plan.cost_per_million is None


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ([], ["--model", "cat, dog"]),
        (["--model", "cow"], ["cow", "cat, dog"]),
        (["--model", "cat", "--headroom", "1"], ["headroom"]),
    ],
)
def test_the_command_refuses_in_one_line(folder, capsys, arguments, values):
    assert main(["plan", "--rate", "100", "--report", str(folder), *arguments]) == 2
    told = capsys.readouterr().err
    assert all(value in told for value in values)
    assert told.count("\n") == 1
