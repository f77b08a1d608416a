"""Before and after: simulated searches of queues whose capacities are known to differ, or not to."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from simulated import run_search
from simulated_turns import run_in_turns

from fathom.cli import main
from loadtests.errors import ResultsError
from loadtests.report import compare, comparison_page, prose
from loadtests.results.store import Run, Store, read_runs
from loadtests.search.turns import capacity_ratio
from loadtests.sizing import make_plan
from loadtests.slo import Slo

P99 = Slo.parse("p99=20ms")


def save(folder, points, *, model="queue", slo=P99, cpu="none", **settings):
    settings = {"unloaded_ms": 1.0, **settings}
    run = Run(model, "simulated:1", (slo,), 0, settings, None, {"cpu": cpu}, "2026-11-22T00:00")
    store = Store(folder, run)
    for point in points:
        store.add(replace(point, raw=""))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same queue twice (other seeds), and one that is a quarter faster."""
    base = tmp_path_factory.mktemp("runs")
    return [
        save(base / name, run_search(P99, service_s, budget_s=60, seed=seed))
        for name, service_s, seed in (("before", 0.001, 1), ("again", 0.001, 2), ("after", 0.0008, 3))
    ]


def test_a_faster_server_holds_significantly_more(folders):
    before, _, after = folders
    (found,) = compare.compare_folders([before, after])
    (change,) = found.changes
    assert change.finding == "more"
    assert change.ratio == pytest.approx(1.26, abs=0.1)  # 886/s and 1118/s
    low, high = change.interval
    assert 1 < low < 1.26 < high
    assert "after" in change.sentence
    assert "significant" in change.sentence
    (back,) = compare.compare_folders([after, before])[0].changes
    assert back.finding == "less"
    assert found.advice  # only runs in turns tell the model from the machine
    assert back.ratio == pytest.approx(1 / change.ratio)
    assert back.interval == pytest.approx((1 / high, 1 / low))


def test_the_same_server_twice_shows_no_difference(folders):
    (found,) = compare.compare_folders(folders[:2])
    assert found.changes[0].finding == "no difference shown"
    assert not found.advice


def test_several_runs_are_compared_with_the_first_on_one_page(folders, tmp_path):
    path = tmp_path / "new" / "page.html"
    (found,) = comparison_page.write(folders, path)
    assert [change.name for change in found.changes] == ["again", "after"]
    text = path.read_text()
    assert text.count("<svg") == 2
    assert "https://" not in text
    json.dumps(found.to_json(), allow_nan=False)


def test_without_an_estimate_a_certificate_decides(folders, tmp_path):
    fast = [point for point in run_search(P99, 0.0005, budget_s=60, seed=4) if point.verdict == "pass"]
    (found,) = compare.compare_folders([folders[0], save(tmp_path / "fast", fast)])
    change = found.changes[0]
    assert (change.finding, change.ratio) == ("more", None)
    (found,) = compare.compare_folders([folders[0], save(tmp_path / "short", fast[:1])])
    assert found.changes[0].finding == "unknown"


def test_the_priority_that_generators_really_had_is_a_difference(folders, tmp_path):
    points = read_runs(folders[0])[0].result.points
    other = save(tmp_path / "other", [replace(p, generator_priority="normal") for p in points])
    alike = save(tmp_path / "alike", [replace(p, generator_priority="real-time") for p in points])
    (change,) = compare.compare_folders([alike, other])[0].changes
    assert any("normal" in note and "real-time" in note for note in change.notes)


@pytest.fixture(scope="module")
def turns():
    """Two queues of which the second is a quarter faster, on a machine that becomes 20 % slower."""
    return run_in_turns(P99, (0.001, 0.0008), budget_s=40, seed=1, slower=0.2)


def save_turns(folder, turns, **settings):
    return [
        save(folder / side, points, turns="a1b2", side=side, **settings)
        for side, points in zip(("old", "new"), turns, strict=True)
    ]


def test_runs_in_turns_are_compared_by_their_turns_and_a_busy_machine_is_no_doubt(turns, tmp_path):
    folders = save_turns(tmp_path, turns, busy_before_share=0.9)
    (found,) = compare.compare_folders(folders)
    (change,) = found.changes
    assert (found.names, change.finding) == (("old", "new"), "more")
    assert tuple(change.interval) == capacity_ratio(*turns, [P99])[1:]
    assert any("90 %" in note for note in change.notes)
    assert not found.advice
    assert compare.compare_folders([folders[1], save(tmp_path / "alone", turns[0])])[0].advice  # not of these turns


def test_runs_in_turns_of_which_nothing_is_known_are_not_told_apart(turns, tmp_path):
    (found,) = compare.compare_folders(save_turns(tmp_path, [points[:3] for points in turns]))
    assert (found.changes[0].finding, found.changes[0].ratio) == ("unknown", None)


def test_late_generators_are_a_doubt_in_turns_too(turns, tmp_path):
    invalid = [[replace(p, verdict="invalid") if p.number < 12 else p for p in points] for points in turns]
    assert compare.compare_folders(save_turns(tmp_path, invalid))[0].changes[0].finding == "unknown"


@pytest.mark.parametrize(
    ("order", "findings", "why"),
    [
        (["before", "after", "faster", "again"], ["more", "more", "no difference shown"], "a steady machine"),
        (["before", "after", "changed"], ["unknown", "unknown"], "the machine became faster"),
    ],
)
def test_measuring_the_same_again_shows_whether_the_machine_changed(folders, tmp_path, order, findings, why):
    """A1 B1 B2 A2: as people measure in turns by hand."""
    points = dict(
        zip(("before", "again", "after"), (read_runs(each)[0].result.points for each in folders), strict=True)
    )
    points |= {"faster": points["after"], "changed": points["after"]}
    runs = [
        save(tmp_path / name, points[name], model_config_sha256=("22" if name in ("after", "faster") else "11") * 32)
        for name in order
    ]
    (found,) = compare.compare_folders(runs)
    assert [change.finding for change in found.changes] == findings, why
    assert any("before and changed" in note for note in found.changes[0].notes) == ("changed" in order)


DOUBTED = {
    "one began on a busy machine": {"busy_before_share": 1.0},
    "one was resumed on another machine": {"resumed": ["cores 2, then 64"]},
}


@pytest.mark.parametrize("case", DOUBTED)
def test_a_run_in_doubt_concludes_nothing_and_every_reader_of_it_says_why(folders, tmp_path, capsys, case):
    before, after = (read_runs(folder)[0].result.points for folder in (folders[0], folders[2]))
    doubted = save(tmp_path / "doubted", before, **DOUBTED[case])
    (doubt,) = prose.doubts(read_runs(doubted)[0].result)
    assert doubt in prose.warn(read_runs(doubted)[0].result)  # what the report shows
    for pair in ([doubted, folders[2]], [folders[2], doubted]):
        (change,) = compare.compare_folders(pair)[0].changes
        assert change.finding == "unknown"
        assert change.ratio is not None
        assert any("doubted" in note and doubt.rstrip(".") in note for note in change.notes)
    fast = save(tmp_path / "fast", [point for point in after if point.verdict == "pass"], **DOUBTED[case])
    assert compare.compare_folders([folders[0], fast])[0].changes[0].finding == "unknown"
    assert make_plan(read_runs(doubted)[0].result, 1000.0).doubts == (doubt,)
    assert main(["plan", "--rate", "1000", "--report", str(doubted)]) == 0
    assert doubt in capsys.readouterr().out


def test_late_generators_are_a_doubt(folders, tmp_path):
    points = read_runs(folders[2])[0].result.points
    invalid = [replace(p, verdict="invalid") if p.phase in ("double", "bisect") else p for p in points]
    late = save(tmp_path / "late", invalid)
    assert compare.compare_folders([folders[0], late])[0].changes[0].finding == "unknown"


def test_other_hardware_is_no_doubt_but_not_called_significant_either(folders, tmp_path):
    other = save(tmp_path / "other", read_runs(folders[2])[0].result.points, cpu="fast")
    (change,) = compare.compare_folders([folders[0], other])[0].changes
    assert change.finding == "more"
    assert "significant" not in change.sentence
    assert any("cpu" in note for note in change.notes)


@pytest.mark.parametrize(
    ("changed", "values"),
    [({"slo": Slo.parse("p99=30ms")}, ["p99=20ms", "p99=30ms"]), ({"model": "cat"}, ["queue", "cat"])],
    ids=["another SLO", "another model"],
)
def test_refuses_what_cannot_be_compared(folders, tmp_path, capsys, changed, values):
    other = save(tmp_path / "other", [], **changed)
    with pytest.raises(ResultsError):
        compare.compare_folders([folders[0], other])
    assert main(["report", "--compare", str(folders[0]), str(other)]) == 2
    told = capsys.readouterr().err
    assert all(value in told for value in values)
    assert told.count("\n") == 1


def test_a_run_is_not_compared_with_itself_by_whatever_path(folders):
    for other in (folders[0], folders[0] / "queue", folders[0] / "queue" / "latest"):
        with pytest.raises(ResultsError) as refused:
            compare.compare_folders([folders[0], other])
        assert refused.value.path == (folders[0] / "queue" / "latest").resolve()


@pytest.mark.parametrize(
    "arguments", [["report"], ["report", "x", "--compare", "y", "z"], ["report", "--compare", "y"], ["report", "none"]]
)
def test_unusable_arguments_are_one_line(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
