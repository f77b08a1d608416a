"""The page of a search: which probes it shows and with which verdict, and what can be saved from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from simulated import run_search, simulate

from fathom.console.live_table import points_table
from loadtests import report
from loadtests.records.point import Point, Probe, StepPoint
from loadtests.report.page import prose
from loadtests.report.prose import deciding_point, edge_point, shown_verdict
from loadtests.results.result import summarise
from loadtests.results.store import Run, Store
from loadtests.search.certificate import certificates
from loadtests.slo import Slo

P99 = Slo.parse("p99=50ms")
STEP = StepPoint("m", 1.0, 0.1, 1.8, 0.1, 2.0, 1.0, 100, 100, 0, {"1": 100})


def probe(number: int, rate_per_s: float, requests: int, service_s: float = 1e-6, phase: str = "double") -> Point:
    """Of a server that is never busy, unless `service_s` says otherwise."""
    made = simulate(Probe(number, phase, rate_per_s, requests, number), P99, service_s, None)  # type: ignore[arg-type]
    return replace(made, steps=(STEP,))


TWICE = (probe(0, 100.0, 400, phase="confirm"), probe(1, 100.0, 400, phase="confirm"))


def test_two_runs_that_pass_together_are_shown_as_passed() -> None:
    assert [point.verdict for point in TWICE] == ["undecided", "undecided"]
    assert [shown_verdict(point, certificates(TWICE)) for point in TWICE] == ["pass", "pass"]
    (verdicts,) = (column for column in points_table(TWICE, width=80).columns if column.header == "verdict")
    assert [str(cell) for cell in verdicts.cells] == ["pass", "pass"]
    assert shown_verdict(TWICE[0], certificates(TWICE[:1])) == "undecided"


@pytest.mark.parametrize(
    ("points", "estimate_per_s", "decides", "at_the_edge"),
    [
        ((*TWICE, probe(2, 300.0, 2000)), None, TWICE[0], TWICE[0]),
        ((probe(0, 200.0, 300), probe(1, 100.0, 900)), None, 1, 1),
        ((*TWICE, probe(2, 190.0, 500), probe(3, 200.0, 100), probe(4, 600.0, 900)), 205.0, TWICE[0], 2),
        ((*TWICE, replace(probe(2, 200.0, 500, 0.1), stopped="hopeless")), 190.0, TWICE[0], 2),
        ((*TWICE, replace(probe(2, 200.0, 500), steps=())), 190.0, TWICE[0], 0),
        ((probe(0, 200.0, 500, service_s=0.1),), None, None, None),
    ],
    ids=[
        "a confirmation that passed decides, also below a rate that was met once",
        "without one it is the longest that met the SLO",
        "near the capacity a long probe shows more than a nearer one",
        "an overload shows what limits the server, too",
        "only what has the server's figures can show it",
        "nothing where nothing was met",
    ],
)
def test_which_probes_are_shown(
    points: tuple[Point, ...],
    estimate_per_s: float | None,
    decides: Point | int | None,
    at_the_edge: Point | int | None,
) -> None:
    found = summarise(points, (P99,), model="m", server="h:1", base_seed=0)
    found = replace(found, capacity_estimate_per_s=estimate_per_s)
    for shown, expected in ((deciding_point(found), decides), (edge_point(found), at_the_edge)):
        assert shown == (points[expected] if isinstance(expected, int) else expected)


def test_the_page_saves_its_figures(tmp_path: Path) -> None:
    run = Run("queue", "simulated:1", (P99,), 0, {"unloaded_ms": 1.0}, None, {}, "2026-11-22T00:00")
    store = Store(tmp_path, run)
    for point in run_search(P99, 0.01, budget_s=20, seed=1):
        store.add(replace(point, raw=""))
    page = report.write(tmp_path).read_text()
    assert (store.folder / "latency.png").read_bytes().startswith(b"\x89PNG")
    assert (store.folder / "latency.svg").read_text().startswith("<svg")
    assert (store.folder / "points.csv").read_text().startswith("number,phase,rate_per_s")
    for name in ("latency.svg", "latency.png", "points.csv"):
        assert f'download="queue-{name}" href="data:' in page


def test_a_search_that_ended_before_its_first_probe_has_a_page(tmp_path: Path) -> None:
    store = Store(tmp_path, Run("queue", "simulated:1", (P99,), 0, {}, None, {}, "2026-11-22T00:00"))
    store.finish(summarise((), (P99,), model="queue", server="simulated:1", base_seed=0, partial="interrupted"))
    assert "interrupted" in report.write(tmp_path).read_text()


def test_a_line_ends_neither_within_an_option_nor_before_a_per_cent_sign() -> None:
    found = prose("95 % prove <this> (--resume with a longer --dry-run) -- 5 - 3 \x1b")
    assert str(found) == (
        '95\u00a0% prove &lt;this&gt; (<span class="whole">--resume</span> with a longer '
        '<span class="whole">--dry-run</span>) -- 5 - 3 \\x1b'
    )
