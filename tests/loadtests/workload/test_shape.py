"""Schedules as they are written on the command line."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.errors import BadRequestError
from loadtests.workload.arrivals import CONSTANT, POISSON, parse_arrivals
from loadtests.workload.shape import FORMS, parse_shape


@pytest.mark.parametrize("text", FORMS)
def test_every_documented_form_is_a_schedule_of_its_seed(text):
    shape = parse_shape(text, 20)
    offsets_s = shape.offsets_s(1)
    assert np.array_equal(offsets_s, shape.offsets_s(1))
    assert np.all(np.diff(offsets_s) >= 0)
    assert 0 <= offsets_s[0] <= offsets_s[-1] <= 20


@pytest.mark.parametrize(
    ("text", "early_share", "why"),
    [
        ("ramp:0-1000", 0.25, "half of the time holds a quarter of a ramp from zero"),
        ("step:100,300", 0.25, "the first of two equal steps has a quarter"),
        ("sine:0-1000/10", 0.5, "a whole period is symmetric"),
        ("spike:100-900@5+5", 0.1, "all of the burst is in the second half"),
    ],
)
def test_varying_rates_put_their_requests_where_the_rate_is(text, early_share, why):
    assert np.mean(parse_shape(text, 10).offsets_s(1) < 5) == pytest.approx(early_share, abs=0.03), why


def test_arrivals_are_chosen_for_every_shape():
    bursts = parse_arrivals("gamma:cv=3")
    assert parse_shape("ramp:0-1000", 10).arrivals == POISSON
    assert parse_shape("ramp:0-1000", 10, bursts).arrivals == bursts
    assert (
        parse_shape("constant:20", 10, CONSTANT).offsets_s(0).tolist()
        == parse_shape("20", 10, CONSTANT).offsets_s(1).tolist()
    )
    with pytest.raises(BadRequestError) as refused:
        parse_shape("poisson:20", 10, bursts)
    assert refused.value.field == "schedule"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200", 4000),
        ("poisson:200", 4000),
        ("constant:200", 4000),
        ("ramp:50-400", 4500),
        ("step:100,200,300", 4000),
        ("spike:100-900@10+5", 6000),
        ("spike:100-900@10s+5000ms", 6000),
        ("sine:50-400/20", 4500),
        ("sine:50-400/20s", 4500),
    ],
)
def test_the_number_of_requests_is_the_area_under_the_rate(text, expected):
    assert len(parse_shape(text, 20).offsets_s(1)) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":5",
        "poisson",
        "poisson:-1",
        "ramp:50",
        "step:",
        "step:1,,2",
        "spike:1-2",
        "sine:1-2/0",
        "sine:1s-2/9",
        "cube:3",
    ],
)
def test_refuses_what_is_not_understood(text):
    with pytest.raises(BadRequestError) as refused:
        parse_shape(text, 20)
    assert refused.value.field == "schedule"


@pytest.mark.parametrize("text", ["0", "poisson:0", "ramp:0-0", "poisson:0.0001"])
def test_refuses_to_send_nothing(text):
    with pytest.raises(BadRequestError) as refused:
        parse_shape(text, 1)
    assert refused.value.field == "duration_s"
