"""Laws of arrivals: their gaps, their rates, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from queueing import sojourn_s
from simulated import run_search

from loadtests.errors import BadRequestError, InputFileError
from loadtests.records.record import percentile
from loadtests.search.estimate import estimate
from loadtests.slo import Slo
from loadtests.workload.arrivals import CONSTANT, POISSON, describe_arrivals, parse_arrivals
from loadtests.workload.schedule import poisson
from loadtests.workload.variability import Variability

LAWS = {"poisson": 1.0, "constant": 0.0, "gamma:cv=2": 2.0, "gamma:cv=0.5": 0.5}
BURSTS = np.cumsum(np.tile([0.9, 0.02, 0.02, 0.02, 0.04], 40))
"""Five together every second: the cv of the gaps is 1.75."""


@pytest.fixture
def recorded(tmp_path):
    def write(offsets_s):
        path = tmp_path / "trace.csv"
        path.write_text("".join(f"{offset_s}\n" for offset_s in offsets_s))
        return parse_arrivals(str(path))

    return write


@pytest.mark.parametrize("law", LAWS)
def test_a_law_has_its_variability_at_every_rate_and_follows_from_the_seed(law):
    arrivals = parse_arrivals(law)
    offsets_s = arrivals.at_rate(500, seed=1, count=50_000)
    found = Variability.of(offsets_s)
    assert np.diff(offsets_s).mean() == pytest.approx(1 / 500, rel=0.02)
    assert found.cv == pytest.approx(LAWS[law], abs=0.03)
    assert found.index_of_dispersion == pytest.approx(LAWS[law] ** 2, rel=0.25, abs=0.01)
    assert np.array_equal(offsets_s, arrivals.at_rate(500, seed=1, count=50_000))
    assert law == "constant" or not np.array_equal(offsets_s, arrivals.at_rate(500, seed=2, count=50_000))


def test_poisson_and_constant_are_those_of_before():
    assert np.allclose(POISSON.at_rate(200, seed=7, count=1000), poisson(200, seed=7, count=1000))
    assert CONSTANT.at_rate(4, seed=0, count=3).tolist() == [0.0, 0.25, 0.5]


@pytest.mark.parametrize("law", [*LAWS, "gamma:cv=10"])
def test_a_rate_that_varies_has_its_requests_where_it_is_high(law):
    offsets_s = parse_arrivals(law).varying(lambda at_s: 4000 * at_s, 10, seed=2)
    assert np.all(np.diff(offsets_s) >= 0)
    assert 0 <= offsets_s[0] <= offsets_s[-1] <= 10
    assert len(offsets_s) == pytest.approx(200_000, rel=0.06)
    assert np.mean(offsets_s < 5) == pytest.approx(0.25, abs=0.03)  # half of the time holds a quarter of the ramp


@pytest.mark.parametrize("law", LAWS)
def test_gaps_without_end_have_the_mean_one(law):
    gaps = np.fromiter(itertools.islice(parse_arrivals(law).gaps(seed=3), 20_000), np.float64)
    assert gaps.mean() == pytest.approx(1, rel=0.05)
    assert gaps.std() == pytest.approx(LAWS[law], rel=0.05, abs=1e-9)


def test_a_recording_is_replayed_at_the_wanted_rate_from_a_place_of_the_seed(recorded):
    arrivals = recorded(BURSTS)
    assert arrivals.name == "trace.csv"
    for count in (1, 20, 1000):  # a stretch of it, and five times all of it
        offsets_s = arrivals.at_rate(50, seed=1, count=count)
        assert len(offsets_s) == count
        assert offsets_s[0] == 0
    assert np.diff(offsets_s).mean() == pytest.approx(1 / 50, rel=0.02)
    assert Variability.of(offsets_s).cv == pytest.approx(1.75, abs=0.02)
    starts = {tuple(np.round(arrivals.at_rate(50, seed=seed, count=5), 6)) for seed in range(20)}
    assert len(starts) == 5  # one for each place in the pattern
    assert len(arrivals.varying(lambda at_s: np.full_like(at_s, 50.0), 10, seed=1)) == 500
    gaps = list(itertools.islice(arrivals.gaps(seed=1), 1990))
    assert gaps[:199] == gaps[199:398]
    assert np.mean(gaps) == pytest.approx(1)


def test_a_recording_tells_how_it_varies_and_the_closest_law(recorded):
    found = recorded(parse_arrivals("gamma:cv=2").at_rate(30, seed=4, count=4000)).trace.variability
    assert (found.arrivals, found.cv, found.index_of_dispersion) == (
        4000, pytest.approx(2, rel=0.1), pytest.approx(4, rel=0.4)
    )  # fmt: skip
    assert parse_arrivals(found.closest).cv == pytest.approx(2, rel=0.1)
    assert recorded(np.arange(50) / 7).trace.variability.closest == "constant"
    assert recorded(np.arange(50) / 7).trace.variability.index_of_dispersion is None  # too few to count in windows
    day = parse_arrivals("poisson").varying(lambda at_s: 100 + 99 * np.sin(at_s / 10), 120, seed=5)
    assert Variability.of(day).index_of_dispersion > 4 * Variability.of(day).cv ** 2


@pytest.mark.parametrize(
    "law",
    ["", "gauss", "gamma", "gamma:2", "poisson:5"]
    + [f"gamma:cv={cv}" for cv in ("0", "1e-300", "-2", "11", "inf", "nan", "x", "")],
)
def test_other_laws_are_refused(law):
    with pytest.raises(BadRequestError) as refused:
        parse_arrivals(law)
    assert refused.value.field == "arrivals"
    assert repr(law) in str(refused.value)


@pytest.mark.parametrize("offsets_s", [[3.0], [3.0, 3.0, 3.0], []])
def test_a_recording_without_a_rate_is_refused(recorded, tmp_path, offsets_s):
    with pytest.raises(InputFileError) as refused:
        recorded(offsets_s)
    assert refused.value.path == tmp_path / "trace.csv"


def test_a_recording_that_is_not_there_is_no_unknown_law(tmp_path):
    with pytest.raises(InputFileError):
        parse_arrivals(str(tmp_path / "none.csv"))


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("poisson", "Poisson arrivals"),
        ("gamma:cv=2", "gamma:cv=2 arrivals"),
        ("trace.csv", "arrivals of trace.csv"),
    ],
)
def test_results_name_their_arrivals(name, described):
    assert describe_arrivals(name) == described


def test_bursts_make_a_queue_longer_and_a_metronome_empties_it():
    p99_s = [
        percentile(sojourn_s(parse_arrivals(law).at_rate(70, seed=6, count=50_000), np.full(50_000, 0.01)), 0.99)
        for law in ("constant", "gamma:cv=0.5", "poisson", "gamma:cv=2")
    ]
    assert p99_s[0] == pytest.approx(0.01)
    assert p99_s == sorted(p99_s)
    assert p99_s[3] > 2 * p99_s[2]


@pytest.mark.parametrize(("law", "capacity_per_s"), [("poisson", 62.7), ("gamma:cv=1.5", 33.5)])
def test_a_search_finds_the_capacity_for_its_arrivals(law, capacity_per_s):
    """Of one server with 10 ms a request; computed from 800,000 requests."""
    slo = Slo.parse("p99=60ms")
    fitted = estimate(run_search(slo, 0.01, budget_s=180, seed=1, arrivals=parse_arrivals(law)), [slo])
    assert fitted.rate_per_s == pytest.approx(capacity_per_s, rel=0.25)
