"""Generated inputs through the client against real models: each is answered as it was given, or refused by its name.

`FATHOM_FUZZ=50000 pytest tests/clients/test_fuzz.py` sends as many, and `FATHOM_FUZZ_SEED` chooses others; hypothesis
prints the smallest request that fails.
"""

import collections
import contextlib
import os
from typing import Any, NamedTuple

import numpy as np
import pytest
from complete_server import complete_server
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from identity_models import write_identity
from tritonclient.grpc import service_pb2

from clients import Client, InvalidInputError, ModelSpec, ServerError, TensorSpec, codec
from clients.datatypes import NUMPY_TYPE
from clients.regions import RegionPool

pytestmark = pytest.mark.process

COUNT = int(os.environ.get("FATHOM_FUZZ", "300"))
SEED = int(os.environ.get("FATHOM_FUZZ_SEED", "1"))
FUZZ = settings(max_examples=COUNT, database=None, deadline=None, suppress_health_check=list(HealthCheck))

MODELS = {
    "every": (4, {t.lower(): (t, [-1]) for t in (*NUMPY_TYPE, "BYTES")}),
    "fixed": (3, {"image": ("UINT8", [2, 3]), "score": ("FP32", [1]), "name": ("BYTES", [1])}),
    "bare": (0, {"matrix": ("FP32", [-1, -1]), "ids": ("INT64", [3]), "texts": ("BYTES", [-1, 2])}),
    "bytes": (0, {"half": ("FP16", [-1]), "brain": ("BF16", [4]), "flag": ("BOOL", [-1])}),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("fuzz") / "model_repository"
    for name, (batch, inputs) in MODELS.items():
        write_identity(repository / name, inputs, max_batch_size=batch, optional=name == "every")
    with complete_server(repository) as server:
        yield server


class Request(NamedTuple):
    """`odd` is the name of the tensor that is not as the model wants it; None where all are."""

    model: str
    inputs: dict[str, Any]
    odd: str | None


class Sub(np.ndarray):
    """An array class of somebody's own."""


class Hostile:
    """Nothing about it can be asked."""

    def __array__(self, *arguments, **named):
        raise RuntimeError("no array here")

    def __repr__(self):
        return "Hostile()"


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def turned(array):
    return array if array.dtype.kind in "OV" else array.astype(array.dtype.newbyteorder(">"))


def listed(array):
    return array.tolist() if array.size and array.dtype.kind != "V" else array


SPELLINGS = (
    lambda array: array,
    lambda array: array.view(Sub),
    lambda array: np.flip(np.flip(array).copy()),
    np.asfortranarray,
    read_only,
    turned,
    listed,
    lambda array: tuple(listed(array)) if array.size else array,
)
"""The same values in the forms that people have them in."""
THINGS = (
    {}, {1: 2}, set(), object(), print, iter([1]), ..., NotImplemented, 1j, "\ud800", ["\ud800"], memoryview(b"abcd"),
    range(3), np.ma.masked, np.ma.masked_array([[1.0]], [[True]]), [[], [1]], type, np.array(None), np.float32("nan"),
    2**100, [print], Hostile(), np.zeros(1, "i4,f4"), np.zeros((1, 1), "V3"),
)  # fmt: skip
texts = st.text(max_size=9) | st.binary(max_size=9) | st.binary(max_size=9).map(bytearray)
odd_values = st.one_of(
    hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)),
    hnp.arrays(object, hnp.array_shapes(max_side=3), elements=st.none() | st.integers() | st.floats() | texts),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from((2**63, 65_520, 1e39, 0.5)) | texts,
        lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
        max_leaves=8,
    ),
    st.sampled_from(THINGS),
)


def proper(datatype: str, shape: tuple[int, ...]) -> st.SearchStrategy:
    """What the model wants, in one of the spellings."""
    if datatype == "BYTES":
        arrays = hnp.arrays(object, shape, elements=texts)
    elif datatype == "BF16":
        arrays = hnp.arrays(np.uint16, shape).map(lambda array: array.view(NUMPY_TYPE["BF16"]))
    else:
        arrays = hnp.arrays(NUMPY_TYPE[datatype], shape)
    return st.builds(lambda spell, array: spell(array), st.sampled_from(SPELLINGS), arrays)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    model = draw(st.sampled_from(list(MODELS)))
    batch, tensors = MODELS[model]
    names = list(tensors)
    if model == "every":  # all are optional
        names = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    size = [draw(st.integers(1, batch))] if batch else []
    inputs = {}
    for name in names:
        datatype, dims = tensors[name]
        lengths = [draw(st.sampled_from((0, 1, 2, 3, 7))) if dim < 0 else dim for dim in dims]
        inputs[name] = draw(proper(datatype, (*size, *lengths)))
    odd = draw(st.none() | st.sampled_from((*names, "unknown")))
    if odd is not None:
        inputs[odd] = draw(odd_values)
        if odd in tensors and model != "every" and draw(st.integers(0, 9)) == 0:
            del inputs[odd]
    return Request(model, inputs, odd)


def test_every_input_is_answered_or_refused_by_name(server):
    """Half of the requests go through shared memory, whatever their size."""
    ends = collections.Counter()
    with Client(server.grpc_url) as plain, Client(server.grpc_url, headers=server.admin_headers) as sharing:
        sharing.pool = RegionPool("system", sharing.addresses, worth_bytes=1)
        ways = [{name: client.model(name) for name in MODELS} for client in (plain, sharing)]

        @seed(SEED)
        @FUZZ
        @given(requests(), st.sampled_from(ways))
        def ask(request, models):
            outputs, refusal = {}, None
            try:
                outputs = models[request.model](request.inputs)
            except InvalidInputError as error:
                refusal = error
            if refusal is not None:
                assert not refusal.status, "got past the client's own checks"
                assert request.odd is not None, f"refused, though valid: {refusal}"
                assert refusal.tensor in (request.odd, "")
                ends["refused"] += 1
                return
            for name, value in request.inputs.items():
                compare(outputs[f"{name}_out"], value, MODELS[request.model][1][name][0])
            ends["answered"] += 1

        ask()
        assert sharing.pool._pool._idle, "nothing went through shared memory"
    assert server.is_alive()
    assert min(ends["answered"], ends["refused"]) > COUNT / 10


def compare(got, given, datatype):
    """An answer must be the input, value for value; floats may be rounded to the model's type, never to infinity."""
    if datatype == "BYTES":
        assert got.ravel().tolist() == [item.encode() if isinstance(item, str) else bytes(item) for item in flat(given)]
        return
    assert got.dtype == NUMPY_TYPE[datatype]
    if got.dtype.kind in "biu":
        assert [int(item) for item in got.ravel()] == [int(item) for item in flat(given)]
        return
    wanted = np.array([float(item) for item in flat(given)])
    with np.errstate(over="ignore"):
        rounded = wanted.astype(got.dtype).astype(float)
    assert np.array_equal(got.ravel().astype(float), rounded, equal_nan=True)
    assert np.array_equal(np.isinf(rounded), np.isinf(wanted)), "became infinite"


def flat(value):
    """The leaves of nested lists and arrays, in order."""
    if isinstance(value, np.ndarray):
        return list(value.astype(object).ravel())
    if isinstance(value, list | tuple | range | memoryview):
        return [leaf for item in value for leaf in flat(item)]
    return [value]


def answer() -> bytes:
    message = service_pb2.ModelInferResponse(model_name="m", id="r1")
    for name, datatype, raw in (("y", "FP32", b"\0" * 8), ("z", "BYTES", b"\1\0\0\0a\0\0\0\0")):
        message.outputs.add(name=name, datatype=datatype, shape=[2])
        message.raw_output_contents.append(raw)
    return message.SerializeToString()


SPEC, ANSWER = ModelSpec("m", "", 0, {}, {name: TensorSpec(name, "FP32", (-1,)) for name in "yz"}), answer()


@FUZZ
@given(
    st.dictionaries(st.integers(0, len(ANSWER) - 1), st.integers(0, 255), min_size=1, max_size=3),
    st.integers(0, len(ANSWER)),
)
def test_a_damaged_answer_is_a_server_error_or_read(changes, size):
    damaged = bytearray(ANSWER)
    for place, byte in changes.items():
        damaged[place] = byte
    with contextlib.suppress(ServerError):
        codec.decode(SPEC, bytes(damaged[:size]))
