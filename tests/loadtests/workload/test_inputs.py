"""Requests written down as JSON Lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from tritonclient.grpc import service_pb2

from loadtests.errors import BadRequestError, InputFileError
from loadtests.workload.inputs import files_of, read_inputs, with_inputs
from loadtests.workload.workload import ModelWeight


@pytest.fixture
def read(small_server, tmp_path):
    def reading(content: str | bytes, model: str = "double"):
        path = tmp_path / "inputs.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_inputs(path, small_server.grpc_url, model)

    return reading


def text_of(request: bytes) -> bytes:
    """The only text in the only input."""
    return service_pb2.ModelInferRequest.FromString(request).raw_input_contents[0][4:]


def test_each_line_is_a_request(read):
    first, second = read('{"x": [[1.0, 2.0]]}\n\n{"x": [[3.0, 4.0], [5.0, 6.0]]}\n')
    assert list(service_pb2.ModelInferRequest.FromString(first).inputs[0].shape) == [1, 2]
    assert list(service_pb2.ModelInferRequest.FromString(second).inputs[0].shape) == [2, 2]


def test_an_at_sign_names_a_file_beside_it(read, tmp_path):
    (tmp_path / "some.txt").write_bytes(b"\x00raw\xff")
    (request,) = read('{"text": [["@some.txt"]]}\n', "echo")
    assert text_of(request) == b"\x00raw\xff"


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('{"text": [["@@alice"]]}\n', ["@alice"]),
        ('{"text": [["@@@alice"]]}\n', ["@@alice"]),
        ('{"text": [["a@@b"]]}\n', ["a@@b"]),
        *((f'{{"text": [["a{end}b"]]}}\n{{"text": [["c"]]}}\n', [f"a{end}b", "c"]) for end in "\u2028\u2029\x85"),
        ('{"text": [["a\\u000bb\\u001cc"]]}\n', ["a\x0bb\x1cc"]),
        ('{"text": [["a"]]}\r\n{"text": [["b"]]}\r\n', ["a", "b"]),
        (b'\xef\xbb\xbf{"text": [["a"]]}\n \n{"text": [["b"]]}', ["a", "b"]),
    ],
)
def test_texts_arrive_as_they_were_written(read, content, texts):
    assert [text_of(request).decode() for request in read(content, "echo")] == texts


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"x": [[1.0, 2.0]]}\nnot json\n', 2),
        ('{"x": [[1.0, 2.0]]},\n', 1),
        ('{"x": [[1.0, 2.0]]} {"x": [[1.0, 2.0]]}\n', 1),
        ('{"x": [[1.0, 2.0]]}\r{"x": [[1.0, 2.0]]}\r', 1),
        ("[1, 2]\n", 1),
        ("\n" + "[" * 100_000, 2),
        ('{"x": [[1.0, 2.0, 3.0]]}\n', 1),
        ('{"x": [[1.0, 2.0]], "x": [[3.0, 4.0]]}\n', 1),
        ('{"y": [[1.0, 2.0]]}\n', 1),
        ('{"x": "@none.bin"}\n', 1),
        ('\n\n{"x": "@"}\n', 3),
        (b'{"x": [[1.0, 2.0]]}\n{"x": "\xe9"}\n', 2),
        (b'{"x": [[1.0, 2.0]]}\n\x00\n', 2),
        ('{"x": [[1.0, 2.0]]}\n'.encode("utf-16"), None),
        ('{"x": [[1.0, 2.0]]}\n'.encode("utf-32"), None),
        ("\n", None),
    ],
)
def test_a_broken_file_names_its_line(read, tmp_path, content, line):
    with pytest.raises(InputFileError) as raised:
        read(content)
    assert (raised.value.path, raised.value.line) == (tmp_path / "inputs.jsonl", line)


@pytest.mark.parametrize(
    ("entries", "models", "files"),
    [
        ([], ["a", "b"], {}),
        (["x.jsonl"], ["a"], {"a": "x.jsonl"}),
        (["a=x.jsonl"], ["a"], {"a": "x.jsonl"}),
        (["run=1/x.jsonl"], ["a"], {"a": "run=1/x.jsonl"}),
        (["b=x.jsonl"], ["a", "b"], {"b": "x.jsonl"}),
        (["b=x.jsonl", "a=y=1.jsonl"], ["a", "b"], {"b": "x.jsonl", "a": "y=1.jsonl"}),
        (["x.jsonl"], ["a", "b"], None),
        (["a="], ["a", "b"], None),
        (["c=x.jsonl"], ["a", "b"], None),
        (["a=x.jsonl", "a=y.jsonl"], ["a", "b"], None),
        (["x.jsonl", "y.jsonl"], ["a"], None),
    ],
)
def test_a_file_is_for_one_model(entries, models, files):
    if files is None:
        with pytest.raises(BadRequestError) as refused:
            files_of(entries, models)
        assert refused.value.field == "inputs"
    else:
        assert files_of(entries, models) == {model: Path(file) for model, file in files.items()}


def test_a_model_without_a_file_is_left_as_it_is(small_server, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"x": [[1.0, 2.0]]}\n')
    given = ModelWeight("echo", 2.0, [b"1"], "evaluation data")
    own, other = with_inputs([ModelWeight("double"), given], {"double": path}, small_server.grpc_url)
    assert (len(own.payloads), own.source, own.file) == (1, "mine.jsonl", path)
    assert other == given
