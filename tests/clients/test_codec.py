"""The codec without a server: what is refused before sending, and that the bytes are what protobuf would write."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.grpc import service_pb2

from clients import InvalidInputError, ModelSpec, ServerError, TensorSpec, codec
from clients.classification import decode_classes
from clients.datatypes import NUMPY_TYPE


def spec_of(*inputs: TensorSpec, max_batch_size: int = 8, outputs: tuple[TensorSpec, ...] = ()) -> ModelSpec:
    return ModelSpec("m", "", max_batch_size, {t.name: t for t in inputs}, {t.name: t for t in outputs})


IMAGE = spec_of(TensorSpec("pixels", "UINT8", (4, 4, 3)), outputs=(TensorSpec("probabilities", "FP32", (10,)),))
TEXT = spec_of(TensorSpec("text", "BYTES", (1,)))
TOKENS = spec_of(TensorSpec("ids", "INT64", (-1,)), TensorSpec("mask", "INT64", (-1,)))
READING = spec_of(TensorSpec("temperature_c", "FP32", (1,)))
PROMPT = spec_of(
    TensorSpec("prompt", "BYTES", (1,)),
    TensorSpec("max_tokens", "INT32", (1,), optional=True),
    TensorSpec("temperature", "FP32", (1,), optional=True),
    TensorSpec("stream", "BOOL", (1,), optional=True),
    TensorSpec("stop", "BYTES", (-1,), optional=True),
    max_batch_size=0,
)
BATCHED_PROMPT = spec_of(*PROMPT.inputs.values())

PIXELS = "UINT8 [batch, 4, 4, 3]"
REFUSED = {
    # what: (model, inputs, the tensor blamed, what it should be, values in the message)
    "an unknown name, offering the known ones": (IMAGE, {"image": 1}, "image", "", ["'image'", "'pixels'"]),
    "a missing input": (IMAGE, {}, "pixels", PIXELS, []),
    "a wrong shape": (IMAGE, {"pixels": np.zeros((1, 5, 4, 3), np.uint8)}, "pixels", PIXELS, ["[1, 5, 4, 3]"]),
    "a sample without its batch axis": (IMAGE, {"pixels": np.zeros((4, 4, 3), np.uint8)}, "pixels", PIXELS, []),
    "a wrong type": (IMAGE, {"pixels": np.zeros((1, 4, 4, 3), np.float32)}, "pixels", PIXELS, ["FP32"]),
    "a batch above the maximum": (IMAGE, {"pixels": np.zeros((9, 4, 4, 3), np.uint8)}, "pixels", "", ["9", "8"]),
    "an empty batch": (IMAGE, {"pixels": np.zeros((0, 4, 4, 3), np.uint8)}, "pixels", PIXELS, ["empty"]),
    "numbers where text is wanted": (
        TEXT,
        {"text": np.zeros((1, 1), np.float32)},
        "text",
        "BYTES [batch, 1]",
        ["FP32"],
    ),
    "a list with a number among texts": (TEXT, {"text": ["a", 3]}, "text", "BYTES [batch, 1]", []),
    "text that is no Unicode": (TEXT, {"text": ["\ud800"]}, "text", "BYTES [batch, 1]", ["Unicode"]),
    "text where numbers are wanted": (
        READING,
        {"temperature_c": ["warm"]},
        "temperature_c",
        "FP32 [batch, 1]",
        ["BYTES"],
    ),
    "floats where whole numbers are wanted": (
        TOKENS,
        {"ids": [[1.5]], "mask": [[1]]},
        "ids",
        "INT64 [batch, any]",
        ["FP64"],
    ),
    "inputs that differ in batch size": (TOKENS, {"ids": [[1], [2]], "mask": [[1]]}, "", "", ["'ids' 2", "'mask' 1"]),
    "a fraction for a whole number": (PROMPT, {"prompt": "a", "max_tokens": 1.5}, "max_tokens", "INT32 [1]", ["FP64"]),
    "one number where two are wanted": (
        spec_of(TensorSpec("x", "FP32", (2,)), max_batch_size=0),
        {"x": 1.0},
        "x",
        "FP32 [2]",
        ["[]"],
    ),
    "several texts without their batch axis": (
        BATCHED_PROMPT,
        {"prompt": "a", "stop": ["b", "c"]},
        "stop",
        "BYTES [batch, any]",
        ["[2]"],
    ),
    "a ragged list": (TOKENS, {"ids": [[1], [2, 3]], "mask": [[1], [1]]}, "ids", "INT64 [batch, any]", []),
    "a number too large for the type": (IMAGE, {"pixels": [[[[256] * 3] * 4] * 4]}, "pixels", PIXELS, []),
    "a negative number for an unsigned type": (IMAGE, {"pixels": [[[[-1] * 3] * 4] * 4]}, "pixels", PIXELS, []),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_sending(case):
    spec, inputs, tensor, expected, values = REFUSED[case]
    with pytest.raises(InvalidInputError) as caught:
        codec.encode(spec, inputs)
    error = caught.value
    assert (error.model, error.tensor, error.expected, error.status) == ("m", tensor, expected, "")
    assert all(value in str(error) for value in (expected, *values)), str(error)


ACCEPTED = {
    "a list of texts is a batch": (TEXT, {"text": ["a", "bc"]}, "text", [2, 1]),
    "one text is a batch of one": (TEXT, {"text": "a"}, "text", [1, 1]),
    "one text is one value": (PROMPT, {"prompt": "a"}, "prompt", [1]),
    "one text in bytes": (PROMPT, {"prompt": b"a"}, "prompt", [1]),
    "one number is one value": (PROMPT, {"prompt": "a", "max_tokens": 5}, "max_tokens", [1]),
    "one number of numpy": (PROMPT, {"prompt": "a", "temperature": np.float32(0.5)}, "temperature", [1]),
    "one whole number for FP32": (PROMPT, {"prompt": "a", "temperature": 0}, "temperature", [1]),
    "one flag": (PROMPT, {"prompt": "a", "stream": True}, "stream", [1]),
    "one text of any number": (PROMPT, {"prompt": "a", "stop": "b"}, "stop", [1]),
    "several texts of any number": (PROMPT, {"prompt": "a", "stop": ["b", "c"]}, "stop", [2]),
    "one number is a batch of one": (BATCHED_PROMPT, {"prompt": "a", "max_tokens": 5}, "max_tokens", [1, 1]),
    "one text of any number is a batch of one": (BATCHED_PROMPT, {"prompt": "a", "stop": "b"}, "stop", [1, 1]),
    "bytes as numbers": (
        spec_of(TensorSpec("x", "UINT8", (-1,)), max_batch_size=0),
        {"x": bytearray(b"abc")},
        "x",
        [3],
    ),
    "bytes as they are": (TEXT, {"text": [b"\x00\xff\x00"]}, "text", [1, 1]),
    "numpy strings": (TEXT, {"text": np.array(["a", "b"])}, "text", [2, 1]),
    "a list of numbers is a batch of FP32": (READING, {"temperature_c": [1, 2.5]}, "temperature_c", [2, 1]),
    "open lengths take any length": (TOKENS, {"ids": [[1, 2, 3]], "mask": [[1, 1, 1]]}, "ids", [1, 3]),
    "big-endian arrays are turned": (READING, {"temperature_c": np.array([[1.5]], ">f4")}, "temperature_c", [1, 1]),
    "arrays that are not contiguous": (
        IMAGE,
        {"pixels": np.zeros((4, 4, 3, 2), np.uint8).T.swapaxes(1, 3)},
        "pixels",
        [2, 4, 4, 3],
    ),
}


@pytest.mark.parametrize(("inputs", "optional"), [(["x"], [False]), (["x", "y"], [True, True])])
def test_without_a_configuration_any_input_but_the_only_one_may_be_optional(inputs, optional):
    tensors = [{"name": name, "datatype": "FP32", "shape": [1]} for name in inputs]
    spec = ModelSpec.from_server(service_pb2.ModelMetadataResponse(name="m", inputs=tensors), None, "")
    assert [tensor.optional for tensor in spec.inputs.values()] == optional


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case):
    spec, inputs, name, shape = ACCEPTED[case]
    request = service_pb2.ModelInferRequest.FromString(codec.encode(spec, inputs))
    assert request.model_name == "m"
    assert [list(t.shape) for t in request.inputs if t.name == name] == [shape]
    assert len(request.raw_input_contents) == len(inputs)


@given(
    hnp.arrays(
        st.sampled_from([d for name, d in NUMPY_TYPE.items() if name != "BF16"]),
        st.tuples(st.integers(1, 3), st.integers(0, 5), st.integers(1, 4)),
    )
)
@settings(deadline=None, max_examples=200)
def test_protobuf_reads_back_what_the_codec_wrote(array):
    datatype = next(name for name, dtype in NUMPY_TYPE.items() if dtype == array.dtype)
    spec = spec_of(TensorSpec("x", datatype, (-1, -1)))
    request = service_pb2.ModelInferRequest.FromString(codec.encode(spec, {"x": array}, request_id="r1"))
    assert request.id == "r1"
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, tuple(tensor.shape)) == ("x", datatype, array.shape)
    assert request.raw_input_contents[0] == array.tobytes()


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=8))
@settings(deadline=None)
def test_bytes_survive_packing(items):
    array = np.empty(len(items), object)
    array[:] = items
    assert codec.unpack_bytes(memoryview(codec.pack_bytes(array))).tolist() == items


def response(*tensors: tuple[str, str, list[int], bytes]) -> bytes:
    message = service_pb2.ModelInferResponse(model_name="m", id="r1")
    message.parameters["a"].int64_param = 3
    for name, datatype, shape, raw in tensors:
        message.outputs.add(name=name, datatype=datatype, shape=shape)
        message.raw_output_contents.append(raw)
    return message.SerializeToString()


def test_outputs_are_views_into_the_response():
    payload = np.arange(100_000, dtype=np.float32)
    data = response(("y", "FP32", [2, 50_000], payload.tobytes()), ("n", "INT8", [1], b"\xff"))
    outputs = codec.decode(IMAGE, data)
    assert np.array_equal(outputs["y"], payload.reshape(2, -1))
    assert outputs["n"].tolist() == [-1]
    assert not outputs["y"].flags.owndata
    assert not outputs["y"].flags.writeable


def test_texts_come_as_the_bytes_that_were_sent():
    sent = np.array(["naïve".encode(), b"\xff\x00"], object)
    texts = codec.decode(IMAGE, response(("t", "BYTES", [2, 1], codec.pack_bytes(sent))))["t"]
    assert texts.dtype == object
    assert texts.tolist() == [["naïve".encode()], [b"\xff\x00"]]


def test_an_output_without_its_bytes_is_a_server_error():
    with pytest.raises(ServerError) as caught:
        codec.decode(IMAGE, response(("y", "FP32", [1, 2], b"")))
    assert all(value in str(caught.value) for value in ("'y'", "FP32", "[1, 2]", "numpy 2"))


def typed(*tensors: tuple[str, str, list[int], dict[str, list], bytes | None]) -> bytes:
    """An answer with `contents`, and raw contents for the outputs that have some."""
    message = service_pb2.ModelInferResponse(model_name="m")
    for name, datatype, shape, contents, raw in tensors:
        message.outputs.add(name=name, datatype=datatype, shape=shape)
        for field, values in contents.items():
            getattr(message.outputs[-1].contents, field).extend(values)
        if raw is not None:
            message.raw_output_contents.append(raw)
    return message.SerializeToString()


TYPED = {
    "BOOL": ("bool_contents", [True, False]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-(2**15), 5]),
    "INT32": ("int_contents", [-(2**31), 5]),
    "INT64": ("int64_contents", [-(2**63), 2**53 + 1]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 2**16 - 1]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "FP32": ("fp32_contents", [1.5, float("inf")]),
    "FP64": ("fp64_contents", [0.1, -1e300]),
    "BYTES": ("bytes_contents", [b"a\x00", b""]),
}


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_are_read(datatype):
    field, values = TYPED[datatype]
    for raw in (None, b""):  # without raw contents, and from a server that adds an empty one for every output
        answer = typed(("y", datatype, [2, 1], {field: values}, raw))
        for _ in range(2):  # the second time from what the first has taught
            y = codec.decode(IMAGE, answer)["y"]
            assert (y.shape, y.ravel().tolist()) == ((2, 1), values)
            assert y.dtype == NUMPY_TYPE.get(datatype, object)


def test_raw_and_typed_contents_in_one_answer():
    half = np.array([0.5], np.float16)
    y, z = ("y", "INT32", [2], {"int_contents": [3, 4]}), ("z", "FP16", [1], {})
    for raw in (None, b""):
        for answer in (typed((*y, raw), (*z, half.tobytes())), typed((*z, half.tobytes()), (*y, raw))):
            outputs = codec.decode(IMAGE, answer)
            assert (outputs["y"].tolist(), outputs["z"].tolist()) == ([3, 4], [0.5])


WRONG_ANSWERS = {
    "fewer values than the shape says": ("FP32", [1, 4], {"fp32_contents": [1.0]}, None),
    "more values than the shape says": ("BYTES", [1], {"bytes_contents": [b"a", b"b"]}, None),
    "values in another type's field": ("INT64", [1], {"int_contents": [1]}, None),
    "a type that has no field": ("FP16", [1], {"fp32_contents": [1.0]}, None),
    "a type that there is not": ("INT4", [1], {"int_contents": [1]}, None),
    "values beyond the type": ("INT8", [1], {"int_contents": [300]}, None),
    "two fields": ("INT32", [1], {"int_contents": [1], "uint_contents": [1]}, None),
    "typed and raw contents of one output": ("INT32", [1], {"int_contents": [1]}, b"\x01\0\0\0"),
    "no values of an output that has some": ("INT32", [1], {}, None),
}


@pytest.mark.parametrize("case", WRONG_ANSWERS)
def test_contents_that_do_not_fit_are_a_server_error(case):
    with pytest.raises(ServerError, match="'y'") as caught:
        codec.decode(IMAGE, typed(("y", *WRONG_ANSWERS[case])))
    assert caught.value.model == "m"


def test_more_raw_contents_than_outputs_are_a_server_error():
    y, z = ("y", "INT32", [1], {"int_contents": [1]}), ("z", "INT32", [1], {"int_contents": [1]})
    message = service_pb2.ModelInferResponse.FromString(typed((*y, b""), (*z, b"")))
    message.raw_output_contents.append(b"\x01\0\0\0")
    with pytest.raises(ServerError):
        codec.decode(IMAGE, message.SerializeToString())


def test_classes_are_ranked_labels():
    answers = np.array([[b"0.75:7:seven", b"0.25:1"]], object)
    assert decode_classes(answers) == [[("seven", 0.75, 7), ("", 0.25, 1)]]


def test_an_unknown_output_is_refused():
    with pytest.raises(InvalidInputError, match="probabilities") as caught:
        codec.encode(IMAGE, {"pixels": np.zeros((1, 4, 4, 3), np.uint8)}, outputs=["logits"])
    assert caught.value.tensor == "logits"


def test_a_model_whose_input_has_an_unknown_type_is_refused():
    answer = service_pb2.ModelMetadataResponse(name="m")
    answer.inputs.add(name="x", datatype="FP7", shape=[1])
    with pytest.raises(ServerError) as raised:
        ModelSpec.from_server(answer, None, "")
    assert raised.value.model == "m"


@pytest.mark.parametrize(
    ("batching", "keeps_state"), [(None, False), ({}, True), ({"iterative_sequence": True}, False)]
)
def test_a_model_that_is_asked_in_sequences(batching, keeps_state):
    """Triton makes the sequence of a request to an iterative model by itself."""
    found = service_pb2.ModelConfigResponse(config={"name": "m", "sequence_batching": batching})
    assert ModelSpec.from_server(service_pb2.ModelMetadataResponse(name="m"), found, "").sequence == keeps_state


def test_what_a_queue_knows_of_a_request_travels_as_parameters():
    request = codec.encode(TEXT, {"text": "a"}, priority=1, queue_timeout_s=0.25, parameters={"own": True})
    message = service_pb2.ModelInferRequest.FromString(request)
    values = {name: value.ListFields()[0][1] for name, value in message.parameters.items()}
    assert values == {"priority": 1, "timeout": 250_000, "own": True}
    plain = service_pb2.ModelInferRequest.FromString(codec.encode(TEXT, {"text": "a"}))
    assert not plain.parameters


@pytest.mark.parametrize("priority", [-1, 1.5, "high", 1 << 32, [[1]]], ids=repr)
def test_a_priority_is_a_whole_number(priority):
    with pytest.raises(InvalidInputError):
        codec.encode(TEXT, {"text": "a"}, priority=priority)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "1"], ids=repr)
def test_a_queue_timeout_is_a_time(seconds):
    with pytest.raises(ValueError, match="queue_timeout_s"):
        codec.encode(TEXT, {"text": "a"}, queue_timeout_s=seconds)
