import io

import numpy as np
import pytest
from PIL import Image
from tritonclient.grpc import model_config_pb2, service_pb2

from loadtests.errors import BadRequestError
from loadtests.workload.payloads import from_metadata


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
