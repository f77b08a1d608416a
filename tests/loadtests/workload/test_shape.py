"""Schedules as they are written on the command line."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from fathom.console.options import duration_s
from loadtests.errors import BadRequestError
from loadtests.workload.shape import FORMS, parse_shape


@pytest.mark.parametrize("text", FORMS)
def test_every_documented_form_is_a_schedule_of_its_seed(text):
    shape = parse_shape(text, 20)
    offsets_s = shape.offsets_s(1)
    assert np.array_equal(offsets_s, shape.offsets_s(1))
    assert np.all(np.diff(offsets_s) >= 0)
    assert 0 <= offsets_s[0] <= offsets_s[-1] <= 20
    assert np.histogram(offsets_s, bins=20, range=(0, 20))[0].max() <= 1.3 * shape.peak_per_s


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("poisson:200", 4000),
        ("constant:200", 4000),
        ("ramp:50-400", 4500),
        ("step:100,200,300", 4000),
        ("spike:100-900@10+5", 6000),
        ("sine:50-400/20", 4500),
    ],
)
def test_the_number_of_requests_is_the_area_under_the_rate(text, expected):
    assert len(parse_shape(text, 20).offsets_s(1)) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    "text", ["", "200", "poisson", "poisson:-1", "ramp:50", "step:", "step:1,,2", "spike:1-2", "sine:1-2/0", "cube:3"]
)
def test_refuses_what_is_not_understood(text):
    with pytest.raises(BadRequestError) as refused:
        parse_shape(text, 20)
    assert refused.value.field == "schedule"


def test_refuses_to_send_nothing():
    with pytest.raises(BadRequestError) as refused:
        parse_shape("poisson:0.0001", 1)
    assert refused.value.field == "duration_s"


@pytest.mark.parametrize(("text", "seconds"), [("180", 180), ("90s", 90), ("3m", 180), ("1.5h", 5400)])
def test_lengths_of_time_are_read(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "3 min", "soon", "nan"])
def test_other_lengths_of_time_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        duration_s(text)
