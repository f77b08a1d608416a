"""Optimization profiles from config.pbtxt: batch, open axes, several profiles, and what is refused by name."""

from __future__ import annotations

import pytest

from export.config.config import parse
from export.engine.profiles import Shapes, profiles
from export.errors import EngineError
from export.recipe.recipe import Axes, AxisRange

IMAGE = 'max_batch_size: 32 input [ { name: "pixels" data_type: TYPE_UINT8 dims: [ 8, 8, 3 ] } ] '
TEXT = """
max_batch_size: 16
input [
  { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "mask" data_type: TYPE_INT64 dims: [ -1 ] }
]
"""
LENGTH = (AxisRange(1, 32, 256),)
TOKENS: Axes = {"ids": {1: LENGTH}, "mask": {1: LENGTH}}


@pytest.mark.parametrize(
    ("more", "tuned", "optimum"),
    [
        pytest.param("", None, 32, id="nothing said: the largest batch"),
        pytest.param("dynamic_batching { preferred_batch_size: [ 4, 8 ] }", None, 8, id="the largest preferred"),
        pytest.param("dynamic_batching { preferred_batch_size: [ 4, 8 ] }", 16, 16, id="a tuned batch wins"),
    ],
)
def test_the_batch_axis(more: str, tuned: int | None, optimum: int) -> None:
    (profile,) = profiles(parse(IMAGE + more), {}, tuned_batch=tuned)
    assert profile.shapes == {"pixels": Shapes((1, 8, 8, 3), (optimum, 8, 8, 3), (32, 8, 8, 3))}


def test_open_axes_come_from_the_recipe() -> None:
    (profile,) = profiles(parse(TEXT), TOKENS)
    assert profile.shapes == dict.fromkeys(("ids", "mask"), Shapes((1, 1), (16, 32), (16, 256)))


def test_without_a_batch_axis_every_axis_is_the_graph_s() -> None:
    config = parse('input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] } ]')
    (profile,) = profiles(config, {"x": {0: (AxisRange(2, 3, 5),)}})
    assert profile.shapes == {"x": Shapes((2, 4), (3, 4), (5, 4))}


def test_a_reshape_is_what_the_graph_sees() -> None:
    config = parse('max_batch_size: 4 input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } } ]')
    (profile,) = profiles(config, {})
    assert profile.shapes == {"x": Shapes((1,), (4,), (4,))}


def test_several_profiles_where_the_instances_list_them() -> None:
    listed = 'dynamic_batching { preferred_batch_size: [ 1, 16 ] } instance_group [ { profile: [ "0", "1" ] } ]'
    axes: Axes = {
        "ids": {1: (AxisRange(1, 16, 64), AxisRange(1, 128, 256))},
        "mask": {1: (AxisRange(1, 16, 64), AxisRange(1, 128, 256))},
    }
    small, large = profiles(parse(TEXT + listed), axes)
    assert small.shapes["ids"] == Shapes((1, 1), (1, 16), (16, 64))
    assert large.shapes["ids"] == Shapes((1, 1), (16, 128), (16, 256))
    assert small.to_json()["mask"] == {"minimum": (1, 1), "optimum": (1, 16), "maximum": (16, 64)}


@pytest.mark.parametrize(
    ("text", "axes", "tensor", "field", "found", "expected"),
    [
        pytest.param(TEXT, {"ids": {1: LENGTH}}, "mask", "axis_ranges", 0, 1, id="no range"),
        pytest.param(
            TEXT, {**TOKENS, "id": {1: LENGTH}}, "id", "axis_ranges", None, ["ids", "mask"], id="a range of no input"
        ),
        pytest.param(TEXT, {**TOKENS, "ids": {0: LENGTH}}, "ids", "max_batch_size", None, None, id="a batch range"),
        pytest.param(TEXT, {**TOKENS, "ids": {1: LENGTH * 2}}, "ids", "axis_ranges", 2, 1, id="too many ranges"),
        pytest.param(
            IMAGE + 'instance_group [ { profile: "1" } ] dynamic_batching { preferred_batch_size: [ 1, 2, 4 ] }',
            {},
            *(None, "dynamic_batching.preferred_batch_size", 3, 2),
            id="preferred sizes for another number of profiles",
        ),
        pytest.param(
            IMAGE + 'instance_group [ { profile: "a" } ]', {}, None, "instance_group.profile", "a", None, id="no index"
        ),
        pytest.param(
            IMAGE.replace("UINT8", "STRING"), {}, "pixels", "data_type", "TYPE_STRING", None, id="a type TensorRT lacks"
        ),
        pytest.param(
            *(IMAGE.replace("dims", "is_shape_tensor: true dims"), {}, "pixels", "is_shape_tensor", None, None),
            id="a shape tensor",
        ),
    ],
)
def test_refusals_name_the_tensor(
    text: str, axes: Axes, tensor: str | None, field: str, found: object, expected: object
) -> None:
    with pytest.raises(EngineError) as caught:
        profiles(parse(text), axes)
    error = caught.value
    assert (error.tensor, error.field, error.found, error.expected) == (tensor, field, found, expected)


def test_a_tuned_batch_that_is_never_served_is_refused() -> None:
    with pytest.raises(EngineError) as caught:
        profiles(parse(IMAGE), {}, tuned_batch=64)
    assert (caught.value.field, caught.value.found, caught.value.expected) == ("tuned_batch", 64, 32)


def test_a_range_out_of_order_is_refused() -> None:
    with pytest.raises(EngineError) as caught:
        AxisRange(8, 4, 16)
    assert caught.value.found == (8, 4, 16)
