"""Recorded traces: what is read, and which line is named when something is wrong."""

from __future__ import annotations

import pytest

from loadtests.errors import BadRequestError
from loadtests.trace import read_trace


@pytest.fixture
def trace(tmp_path):
    def write(content: str):
        path = tmp_path / "trace.csv"
        path.write_text(content)
        return read_trace(path)

    return write


def test_offsets_are_shifted_to_zero_and_empty_lines_skipped(trace):
    found = trace("5.0\n5.5\n\n7.25\n")
    assert found.offsets_s.tolist() == [0.0, 0.5, 2.25]
    assert found.lines == (1, 2, 4)
    assert found.models == ()
    assert found.payloads is None
    assert found.duration_s == 2.25


@pytest.mark.parametrize(
    "content",
    ["offset_s,model,payload\n0,a,1\n0.5,b,0\n", "0,a,1\n0.5,b,0\n", "offset_s,payload,model\n0,1,a\n0.5,0,b\n"],
)
def test_model_and_payload_columns(trace, content):
    found = trace(content)
    assert found.models == ("a", "b")
    assert found.payloads.tolist() == [1, 0]


def test_the_first_column_may_have_any_name(trace):
    assert trace("timestamp,model\n10,a\n11,a\n").models == ("a", "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0.5\nnonsense\n", "line 2: 'nonsense' is not an offset"),
        ("0.5\n0.4\n", "line 2: offset 0.4 is before the one above it"),
        ("0.5\nnan\n", "line 2: offset nan is not a number"),
        ("offset_s,colour\n1,red\n", "line 1: column 'colour' is unknown; there are offset_s, model, payload"),
        ("0,a\n1\n", "line 2: 1 columns where offset_s, model are due"),
        ("0,a,first\n", "line 1: payload 'first' is not a number from 0"),
        ("offset_s,payload\n0,-1\n", "line 2: payload '-1' is not a number from 0"),
        ("offset\n", "holds no offsets"),
        ("", "holds no offsets"),
    ],
)
def test_a_broken_trace_names_its_line(trace, content, message):
    with pytest.raises(BadRequestError, match=message) as raised:
        trace(content)
    assert "\n" not in str(raised.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(BadRequestError, match="cannot read the trace"):
        read_trace(tmp_path / "none.csv")
