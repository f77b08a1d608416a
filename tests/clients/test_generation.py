"""Streams of text from models that are asked like those of Triton's vLLM and TensorRT-LLM images."""

import json

import pytest

from clients import Client, ServerError

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def client(python_server):
    with Client(python_server.grpc_url) as client:
        yield client


def texts(parts):
    return [part["text_output"].ravel()[0].decode() for part in parts]


def test_pieces_of_vllm(client):
    ask, sampling = client.model("vllm").stream, json.dumps({"max_tokens": 3})
    assert texts(ask(text_input="count", stream=True, sampling_parameters=sampling)) == ["1", " 2", " 3"]
    assert texts(ask(text_input="count: ", sampling_parameters=sampling)) == ["count: 1 2 3"]


def test_pieces_of_tensorrt_llm(client):
    ask = client.model("tensorrt_llm").stream
    assert texts(ask(text_input="count", max_tokens=3, stream=True, stop_words="4")) == ["1", " 2", " 3"]
    assert texts(ask(text_input=b"count: ", max_tokens=2)) == ["count: 1 2"]


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("vllm", {"stream": True, "sampling_parameters": '{"max_tokens": 0}'}),
        ("vllm", {"stream": True, "exclude_input_in_output": False}),
        ("tensorrt_llm", {"max_tokens": 0}),
    ],
)
def test_a_refusal_is_an_error(client, model, inputs):
    with pytest.raises(ServerError):
        list(client.model(model).stream(text_input="count", **inputs))
