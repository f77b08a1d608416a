"""The committed figures of the benchmarks, and the page that is made from them."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import results
from benchmarks.claims import CLAIMS
from benchmarks.results import Measured
from benchmarks.row import from_repetitions


def test_the_page_shows_the_committed_figures():
    assert results.PAGE.read_text(encoding="utf-8") == results.page(results.read())


def test_every_claim_was_measured_and_says_when_and_where():
    found = results.read()
    assert set(found) == set(CLAIMS)
    for name, measured in found.items():
        assert measured.rows, name
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", measured.date), name
        assert re.fullmatch(r"[0-9a-f]{7,}\+?", measured.commit), name
        assert "cores" in measured.hardware, name


def test_figures_come_back_as_they_were_written(tmp_path: Path):
    measured = Measured.now([from_repetitions("ours / theirs", [1.0, 3.0, 2.0], unit="x", wanted="<= 1.5")])
    results.write({"idle": measured}, tmp_path / "results.json")
    assert results.read(tmp_path / "results.json") == {"idle": measured}


def test_a_section_names_the_command_the_result_and_its_bound():
    rows = [
        from_repetitions("ours / theirs", [1.0, 3.0, 2.0], unit="x", wanted="<= 1.5"),
        from_repetitions("requests", [12345.6], unit="/s"),
    ]
    text = results.page({"idle": Measured(tuple(rows), "2026-11-30", "abc1234", "a CPU, 2 cores")})
    assert "`python -m benchmarks idle`, 2026-11-30, commit abc1234, a CPU, 2 cores:" in text
    assert "| ours / theirs | 2 x | 1 to 3 | 3 | <= 1.5 | missed |" in text
    assert "| requests | 12,346 /s |  | 1 |  |  |" in text
