"""The race on recorded tables: it finds the best configuration with few probes, and bears failures and Ctrl-C."""

from __future__ import annotations

import functools
import statistics
from dataclasses import replace

import numpy as np
import pytest
from tuning_replay import TABLES, Replay, Table, point_at, quick_search, random_search

from loadtests.records.point import Probe
from loadtests.search.certificate import certificates
from loadtests.slo import Slo
from loadtests.tuning.objective import Objective
from loadtests.tuning.result import summarise
from loadtests.tuning.space import COMMITTED

NAMES = sorted(path.stem for path in TABLES.glob("*.json"))
SIMULATED = ("batch-friendly", "cache-limited", "constant", "exponential")
SLO = Slo.parse("p99=50ms")
BUDGET_S = 200.0
CONFIRMED = "constant"
OTHERS = 20
"""Runs of the other searches, whose luck differs."""


@functools.cache
def replayed(name):
    """A race on a table, and its turns."""
    replay = Replay(Table.read(name), SLO)
    return replay, replay.race(budget_s=BUDGET_S, confirm=name == CONFIRMED)


def found_share(name):
    replay, race = replayed(name)
    return replay.table.capacity_per_s[race.leader] / replay.table.best_per_s


def test_the_four_simulated_servers_are_recorded():
    assert set(SIMULATED) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_at_least_97_percent_of_the_best_in_at_most_15_percent_of_the_probes(name):
    replay, _ = replayed(name)
    assert found_share(name) >= 0.97
    assert len(replay.turns) <= 0.15 * replay.table.grid_probes


@pytest.mark.parametrize("search", [random_search, quick_search], ids=["random", "Model Analyzer's quick search"])
def test_other_searches_find_less_with_the_same_probes(search):
    ours = statistics.fmean(found_share(name) for name in NAMES)
    theirs = []
    for name in NAMES:
        replay, _ = replayed(name)
        for seed in range(OTHERS):
            found = search(replay.table, len(replay.turns), np.random.default_rng(seed))
            theirs.append(found / replay.table.best_per_s)
    assert ours > statistics.fmean(theirs) + 0.02


def test_the_gain_has_an_interval_that_holds_the_true_one():
    replay, race = replayed(CONFIRMED)
    ratio, low, high = race.gain()
    true = replay.table.capacity_per_s[race.leader] / replay.table.capacity_per_s[COMMITTED]
    assert low < ratio < high
    assert low <= true <= high


def test_winner_and_committed_configuration_are_confirmed_with_seeds_of_their_own():
    replay, race = replayed(CONFIRMED)
    assert all(certificates(race.arms[each].points) for each in (race.leader, COMMITTED))
    seeds = [turn.probe.seed for turn in replay.turns]
    assert len(set(seeds)) == len(seeds)


def test_leader_and_challenger_take_turns():
    replay, race = replayed(CONFIRMED)
    challenger = next(each for each in race.arms if each != COMMITTED)
    first = next(n for n, turn in enumerate(replay.turns) if turn.configuration == challenger)
    pattern = [turn.configuration == challenger for turn in replay.turns[first - 1 : first + 3]]
    assert pattern == [False, True, True, False]


def test_a_configuration_that_does_not_load_is_a_row_with_its_reason():
    table = Table.read(CONFIRMED)
    best = max(table.predictions, key=lambda each: each.value).configuration
    replay = Replay(table, SLO, failing={best: "out of memory"})
    race = replay.race(budget_s=60.0, confirm=False)
    assert race.leader not in (best, COMMITTED)
    result = summarise(race, model="model", objective="rate", bottleneck="model")
    assert next(row for row in result.rows if row.configuration == str(best)).outcome == "out of memory"
    assert sum(turn.configuration == best for turn in replay.turns) == 1


def test_an_slo_that_nothing_meets_ends_soon_and_names_the_nearest():
    table = Table.read(CONFIRMED)
    none = Table(dict.fromkeys(table.capacity_per_s, 0.5), table.predictions)
    race = Replay(none, SLO).race(budget_s=60.0)
    result = summarise(race, model="model", objective="rate", bottleneck="model")
    assert not result.meets_slo
    assert result.nearest
    assert "the best" not in {row.outcome for row in result.rows}
    assert len(race.arms) < 10


def test_every_configuration_has_a_row_with_a_reason():
    replay, race = replayed(CONFIRMED)
    result = summarise(race, model="model", objective="rate", bottleneck="model")
    assert len(result.rows) == len(replay.table.capacity_per_s)
    assert all(row.outcome for row in result.rows)
    assert result.rows[0].measured == max(row.measured or 0.0 for row in result.rows)
    assert result.gain_shown


def test_a_gain_that_chance_explains_is_not_shown():
    table = Table.read(CONFIRMED)
    alike = Table(dict.fromkeys(table.capacity_per_s, 300.0), table.predictions)
    race = Replay(alike, SLO).race(budget_s=40.0, confirm=False)
    assert not summarise(race, model="model", objective="rate", bottleneck="model").gain_shown


def test_the_objectives_are_understood_and_scored():
    rate = Objective.parse("rate", (SLO,))
    cost = Objective.parse("cost", (SLO,), lambda _: 4.0)
    latency = Objective.parse("latency-at=200/s", (SLO,))
    assert (rate.scaled(COMMITTED, 100.0), cost.scaled(COMMITTED, 100.0)) == (100.0, 25.0)
    assert latency.at_rate_per_s == 200.0
    assert latency.score(0.02) == pytest.approx(50.0)


def test_a_server_that_falls_behind_before_a_request_is_late_lies_between_its_probes():
    met, behind = (point_at(Probe(n, "refine", rate, 200, n), SLO, 1000.0) for n, rate in enumerate((100.0, 200.0)))
    assert Objective((SLO,)).standing(COMMITTED, [met]) is None
    found = Objective((SLO,)).standing(COMMITTED, [met, replace(behind, passes=False)])
    assert (found.low, found.high) == (100.0, 200.0)
    assert 100.0 < found.value < 200.0
