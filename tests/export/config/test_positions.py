"""Where fields stand in a config.pbtxt."""

from __future__ import annotations

import pytest

from export.config.positions import Places
from export.errors import ConfigError

TEXT = """\
# a comment with { and "quotes"
name: "m"  max_batch_size: 8
input [
  { name: "a" dims: [ 1, 2 ] },
  { name: "b" dims: 3 dims: -1 }
]
dynamic_batching < preferred_batch_size: [ 4,
   8 ] >
parameters { key: "execution_mode" value: { string_value: "0" "1" } }
"""

PLACES = [
    ("name", 2, 1, '"m"', "a scalar"),
    ("max_batch_size", 2, 12, "8", "a second field on a line"),
    ("input[0].name", 4, 5, '"a"', "a field of a message in a list"),
    ("input[1]", 5, 3, '{ name: "b" dims: 3 dims: -1 }', "a message spans its braces"),
    ("input[0].dims[1]", 4, 26, "2", "a number in a list"),
    ("input[1].dims[1]", 5, 23, "-1", "a number of a field written twice"),
    ("dynamic_batching.preferred_batch_size[1]", 8, 4, "8", "angle brackets, and a list over two lines"),
    ('parameters["execution_mode"].value.string_value', 9, 45, '"0" "1"', "a map entry by key, a value of two strings"),
    ("input.dims", 4, 23, "1", "a path without indices means the first"),
]


@pytest.mark.parametrize(("path", "line", "column", "value", "why"), PLACES, ids=[row[-1] for row in PLACES])
def test_place_of_a_field(path: str, line: int, column: int, value: str, why: str) -> None:
    place = Places(TEXT)[path]

    assert (place.line, place.column) == (line, column)
    assert TEXT[place.start : place.end] == value


def test_line_of_a_field_that_is_not_written_is_that_of_the_field_around_it() -> None:
    places = Places(TEXT)

    assert places.line("dynamic_batching.default_queue_policy.max_queue_size") == 7
    assert places.line('parameters["unknown"]') is None
    assert "input[2]" not in places


BROKEN = [
    ('input [ { name: "a" ', 1, "an open message"),
    ('name "a" }', 1, "a closing brace too many"),
    ("max_batch_size:\n]", 2, "a field without a value"),
    ('name: "a\n', 1, "a string without an end"),
]


@pytest.mark.parametrize(("text", "line", "why"), BROKEN, ids=[row[-1] for row in BROKEN])
def test_text_that_is_not_text_format(text: str, line: int, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Places(text)

    assert caught.value.line == line
