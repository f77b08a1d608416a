"""Sequences as a workload: when their requests are due, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from loadtests.errors import BadRequestError, InputFileError
from loadtests.target.parameters import flagged
from loadtests.workload.inputs import read_inputs
from loadtests.workload.sequences import Sequences, sequences_of
from loadtests.workload.workload import ModelWeight, Workload

THREE = Sequences((3, 1, 2), (0.1, 0.0, 0.5))
PAIR = [flagged([b"", b""])]


def test_a_sequence_counts_from_when_its_last_request_is_due():
    starts_s, choices = np.array([0.0, 0.1, 0.15, 1.0]), np.array([2, 0, 1, 0], np.int32)
    ends_s, order = THREE.ends(starts_s, choices)
    assert ends_s == pytest.approx([0.15, 0.3, 0.5, 1.2])
    assert order.tolist() == [1, 0, 2, 0]
    assert THREE.firsts.tolist() == [0, 3, 4]


def test_what_is_known_of_sequences_is_marked():
    from loadtests.records.record import Record

    times = np.array([0.15, 0.3, 0.5])
    record = THREE.marked(Record(times, times, times, np.zeros(3, np.uint8)), np.array([1, 0, 2], np.int32))
    assert record.requests.tolist() == [0, 3, 2]
    assert record.begun_s[1:] == pytest.approx([0.1, 0.0])
    assert np.isnan(record.begun_s[0])


def workload(server, *shares: ModelWeight, interval_s: float | None = None) -> Workload:
    with Workload(server.grpc_url, shares, interval_s=interval_s) as made:
        made.check()
    return made


REFUSED = {
    "a model that keeps state, without an interval": ([ModelWeight("total")], None, "interval_s"),
    "an interval of 0": ([ModelWeight("total")], 0.0, "interval_s"),
    "an interval that is no number": ([ModelWeight("total")], float("nan"), "interval_s"),
    "an interval after which the server has ended the sequence": ([ModelWeight("total")], 60.0, "interval_s"),
    "an interval without a model that keeps state": ([ModelWeight("double"), ModelWeight("echo")], 0.1, "interval_s"),
    "single requests to a model that keeps state": ([ModelWeight("total", payloads=[b"", b""])], 0.1, "payloads"),
    "sequences of one request": ([ModelWeight("total", payloads=[(b"",), (b"",)])], 0.1, "payloads"),
    "a sequence without a request": ([ModelWeight("total", payloads=[*PAIR, ()])], 0.1, "payloads"),
    "a sequence and a request": ([ModelWeight("total", payloads=[*PAIR, b""])], 0.1, "payloads"),
    "sequences to a model without state": ([ModelWeight("double", payloads=PAIR)], None, "payloads"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_load_of_sequences(small_server, case):
    shares, interval_s, field = REFUSED[case]
    with pytest.raises(BadRequestError) as refused:
        workload(small_server, *shares, interval_s=interval_s)
    assert refused.value.field == field
    assert any(share.model in str(refused.value) for share in shares)


def test_sequences_beside_streams_are_refused():
    """Requests of a sequence are numbered as they go, so no number says which of them are streamed."""
    total: Any = SimpleNamespace(model="total", keeps_state=True, streams=False, idle_s=3.0)
    counter: Any = SimpleNamespace(model="counter", keeps_state=False, streams=True)
    with pytest.raises(BadRequestError) as refused:
        sequences_of([total, counter], [PAIR, [b""]], [0.1, None], strict=False)
    assert refused.value.field == "mix"


def test_sequences_are_made_up(small_server):
    made = workload(small_server, ModelWeight("total"), ModelWeight("double", 3.0), interval_s=0.2)
    first, end = made.payloads_of("total")
    assert made.sequences is not None
    assert set(made.sequences.lengths[first:end]) == {10}
    assert set(made.sequences.lengths[end:]) == {1}
    assert len(made.pool) == sum(made.sequences.lengths)
    assert made.longest_s == pytest.approx(1.8)
    assert made.requests_each == pytest.approx(0.25 * 10 + 0.75)
    assert made.described()["sequences"] == {"total": pytest.approx(
        {"interval_s": 0.2, "requests_mean": 10.0, "mean_s": 1.8, "longest_s": 1.8}
    )}  # fmt: skip
    assert "total" in made.described()["payload_source"]


def test_the_interval_of_a_share_counts_unless_another_is_given(small_server):
    share = ModelWeight("total", payloads=[(b"", b"")], interval_s=0.5)
    assert workload(small_server, share).longest_s == 0.5
    assert workload(small_server, share, interval_s=0.1).longest_s == 0.1


@pytest.fixture
def read(small_server, tmp_path):
    def reading(content: str):
        path = tmp_path / "inputs.jsonl"
        path.write_text(content)
        return read_inputs(path, small_server.grpc_url, "total")

    return reading


@pytest.mark.parametrize("x", ["[1, 2, 3]", "[[1], [2], [3]]", "[[[1]], [[2]], [[3]]]"])
def test_a_line_is_a_sequence(read, x):
    """With and without the batch axis of each request, which is 1 long."""
    long, short = read(f'{{"x": {x}}}\n{{"x": [7]}}\n')
    requests = list(map(service_pb2.ModelInferRequest.FromString, long))
    assert [list(request.inputs[0].shape) for request in requests] == [[1, 1]] * 3
    contents = b"".join(request.raw_input_contents[0] for request in requests)
    assert np.frombuffer(contents, np.int32).tolist() == [1, 2, 3]
    assert len(short) == 1


@pytest.mark.parametrize("line", ['{"x": 1}', '{"x": []}', "{}", '{"x": [1, 2], "y": [1]}', '{"x": [1, [2, 3, [4]]]}'])
def test_a_line_that_is_no_sequence(read, line):
    with pytest.raises(InputFileError) as refused:
        read(f'{{"x": [1, 2]}}\n{line}\n')
    assert refused.value.line == 2
