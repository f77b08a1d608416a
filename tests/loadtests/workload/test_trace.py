"""Recorded traces: what is read, and which line is named when something is wrong."""

from __future__ import annotations

import pytest

from loadtests.errors import BadRequestError, InputFileError
from loadtests.workload.trace import read_trace


@pytest.fixture
def trace(tmp_path):
    def write(content: str | bytes):
        path = tmp_path / "trace.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
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
    [
        "offset_s,model,payload\n0,a,1\n0.5,b,0\n",
        "0,a,1\n0.5,b,0\n",
        "offset_s,payload,model\n0,1,a\n0.5,0,b\n",
        "Model, Payload, Offset_S\na, 1, 0\nb, 0, 0.5\n",
        "offset_s;model;payload\n0;a;1\n0.5;b;0\n",
        "0\ta\t1\n0.5\tb\t0\n",
        '"0","a","1",\r\n"0.5","b","0",\r\n,,\r\n',
    ],
)
def test_model_and_payload_columns(trace, content):
    found = trace(content)
    assert found.offsets_s.tolist() == [0, 0.5]
    assert found.models == ("a", "b")
    assert found.payloads.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("header", "first", "second"),
    [
        ("offset_s", "0", "1.5"),
        ("timestamp", "-1.5", "0"),
        ("time", "1732950000", "1732950001.5"),
        ("seconds", "0", "1.5e0"),
        ("offset_ms", "0", "1500"),
        ("timestamp (ms)", "1732950000000", "1732950001500"),
        ("offset [us]", "0", "1500000"),
        ("t_ns", "0", "1500000000"),
        ("Milliseconds", "10", "1510"),
    ],
)
def test_a_header_says_the_unit(trace, header, first, second):
    assert trace(f"{header}\n{first}\n{second}\n").duration_s == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xef\xbb\xbf0.0\n1.0\n", "a byte-order mark is no part of the first number"),
        (b"\xef\xbb\xbfoffset_s\n0.0\n1.0\n", "nor of the first column's name"),
        (b"0.0\r\n1.0\r\n", "Windows ends its lines so"),
        (b"0.0\n1.0", "the last line may have no end"),
        (b"\n \n0.0\n1.0\n", "the first lines may be blank"),
    ],
)
def test_every_row_is_read(trace, content, why):
    assert trace(content).offsets_s.tolist() == [0.0, 1.0], why


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("0.5\nnonsense\n", 2),
        ("O.0\n1.0\n2.0\n", 1),  # a typing error is no header
        ("# recorded on Monday\n0.5\n", 1),
        ("0.5\n0.4\n", 2),
        ("0.5\nnan\n", 2),
        ("0.5\ninf\n", 2),
        ("0.5\n1e999\n", 2),
        ("0.5\n1_0\n", 2),
        ("0,5;a\n", 1),
        ("offset_s\n0,5\n", 2),
        ("0.5\n\n0.6\u20280.7\n", 3),
        ("offset_s,colour\n1,red\n", 1),
        ("offset_s,offset_ms\n1,1\n", 1),
        ("offset_fortnights\n1\n", 1),
        ("model\na\n", 1),
        ("0,a\n1\n", 2),
        ("0,a\n1,\n", 2),
        ("0,a,1,9\n", 1),
        ('0,"a\n1,b\n', 1),
        ("0,a,first\n", 1),
        ("offset_s,payload\n0,-1\n", 2),
        ("offset_s,payload\n0,99999999999\n", 2),
        ("offset_s,payload\n0,²\n", 2),
        ("1732950000000\n1732950001500\n", 1),  # milliseconds since 1970 without a unit
        ("offset\n", None),
        ("", None),
    ],
)
def test_a_broken_trace_names_its_line(trace, tmp_path, content, line):
    with pytest.raises(InputFileError) as raised:
        trace(content)
    assert (raised.value.path, raised.value.line) == (tmp_path / "trace.csv", line)
    assert "\n" not in str(raised.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(BadRequestError):
        read_trace(tmp_path / "none.csv")
