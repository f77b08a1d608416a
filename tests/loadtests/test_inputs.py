"""Requests written down as JSON Lines."""

from __future__ import annotations

import pytest
from tritonclient.grpc import service_pb2

from loadtests.errors import BadRequestError
from loadtests.inputs import read_inputs


@pytest.fixture
def read(small_server, tmp_path):
    def reading(content: str, model: str = "double"):
        path = tmp_path / "inputs.jsonl"
        path.write_text(content)
        return read_inputs(path, small_server.grpc_url, model)

    return reading


def test_each_line_is_a_request(read):
    first, second = read('{"x": [[1.0, 2.0]]}\n\n{"x": [[3.0, 4.0], [5.0, 6.0]]}\n')
    assert list(service_pb2.ModelInferRequest.FromString(first).inputs[0].shape) == [1, 2]
    assert list(service_pb2.ModelInferRequest.FromString(second).inputs[0].shape) == [2, 2]


def test_an_at_sign_names_a_file_beside_it(read, tmp_path):
    (tmp_path / "some.txt").write_bytes(b"\x00raw\xff")
    (request,) = read('{"text": [["@some.txt"]]}\n', "echo")
    assert b"\x00raw\xff" in request


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"x": [[1.0, 2.0]]}\nnot json\n', "line 2: "),
        ("[1, 2]\n", "line 1: not an object of inputs"),
        ('{"x": [[1.0, 2.0, 3.0]]}\n', "line 1: .*x"),
        ('{"y": [[1.0, 2.0]]}\n', "line 1: .*y"),
        ('{"x": "@none.bin"}\n', "line 1: .*none.bin"),
        ("\n", "holds no requests"),
    ],
)
def test_a_broken_file_names_its_line(read, content, message):
    with pytest.raises(BadRequestError, match=message):
        read(content)
