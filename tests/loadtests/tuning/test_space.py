"""The space of `fathom tune`: what machine and models leave room for, and what a file may name."""

from __future__ import annotations

import pytest

from loadtests.errors import BadRequestError
from loadtests.tuning.space import COMMITTED, Configuration, Machine, Step, default_space, read_space

KNOBS = {
    "instances": 2, "max_batch": 32, "preferred": 8, "delay_ms": 0, "queue_policy": "bounded", "intra_threads": 1,
    "inter_threads": 1, "rows_per_run": "auto",
}  # fmt: skip
NET = Step("net", "onnxruntime", KNOBS)
TOKENS = Step("tokens", "python", {"instances": 2, "pad_to_multiple_of": 16})
MACHINE = Machine(cores=4, memory_mib=8000)


def values(space, name):
    return next((each.values for each in space.dimensions if each.name == name), None)


@pytest.mark.parametrize(
    ("step", "machine", "name", "expected"),
    [
        (NET, MACHINE, "net.instances", (2, 1, 3, 4)),  # as many as there are cores
        (NET, Machine(16, 8000), "net.instances", (2, 1, 4, 8, 16)),  # many cores: powers of two
        (Step("net", "onnxruntime", KNOBS, weights_mib=600), MACHINE, "net.instances", (2, 1)),  # in half of the memory
        (NET, MACHINE, "net.preferred", (8, 0, 2, 4, 16)),  # the committed size first, below the largest batch
        (Step("net", "onnxruntime", KNOBS, largest_batch=8), MACHINE, "net.preferred", (8, 0, 2, 4)),  # the graph's
        (NET, MACHINE, "net.max_batch", None),  # a smaller one would refuse what clients send today
        (NET, MACHINE, "net.intra_threads", (1, 2, 4)),
        (Step("net", "onnxruntime", KNOBS, fixed_sizes=False), MACHINE, "net.rows_per_run", ("auto", "off", 1, 4)),
        (TOKENS, MACHINE, "tokens.pad_to_multiple_of", (16, 8, 32)),
        (Step("net", "tensorrt", {"instances": 1, "cuda_graphs": "off"}, on_gpu=True), Machine(8, 8000, 2),
         "net.cuda_graphs", ("off", "on")),
    ],
)  # fmt: skip
def test_the_bounds_come_from_machine_and_graph(step, machine, name, expected):
    assert values(default_space([step], machine), name) == expected


def test_instances_times_threads_stay_within_the_cores():
    space = default_space([NET], MACHINE)
    products = {int(k["instances"]) * int(k["intra_threads"]) for k in (each.of(NET) for each in space.all())}
    assert max(products) == 4


def test_a_space_has_each_configuration_once_and_the_committed_one_first():
    found = list(default_space([NET, TOKENS], MACHINE).all())
    assert found[0] == COMMITTED
    assert len(found) == len(set(found))


def test_a_configuration_is_the_same_after_json_and_forgets_what_is_committed():
    dimension = default_space([NET], MACHINE).dimensions[0]
    changed = COMMITTED.with_value(dimension, 1)
    assert Configuration.from_json(changed.to_json()) == changed
    assert changed.with_value(dimension, 2) == COMMITTED


def test_a_file_names_what_varies_and_all_else_stays():
    space = read_space("[net]\ninstances = [1, 4]\nmax_batch = [16]", [NET, TOKENS], MACHINE, "space.toml")
    assert {each.name: each.values for each in space.dimensions} == {
        "net.instances": (2, 1, 4),
        "net.max_batch": (32, 16),
    }


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("[net", NET),  # not TOML
        ("[nett]\ninstances = [1]", NET),  # no such step
        ("instances = [1]", NET),  # no table
        ("[net]\nthreads = [1]", NET),  # no such knob
        ("[net]\ninstances = 1", NET),  # no list
        ("[net]\ninstances = []", NET),  # an empty one
        ("[net]\ninstances = [0]", NET),  # no instance at all
        ("[net]\ninstances = [1.5]", NET),
        ("[net]\ninstances = ['two']", NET),
        ("[net]\nqueue_policy = ['open']", NET),
        ("[net]\ndelay_ms = [-1]", NET),
        ("[net]\npreferred = [64]", NET),  # above max_batch
        ("[net]\nmax_batch = [64]", Step("net", "onnxruntime", KNOBS, largest_batch=32)),  # above the graph's
        ("[net]\ninstances = [2]", NET),  # one point: nothing to compare
        ("", NET),
    ],
)
def test_a_file_that_no_server_could_follow_is_refused(text, step):
    with pytest.raises(BadRequestError) as caught:
        read_space(text, [step], MACHINE, "space.toml")
    assert caught.value.field == "space"


def test_a_model_that_has_nothing_to_vary_is_refused():
    with pytest.raises(BadRequestError):
        default_space([Step("net", "other", {"instances": 1}, weights_mib=5000)], MACHINE)
