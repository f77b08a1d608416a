"""Pages and pictures of answers that come in parts."""

import csv
import re
from dataclasses import replace

import numpy as np
import pytest
from batched_in_flight import BatchedInFlight, search_streams
from matplotlib.figure import Figure

from loadtests import report
from loadtests.records.point import Point, ServerLoad, StepPoint
from loadtests.records.record import CANCELLED, Record
from loadtests.records.streaming import GenerationLoad
from loadtests.report import comparison_page
from loadtests.report.plots import distribution
from loadtests.report.streams import limited_measures, measures, without_empty_times
from loadtests.report.timelines import draw_timelines
from loadtests.results.result import CapacityResult, summarise
from loadtests.results.store import Run, Store, read_runs
from loadtests.slo import Slo

SLOS = tuple(map(Slo.parse, ("ttft:p90=1s", "gap:p90=90ms")))
RUN = Run("writer", "simulated:1", SLOS, 0, {"unloaded_ms": 2200.0}, None, {}, "2026-11-30T00:00")
GENERATION = GenerationLoad(2.5, 8.0, 1.0, 2.25, 60.0, 3)
STEP = StepPoint("writer", 0.01, 0.1, 0.2, 0.0, 0.3, 1.0, 100, 100, 0, {"1": 100})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of a search of a model that answers from threads of its own, so that Triton's times are empty."""
    folder = tmp_path_factory.mktemp("streams")
    store = Store(folder, RUN)
    server = BatchedInFlight(8, 0.028, 0.006)
    for point in search_streams(server, SLOS, budget_s=300, seed=1, save=store.save_record):
        load = ServerLoad(0.9, 800.0, None, None, None, 0, GENERATION)
        store.add(replace(point, steps=(STEP,), queue_ms=0.01, compute_ms=0.3, mean_batch=1.0, load=load))
    report.write(folder)
    return folder


@pytest.fixture(scope="module")
def result(folder) -> CapacityResult:
    return read_runs(folder)[0].result


def test_the_page_shows_streams_and_no_empty_times(folder):
    page = (folder / "report.html").read_text()
    pictures = dict.fromkeys(re.findall(r"<title>writer: (.*?)(?: of the probe| at | against |<)", page))
    assert list(pictures) == [
        "TTFT and ITL and longest gap",
        "tokens and answers",
        "24 streams",
        "distribution of the TTFT",
        "distribution of the longest gap",
        "the probe",
    ]
    heads = re.findall(r"<th[^>]*>(\w+)", page[page.index("Every probe") :])
    assert {"TTFT", "ITL", "gap", "tokens", "slots"} <= set(heads)
    assert not {"queue", "compute", "mean"} & set(heads)


def test_the_saved_table_has_the_figures_of_streams(folder, result):
    with (read_runs(folder)[0].folder / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    points = sorted(result.points, key=lambda point: point.rate_per_s)
    assert [float(row["ttft_p50_ms"]) for row in rows] == [point.streaming.ttft_p50_ms for point in points]
    assert {(row["queue_ms"], row["server_batch_per_step"]) for row in rows} == {("", "2.25")}


def test_runs_are_compared_by_the_measure_that_decides(folder, result, tmp_path):
    other = Store(tmp_path / "other", RUN)
    for point in result.points:
        other.add(replace(point, raw=""))
    (comparison,) = comparison_page.write([folder, tmp_path / "other"], tmp_path / "comparison.html")
    decides = limited_measures(comparison.results[0])[0]
    name = {"ttft": "TTFT", "gap": "longest gap"}[decides]
    assert f"{name} p99, ms" in (tmp_path / "comparison.html").read_text()


@pytest.mark.parametrize(
    ("queue_ms", "compute_ms", "kept"),
    [(0.01, 0.3, False), (900.0, 1100.0, True), (None, None, False)],
    ids=["it answers from threads", "it answers within execute", "without statistics"],
)
def test_times_of_the_server_are_shown_where_they_cover_the_answers(result, queue_ms, compute_ms, kept):
    point = replace(result.points[0], mean_ms=2200.0, queue_ms=queue_ms, compute_ms=compute_ms)
    (shown,) = without_empty_times(replace(result, points=(point,))).points
    assert (shown.steps, shown.queue_ms) == (((STEP,), queue_ms) if kept else ((), None))
    ordinary = replace(point, streaming=None)
    assert without_empty_times(replace(result, points=(ordinary,))).points == (ordinary,)


def test_measures_with_a_limit_are_shown_and_the_deciding_one_first(result):
    assert measures(result) == ["ttft", "itl", "gap"]
    assert limited_measures(replace(result, decided_by=SLOS[1])) == ["gap", "ttft"]
    assert limited_measures(replace(result, decided_by=None)) == ["ttft", "gap"]
    whole = summarise((), (Slo.parse("p99=1s"),), model="m", server="h:1", base_seed=0)
    assert measures(whole) == limited_measures(whole) == [""]


def drawn(picture) -> Figure:
    figure = Figure()
    picture.draw(figure, False)
    return figure


def record() -> Record:
    """The first of two streams ends well, the second is cancelled."""
    due_s, first_s, done_s = np.array([1.0, 2.0]), np.array([1.5, 2.1]), np.array([4.0, 3.0])
    return Record(
        due_s, due_s, done_s, np.array([0, CANCELLED], np.uint8),
        first_s=first_s, gap_s=np.array([2.0, 0.4]), parts=np.array([4, 3], np.uint32),
        timelines={0: np.array([1.5, 1.75, 3.75, 4.0]), 1: np.array([2.1, 2.5, 2.6])},
    )  # fmt: skip


def test_time_lines_begin_when_a_request_is_due(result):
    point: Point = result.points[0]
    picture = draw_timelines(result, point, record())
    assert picture is not None
    (axes,) = drawn(picture).axes
    assert [bar.get_x() for bar in axes.patches] == pytest.approx([0.75, 0.1])
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([2.0, 0.4])
    waits = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 2.5]
    assert np.ravel(waits) == pytest.approx([0, 0.5, 0, 0.1])
    (cancelled,) = [line for line in axes.lines if line.get_marker() == "D"]
    assert np.ravel(cancelled.get_data()) == pytest.approx([1.0, 1])
    assert draw_timelines(result, point, replace(record(), timelines={})) is None


def test_the_distribution_is_that_of_the_measure(result):
    picture = distribution(result, [(result.points[0], replace(record(), status=np.zeros(2, np.uint8)))], "itl")
    assert picture is not None
    curve, *limits = drawn(picture).axes[0].lines
    assert sorted(set(curve.get_xdata())) == pytest.approx([450.0, 2500 / 3])
    assert not limits  # no SLO is about it


def test_answers_of_one_part_are_quicker_than_all_that_the_distribution_shows(result):
    one_part = replace(record(), status=np.zeros(2, np.uint8), parts=np.array([1, 4], np.uint32))
    picture = distribution(result, [(result.points[0], one_part)], "itl")
    assert picture is not None
    (curve,) = drawn(picture).axes[0].lines
    assert curve.get_ydata().max() == 0.5
