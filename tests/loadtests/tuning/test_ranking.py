"""The ranking: which configurations are predicted, which are alike, and what measurements teach."""

from __future__ import annotations

import math

import pytest

from loadtests.tuning.ranking import Prediction, Ranking, group, rank
from loadtests.tuning.space import COMMITTED, Configuration, Machine, Step, read_space

MACHINE = Machine(4, 8000)
STEPS = [
    Step("net", "onnxruntime", {"instances": 1, "max_batch": 8, "preferred": 0, "intra_threads": 1}),
    Step("tokens", "python", {"instances": 1}),
]
SPACE = read_space("[net]\ninstances=[2,4]\npreferred=[4]\n[tokens]\ninstances=[2,3]", STEPS, MACHINE, "space")


def changed(**knobs):
    return Configuration(tuple(("net", knob, value) for knob, value in sorted(knobs.items())))


def test_the_bottleneck_varies_first_and_the_others_on_its_best():
    asked = []

    def predict(configuration):
        asked.append(configuration)
        knobs = configuration.of(STEPS[0])
        return 100.0 * knobs["instances"] + 10.0 * knobs["preferred"] + 5.0 * configuration.of(STEPS[1])["instances"]

    found = rank(SPACE, predict, ["net", "tokens"])
    assert found[0].configuration == changed(instances=4, preferred=4).with_value(SPACE.dimensions[2], 3)
    assert len(asked) == len(set(asked)) < len(SPACE)


def test_equal_predictions_with_equal_batch_times_are_one_group_led_by_the_simplest():
    same_times = [Prediction(changed(preferred=4, delay_ms=2), 101.0), Prediction(changed(preferred=4), 100.5)]
    other_times = [Prediction(changed(instances=2), 100.8)]
    groups = group([*same_times, *other_times, Prediction(COMMITTED, 50.0)])
    assert [[each.configuration for each in members] for members in groups] == [
        [changed(preferred=4), changed(preferred=4, delay_ms=2)],
        [changed(instances=2)],
        [COMMITTED],
    ]


def test_a_prediction_that_is_not_known_is_in_no_group():
    assert group([Prediction(COMMITTED, math.nan), Prediction(changed(instances=2), 0.0)]) == []


def ranking():
    return Ranking(
        [
            Prediction(COMMITTED, 100.0),
            Prediction(changed(instances=2), 180.0),
            Prediction(changed(instances=4), 200.0),
            Prediction(changed(instances=4, preferred=4), 190.0),
            Prediction(changed(preferred=4), 60.0),
        ]
    )


def test_the_first_measurement_corrects_all_predictions():
    learnt = ranking()
    learnt.learn(COMMITTED, 50.0)
    assert learnt.expected(changed(instances=4)) == pytest.approx(100.0, rel=0.1)


def test_later_ones_correct_those_with_the_same_batch_times_most():
    learnt = ranking()
    learnt.learn(COMMITTED, 100.0)
    learnt.learn(changed(instances=4), 100.0)
    assert learnt.expected(changed(instances=4, preferred=4)) < 0.75 * 190
    assert learnt.expected(changed(instances=2)) > 0.6 * 180


def test_only_what_can_win_is_a_contender_and_the_best_comes_first():
    learnt = ranking()
    learnt.learn(COMMITTED, 100.0)
    assert learnt.contenders(100.0) == [changed(instances=4), changed(instances=4, preferred=4), changed(instances=2)]
    learnt.learn(changed(instances=4), 200.0)
    assert changed(preferred=4) not in learnt.contenders(200.0)


def test_a_change_that_disappoints_wherever_it_is_measured_rules_out_what_else_has_it():
    knobs = [{"instances": instances, "intra_threads": threads} for instances in (2, 4) for threads in (2, 3, 4, 5)]
    learnt = Ranking([Prediction(COMMITTED, 100.0), *(Prediction(changed(**each), 100.0) for each in knobs)])
    learnt.learn(COMMITTED, 100.0)
    for threads in (2, 3, 4):
        learnt.learn(changed(instances=2, intra_threads=threads), 50.0)
        learnt.learn(changed(instances=4, intra_threads=threads), 95.0)
    assert learnt.contenders(150.0) == [changed(instances=4, intra_threads=5)]


def test_the_error_is_the_spread_of_what_was_measured():
    good, bad = ranking(), ranking()
    for measured, factor in ((good, 1.0), (bad, 0.5)):
        measured.learn(COMMITTED, 100.0)
        measured.learn(changed(instances=4), 200.0 * factor)
    assert good.error < 0.15 < bad.error


def test_a_failure_rules_out_what_shares_every_change_that_may_be_to_blame():
    learnt = ranking()
    learnt.learn(changed(preferred=4), 60.0)
    learnt.fail(changed(instances=4, preferred=4), "out of memory")
    assert "out of memory" in learnt.why_not(changed(instances=4))
    assert not learnt.why_not(changed(instances=2))
