"""Predictions from tables of batch times, and which tables a space needs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from small_models import write_double
from tuning_replay import point_at

from fathom.tuning.models import TunedModel
from fathom.tuning.times import Times, timed, variants
from loadtests.records.point import Probe, StepPoint
from loadtests.simulation.times import BatchTimes
from loadtests.slo import Slo
from loadtests.tuning.objective import Objective
from loadtests.tuning.space import COMMITTED, Configuration, Machine, read_space

CONFIG = """
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching { }
"""
SLO = Slo.parse("p99=50ms")
MACHINE = Machine(cores=2, memory_mib=8000)


def changed(**knobs):
    return Configuration(tuple(("double", knob, value) for knob, value in sorted(knobs.items())))


@pytest.fixture
def times(tmp_path):
    """Two threads halve the time of a batch; two instances do not disturb each other."""
    write_double(tmp_path / "double", CONFIG)
    tuned = TunedModel.read("double", tmp_path, None, MACHINE, embedded=False)
    text = "[double]\ninstances=[1,2]\nintra_threads=[1,2]\ndelay_ms=[0,20]\npreferred=[0,4]"
    made = Times(tuned, read_space(text, tuned.steps, MACHINE, "space"))
    made.tables = {
        ("double", ()): {2: BatchTimes.constant(0.008, 0.001)},
        ("double", (("intra_threads", 2),)): {2: BatchTimes.constant(0.004, 0.0005)},
    }
    made.shapes[()] = {"double": [2, 2]}
    return made


def test_there_is_a_table_for_each_set_of_knobs_that_decides_batch_times(times):
    keys = [timed(each, "double") for each in variants(times.space, "double")]
    assert keys == [(), (("intra_threads", 2),)]


def test_more_instances_and_quicker_batches_are_predicted_to_sustain_more(times):
    rate = Objective((SLO,))
    alone, two, threads = (
        times.predict(each, rate) for each in (COMMITTED, changed(instances=2), changed(intra_threads=2))
    )
    assert two > 1.5 * alone
    assert threads > 1.5 * alone


def test_a_lone_request_pays_for_the_delay(times):
    latency = Objective((SLO,), at_rate_per_s=10.0)
    assert times.predict(COMMITTED, latency) > 1.5 * times.predict(changed(delay_ms=20), latency)


def test_what_has_no_table_is_not_predicted(times):
    del times.tables["double", (("intra_threads", 2),)]
    assert math.isnan(times.predict(changed(intra_threads=2), Objective((SLO,))))


def test_an_slo_that_is_out_of_reach_still_gives_an_order(times):
    hopeless = Objective((Slo.parse("p99=1ms"),))
    assert 0 < times.predict(COMMITTED, hopeless) < times.predict(changed(intra_threads=2), hopeless)


def probed(times, *, server_cpu_s):
    """Times that learnt from a probe of 100 requests, in batches of 2, for 1 ms each in the generator."""
    step = StepPoint("double", 0, 0, 5.0, 0, 5.0, 2.0, 50, 100, 0, {"2": 50})
    point = point_at(Probe(0, "refine", 100.0, 100, 0), SLO, 1000.0)
    times.learn_handling(replace(point, steps=(step,), cpu_per_request_us=1000.0), server_cpu_s)
    return times


def test_what_requests_cost_besides_their_batches_is_the_rest_of_the_cpu_time(times):
    # A batch of 2 takes 10 ms on one core: 5 ms of the 9 + 1 ms of each request.
    assert probed(times, server_cpu_s=0.9).handling_s == pytest.approx(0.005)


def test_handling_requests_lowers_a_prediction_only_where_no_core_is_idle_meanwhile(times):
    rate, configurations = Objective((SLO,)), (COMMITTED, changed(instances=2))
    one, two = (times.predict(each, rate) for each in configurations)
    probed(times, server_cpu_s=0.6)
    one_now, two_now = (times.predict(each, rate) for each in configurations)
    assert one_now == pytest.approx(one)
    assert two_now < 0.8 * two


def test_a_probe_without_an_answer_changes_no_prediction(times):
    before = times.predict(COMMITTED, Objective((SLO,)))
    times.learn_handling(point_at(Probe(0, "refine", 100.0, 100, 0), SLO, 1000.0), 5.0)
    assert times.predict(COMMITTED, Objective((SLO,))) == before
