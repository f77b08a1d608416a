import io
import json

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2, service_pb2

from loadtests.errors import BadRequestError
from loadtests.workload.payloads import assumptions, from_metadata


def metadata(*tensors):
    inputs = [
        service_pb2.ModelMetadataResponse.TensorMetadata(name=name, datatype=datatype, shape=shape)
        for name, datatype, shape in tensors
    ]
    return service_pb2.ModelMetadataResponse(name="model", inputs=inputs)


def made(*tensors, max_batch_size=8, seed=0, count=3, **bound):
    config = model_config_pb2.ModelConfig(max_batch_size=max_batch_size)
    payloads = from_metadata(metadata(*tensors), config, seed=seed, count=count, **bound)
    return [service_pb2.ModelInferRequest.FromString(payload) for payload in payloads]


def test_free_dimensions_are_filled_and_the_batch_is_one():
    (request, *_) = made(("x", "FP32", [-1, 4, -1]))
    assert list(request.inputs[0].shape) == [1, 4, 16]
    values = np.frombuffer(request.raw_input_contents[0], np.float32)
    assert len(values) == 64
    assert 0 <= values.min() < values.max() <= 1


BEYOND_BOUNDS = {
    "more bytes than an integer of 64 bits counts": ("FP32", [2**40, 2**40]),
    "a tensor that would take all memory": ("UINT8", [2**29]),
    "more texts than fit": ("BYTES", [2**22]),
    "more axes than an array has": ("FP32", [1] * 33),
}


@pytest.mark.parametrize("case", BEYOND_BOUNDS)
def test_no_request_is_made_up_of_a_shape_beyond_bounds(case):
    datatype, dims = BEYOND_BOUNDS[case]
    with pytest.raises(BadRequestError) as raised:
        made(("x", datatype, [-1, *dims]))
    assert raised.value.field == "payloads"


def test_large_requests_are_fewer():
    assert len(made(("x", "UINT8", [-1, 6000]), count=32, most_bytes=30_000)) == 4


def test_without_batching_every_free_dimension_is_filled():
    assert list(made(("x", "FP32", [-1]), max_batch_size=0)[0].inputs[0].shape) == [16]


@pytest.mark.parametrize(
    ("datatype", "bytes_each", "largest"),
    [("UINT8", 1, 255), ("INT8", 1, 127), ("INT64", 8, 1), ("BOOL", 1, 1), ("FP16", 2, None), ("BF16", 2, None)],
)
def test_types_have_their_size_and_a_sensible_range(datatype, bytes_each, largest):
    (request, *_) = made(("x", datatype, [-1, 100]))
    content = request.raw_input_contents[0]
    assert len(content) == 100 * bytes_each
    if largest is not None:
        dtype = {"UINT8": "u1", "INT8": "i1", "INT64": "i8", "BOOL": "u1"}[datatype]
        assert 0 <= np.frombuffer(content, dtype).max() <= largest


def test_text_is_length_prefixed_words():
    (request, *_) = made(("text", "BYTES", [-1, 2]))
    content = request.raw_input_contents[0]
    length = int.from_bytes(content[:4], "little")
    assert content[4 : 4 + length].decode().replace(" ", "").isalpha()


@pytest.mark.parametrize(
    ("name", "is_picture"),
    [("image", True), ("input_image", True), ("JPEG-bytes", True), ("text", False), ("imagery", False)],
)
def test_an_input_whose_name_says_picture_gets_one(name, is_picture):
    (request, another, *_) = made((name, "BYTES", [-1, 1]))
    content = request.raw_input_contents[0][4:]
    assert content.startswith(b"\x89PNG") is is_picture
    assert content != another.raw_input_contents[0][4:]
    if is_picture:
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.convert("RGB").size == (224, 224)


def test_without_a_configuration_a_first_dimension_that_all_share_is_the_batch():
    pair = (("x", "FP32", [-1, 4]), ("t", "BYTES", [-1]))
    for tensors, shapes in ((pair, [[1, 4], [1]]), ((*pair, ("y", "FP32", [4])), [[16, 4], [16], [4]])):
        (payload,) = from_metadata(metadata(*tensors), None, seed=0, count=1)
        request = service_pb2.ModelInferRequest.FromString(payload)
        assert [list(tensor.shape) for tensor in request.inputs] == shapes


def test_the_seed_decides():
    tensor = ("x", "FP32", [-1, 4])
    assert made(tensor)[0] == made(tensor)[0]
    assert made(tensor)[0] != made(tensor)[1]
    assert made(tensor)[0] != made(tensor, seed=1)[0]


def test_unknown_types_are_named():
    with pytest.raises(BadRequestError) as refused:
        made(("x", "COMPLEX64", [4]))
    assert refused.value.field == "payloads"
    assert "COMPLEX64" in str(refused.value)


GENERATORS: dict[str, tuple[str, set[str]]] = {
    "recipe_writer": (
        """input { name: "prompt" data_type: TYPE_STRING dims: 1 }
        input { name: "max_tokens" data_type: TYPE_INT32 dims: 1 optional: true }
        input { name: "stop" data_type: TYPE_STRING dims: -1 optional: true }""",
        {"prompt", "max_tokens"},
    ),
    "vLLM": (
        """input { name: "text_input" data_type: TYPE_STRING dims: 1 }
        input { name: "image" data_type: TYPE_STRING dims: -1 optional: true }
        input { name: "stream" data_type: TYPE_BOOL dims: 1 optional: true }
        input { name: "sampling_parameters" data_type: TYPE_STRING dims: 1 optional: true }""",
        {"text_input", "stream", "sampling_parameters"},
    ),
    "TensorRT-LLM": (
        """max_batch_size: 4 input { name: "text_input" data_type: TYPE_STRING dims: 1 }
        input { name: "max_tokens" data_type: TYPE_INT32 dims: 1 }
        input { name: "temperature" data_type: TYPE_FP32 dims: 1 optional: true }
        input { name: "stream" data_type: TYPE_BOOL dims: 1 optional: true }""",
        {"text_input", "max_tokens", "stream"},
    ),
}
"""Decoupled models that generate text, and the inputs that a request for them has."""
DATATYPES = {model_config_pb2.TYPE_STRING: "BYTES", model_config_pb2.TYPE_INT32: "INT32"}
DATATYPES |= {model_config_pb2.TYPE_BOOL: "BOOL", model_config_pb2.TYPE_FP32: "FP32"}


@pytest.mark.parametrize("case", GENERATORS)
def test_a_model_that_generates_text_gets_a_mix_of_lengths(case):
    written, asked = GENERATORS[case]
    decoupled = "model_transaction_policy { decoupled: true }"
    config = text_format.Parse(f"{written} {decoupled}", model_config_pb2.ModelConfig())
    batch = [-1] if config.max_batch_size else []
    inputs = metadata(*((one.name, DATATYPES[one.data_type], [*batch, *one.dims]) for one in config.input))
    payloads = from_metadata(inputs, config, seed=1)
    assert payloads == from_metadata(inputs, config, seed=1)
    assert payloads != from_metadata(inputs, config, seed=2)
    assert assumptions(inputs, config) == ""
    prompts, answers = [], []
    for request in map(service_pb2.ModelInferRequest.FromString, payloads):
        given = {one.name: raw for one, raw in zip(request.inputs, request.raw_input_contents, strict=True)}
        assert set(given) == asked
        assert given.get("stream", b"\1") == b"\1"
        prompts.append(len(given.get("prompt") or given["text_input"]))
        if "max_tokens" in given:
            answers.append(int.from_bytes(given["max_tokens"], "little"))
        else:
            answers.append(json.loads(given["sampling_parameters"][4:])["max_tokens"])
    for lengths in (prompts, answers):
        assert max(lengths) > 3 * min(lengths) > 0
