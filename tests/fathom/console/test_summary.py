"""What a person reads of a capacity result: the answer, both numbers explained, what to mind, what to do next."""

import io
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from simulated import run_search

from fathom import cli
from fathom.console import summary
from fathom.console.live_table import points_table
from loadtests.report import prose
from loadtests.results.result import INTERRUPTED, CapacityResult, summarise
from loadtests.slo import Slo, format_rate

SLO = Slo.parse("p99=20ms")
FOLDER = str(Path("results") / "queue")


@pytest.fixture(scope="module")
def points():
    return tuple(run_search(SLO, 0.002, budget_s=30, seed=0))


def result_of(points, partial="", **settings) -> CapacityResult:
    found = summarise(points, (SLO,), model="queue", server="host:8001", base_seed=0, partial=partial, folder=FOLDER)
    return replace(found, settings={"budget_s": 30.0, **settings})


def test_the_headline_has_both_numbers_and_the_proof_its_counts(points):
    result = result_of(points)
    low, high = result.capacity_estimate_interval_per_s
    shown = (result.capacity_estimate_per_s, low, high)
    assert all(f"{value:,.0f}" in prose.headline(result) for value in shown)
    assert prose.headline(result).endswith(format_rate(result.capacity_per_s))
    assert result.certificate.describe() in dict(summary.sentences(result))["proven"]
    assert "capacity" in dict(summary.sentences(replace(result, capacity_estimate_per_s=None)))


def test_the_next_steps_are_commands_that_are_understood(points):
    steps = dict(summary.next_steps(result_of(points), " --server host:8001"))
    for command in steps.values():
        program, name, *rest = shlex.split(command)
        assert program == "fathom"
        options = cli.parser(name).parse_args([name, *rest])
        assert str(getattr(options, "resume", None) or options.report) == FOLDER
    assert any("--report results/queue" in command for command in steps.values())
    newest = replace(result_of(points), folder="results/queue/2026-11-30_11-02-45")
    assert dict(summary.next_steps(newest, " --server host:8001")) == steps  # `latest` is there
    (longer,) = (command for command in steps.values() if "--resume" in command)
    assert float(longer.rpartition(" ")[2].removesuffix("s")) >= 90


def test_an_interrupted_search_says_how_to_go_on(points):
    result = result_of(points[:2], partial=INTERRUPTED)
    assert INTERRUPTED in dict(summary.sentences(result))["partial"]
    (_, command), *_ = summary.next_steps(result)
    assert "--resume results" in command


def test_a_reason_is_told_once(points):
    lost = replace(points[1], stopped="connection lost", verdict="fail", passes=False, reason="the server went away: x")
    result = result_of((points[0], lost), partial="the server went away at 400/s")
    shown = "".join(sentence for _, sentence in summary.sentences(result))
    assert shown.count("went away") == 1
    assert result.ended_because == "the server went away at 400/s"


def test_what_was_cut_off_says_nothing_against_its_rate(points):
    cut = replace(points[0], stopped="asked", verdict="undecided", passes=False, reason="interrupted")
    result = result_of((cut,), partial=INTERRUPTED)
    assert (result.verdict, result.capacity_per_s) == ("undecided", None)
    assert f"{cut.rate_per_s:.4g}/s" not in result.finding


def test_a_missed_slo_says_by_how_much(points):
    def missed(point, rate_per_s, p99_ms):
        return replace(point, rate_per_s=rate_per_s, p99_ms=p99_ms, verdict="fail", passes=False, phase="double")

    invalid = replace(missed(points[2], 10, 90.0), verdict="invalid")
    result = result_of((missed(points[0], 200, 60.0), missed(points[1], 100, 32.5), invalid))
    assert result.verdict == "fail"
    said = dict(summary.sentences(result))["proven"]
    assert all(value in said for value in ("100/s", "32.5 ms", "12.5 ms"))
    assert "10/s" not in said
    assert summary.next_steps(result) == []


def test_a_busy_machine_and_a_late_generator_are_said(points):
    invalid = [replace(p, verdict="invalid", reason="late; use more workers (--workers)") for p in points[:-1]]
    said = dict(summary.sentences(result_of((*invalid, points[-1]), busy_before_share=0.6)))["warning"]
    assert "60 %" in said
    assert f"{len(points) - 1} of {len(points)} probes" in said
    assert "--workers" in said
    late = result_of(invalid)
    assert late.verdict == "invalid"
    assert "warning" not in dict(summary.sentences(late))
    assert summary.next_steps(late)[0][1].endswith("--workers 2")
    again = summary.next_steps(result_of(invalid, workers=2))
    assert again[0][1].endswith("--workers 4")


def test_few_requests_over_the_limit_are_no_miss_at_every_rate(points):
    few = replace(points[0], verdict="undecided", passes=False, reason="2 of 8 over 20ms")
    assert result_of((few,)).verdict == "undecided"
    result = summarise(
        (few,), (SLO,), model="queue", server="h:1", base_seed=0, settings={"budget_s": 5, "least_s": 60}
    )
    assert "--budget 5s" in result.reason


@pytest.mark.parametrize(("width", "columns"), [(80, 10), (50, 4)])
def test_the_table_fits_the_terminal(points, width, columns):
    table = points_table(points, width=width)
    assert len(table.columns) == columns
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    shown = console.export_text()
    assert "…" not in shown
    assert all(f"{point.rate_per_s:.1f}" in shown for point in points)
