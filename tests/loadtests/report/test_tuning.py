"""The page of a tuning run and its headline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtests.errors import ResultsError
from loadtests.report import tuning
from loadtests.tuning.result import Row, TuningResult

CHANGES = {"net": {"instances": 2}}
RESULT = TuningResult(
    model="net",
    slo="p99=50ms",
    objective="rate",
    unit="requests/s",
    winner="net instances=2",
    changes=CHANGES,
    gain=(1.25, 1.1, 1.4),
    gain_shown=True,
    meets_slo=True,
    nearest="",
    rows=(
        Row("net instances=2", CHANGES, 130.0, 125.0, 118.0, 133.0, 110.0, 12, "the best"),
        Row("committed", {}, 100.0, 100.0, 95.0, 106.0, 90.0, 14, "the start"),
        Row("net instances=8", {"net": {"instances": 8}}, None, None, None, None, None, 0, "<out of memory>"),
    ),
    left_out=(("net.max_batch", "clients send larger ones"),),
    bottleneck="net",
    error=0.12,
    seed=0,
    budget_s=600.0,
    spent_s=400.0,
    ended="",
    settings={"cpu": "a CPU", "cores": 4},
)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (RESULT, ["net instances=2", "25 %", "+10 to +40 %"]),
        (replace(RESULT, gain=(1.05, 0.9, 1.2), gain_shown=False), ["no gain", "-10 to +20 %"]),
        (
            replace(RESULT, winner="committed", changes={}, gain=None, gain_shown=False),
            ["the committed configuration is the best", "2 measured"],
        ),
        (
            replace(RESULT, winner="committed", changes={}, gain=None, gain_shown=False, ended="the budget ended"),
            ["none is shown to be better than the committed configuration", "2 measured"],
        ),
        (replace(RESULT, winner="committed", changes={}, rows=RESULT.rows[1:]), ["longer --budget"]),
        (replace(RESULT, meets_slo=False, nearest="net, whose p99 is 80 ms"), ["p99=50ms", "p99 is 80 ms"]),
    ],
    ids=[
        "a gain",
        "a gain that chance explains",
        "the committed one is the best",
        "the committed one leads when the budget ends",
        "nothing was compared",
        "nothing meets the SLO",
    ],
)
def test_the_headline_gives_the_answer_with_its_interval(result, words):
    assert [word for word in words if word not in tuning.headline(result)] == []


def test_the_page_has_every_configuration_with_its_reason_and_a_picture(tmp_path):
    html = tuning.write(RESULT, tmp_path).read_text()
    assert all(row.configuration in html for row in RESULT.rows)
    assert "&lt;out of memory&gt;" in html
    assert "clients send larger ones" in html
    assert html.count("<svg") == 2  # wide and narrow


def test_a_run_that_measured_nothing_has_a_page_without_a_picture(tmp_path):
    nothing = replace(RESULT, rows=RESULT.rows[2:], meets_slo=False, gain=None)
    assert "<svg" not in tuning.write(nothing, tmp_path).read_text()


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError):
        tuning.write(RESULT, tmp_path / "file")
