"""Generated inputs through the client against real models: each is answered rightly, or refused by its tensor's name.

`FATHOM_FUZZ=50000 pytest tests/clients/test_fuzz.py -s` runs as many and prints the figures. Input N of seed S is the
same for ever: `FATHOM_FUZZ_SEED` and the number in a failure bring it back.
"""

import collections
import os
import random
import string
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import psutil
import pytest
from complete_server import complete_server
from identity_models import write_identity
from tritonclient.grpc import service_pb2

from clients import Client, InvalidInputError, ModelSpec, ServerError, TensorSpec, codec
from clients.datatypes import NUMPY_TYPE
from clients.regions import RegionPool

pytestmark = pytest.mark.process

COUNT = int(os.environ.get("FATHOM_FUZZ", "1500"))
SEED = int(os.environ.get("FATHOM_FUZZ_SEED", "1"))
WARM_UP = COUNT // 3  # caches fill until here; memory is compared from here on
MOST_GROWTH_MB = 24

MODELS = {
    "every": (4, {t.lower(): (t, [-1]) for t in (*NUMPY_TYPE, "BYTES")}),
    "fixed": (3, {"image": ("UINT8", [2, 3]), "score": ("FP32", [1]), "name": ("BYTES", [1])}),
    "bare": (0, {"matrix": ("FP32", [-1, -1]), "ids": ("INT64", [3]), "texts": ("BYTES", [-1, 2])}),
    "bytes": (0, {"half": ("FP16", [-1]), "brain": ("BF16", [4]), "flag": ("BOOL", [-1])}),
}


@dataclass
class Case:
    """One request. `valid` is None where it is not beyond doubt; `blamed` are the tensors that a refusal may name."""

    model: str
    inputs: Any
    valid: bool | None = True
    expected: dict[str, Any] = field(default_factory=dict)
    blamed: set[str] = field(default_factory=set)
    kind: str = ""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("fuzz") / "model_repository"
    for name, (batch, inputs) in MODELS.items():
        write_identity(repository / name, inputs, max_batch_size=batch, optional=name == "every")
    with complete_server(repository) as server:
        yield server


def test_every_input_is_answered_or_refused_by_name(server):
    """Every fourth input goes through shared memory, whatever its size."""
    ends, wrong, resident = collections.Counter(), [], []
    process = psutil.Process()
    with Client(server.grpc_url) as plain, Client(server.grpc_url, headers=server.admin_headers) as sharing:
        sharing.pool = RegionPool("system", sharing.addresses, worth_bytes=1)
        ways = [{name: client.model(name) for name in MODELS} for client in (sharing, plain, plain, plain)]
        for number in range(COUNT):
            case = make_case(random.Random(f"{SEED}-{number}"))
            try:
                ends[judge(ways[number % 4][case.model], case)] += 1
            except AssertionError as error:
                wrong.append(f"input {number} of seed {SEED}, {case.kind}: {error}"[:600])
            if number % WARM_UP == 0:
                resident.append(process.memory_info().rss / 1e6)
        resident.append(process.memory_info().rss / 1e6)
        assert sharing.pool._pool._idle, "nothing went through shared memory"
    assert server.is_alive()
    assert not wrong, "\n".join([f"{len(wrong)} wrong ends, the first of each kind:", *first_of_each(wrong)])
    print(f"\n{COUNT} inputs: {dict(ends)}, client memory after each third {[round(mb, 1) for mb in resident]} MB")
    assert min(ends["answered"], ends["refused"]) > COUNT / 5
    assert resident[-1] - resident[1] < MOST_GROWTH_MB


def test_a_damaged_answer_is_a_server_error():
    spec = ModelSpec("m", "", 0, {}, {name: TensorSpec(name, "FP32", (-1,)) for name in "yz"})
    message = service_pb2.ModelInferResponse(model_name="m", id="r1")
    for name, datatype, raw in (("y", "FP32", b"\0" * 8), ("z", "BYTES", b"\1\0\0\0a\0\0\0\0")):
        message.outputs.add(name=name, datatype=datatype, shape=[2])
        message.raw_output_contents.append(raw)
    whole = message.SerializeToString()
    rng, refused = random.Random(SEED), 0
    for number in range(COUNT):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        damaged = bytes(damaged[: rng.choice((len(damaged), rng.randrange(len(damaged))))])
        try:
            codec.decode(spec, damaged)
        except ServerError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"answer {number} of seed {SEED}: {damaged!r}") from error
    assert refused > COUNT / 4


def judge(model, case):
    """Run one case; "answered" or "refused"."""
    refusal = None
    try:
        outputs = model(case.inputs)
    except InvalidInputError as error:
        refusal = error
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}: {case.inputs!r:.300}") from error
    if refusal is not None:
        assert case.valid is not True, f"refused, though valid: {refusal}"
        assert not case.blamed or any(f"'{name}'" in str(refusal) for name in case.blamed), str(refusal)
        assert not refusal.status, f"got past the client's own checks: {refusal}"
        return "refused"
    assert case.valid is not False, f"answered, though invalid: {case.inputs!r:.300}"
    for name, value in case.inputs.items():
        datatype = MODELS[case.model][1][name][0]
        compare(outputs[f"{name}_out"], case.expected.get(name, value), datatype)
    return "answered"


def compare(got, given, datatype):
    """An answer must be the input, value for value; floats may be rounded to the model's type, never to infinity."""
    if datatype == "BYTES":
        wanted = [item.encode() if isinstance(item, str) else bytes(item) for item in flat(given)]
        assert got.ravel().tolist() == wanted, f"answered {got!r:.200}"
        return
    assert got.dtype == NUMPY_TYPE[datatype], got.dtype
    if got.dtype.kind in "biu":
        assert [int(item) for item in got.ravel()] == [int(item) for item in flat(given)], (
            f"answered {got!r:.200} to {given!r:.200}"
        )
        return
    wanted = np.array([float(item) for item in flat(given)])
    with np.errstate(over="ignore"):
        rounded = wanted.astype(got.dtype)
    assert np.array_equal(got.ravel().astype(float), rounded.astype(float), equal_nan=True), (
        f"answered {got!r:.200} to {given!r:.200}"
    )
    assert np.array_equal(np.isinf(rounded), np.isinf(wanted)), f"became infinite: {given!r:.200}"


def first_of_each(wrong):
    return {text.split(": ")[0].split(", ")[-1] + text.split(": ")[1]: text for text in reversed(wrong)}.values()


def flat(value):
    """The leaves of nested lists and arrays, in order."""
    if isinstance(value, np.ndarray):
        return list(value.astype(object).ravel())
    if isinstance(value, list | tuple | range | memoryview):
        return [leaf for item in value for leaf in flat(item)]
    return [value]


# --- how inputs are made -----------------------------------------------------------------------------------------


def make_case(rng: random.Random) -> Case:
    name = rng.choice(list(MODELS))
    batch, tensors = MODELS[name]
    chosen = rng.sample(list(tensors), rng.randint(1, 3)) if name == "every" else list(tensors)
    size = rng.randint(1, batch) if batch else None
    inputs, expected = {}, {}
    for tensor in chosen:
        datatype, dims = tensors[tensor]
        shape = [*([size] if batch else []), *(rng.choice((0, 1, 2, 3, 7)) if dim < 0 else dim for dim in dims)]
        if rng.random() < 0.01:
            shape[-1] = rng.choice((1000, 30_000)) if dims[-1] < 0 else shape[-1]
        expected[tensor] = array = make_array(rng, datatype, shape)
        inputs[tensor] = spell(rng, array, datatype)
    case = Case(name, inputs, True, expected, set(chosen), "as the model wants it")
    return spoil(rng, case, tensors, batch) if rng.random() < 0.5 else case


def make_array(rng, datatype, shape):
    """A random array of the model's own type, special values included."""
    generator = np.random.default_rng(rng.getrandbits(32))
    if datatype == "BYTES":
        texts = ("", "a", "naïve", "日本語", "🌧", "a\0b", b"\xff\x00", b"", "x" * 300, bytearray(b"abc"), "\0")
        array = np.empty(shape, object)
        array.reshape(-1)[:] = [rng.choice(texts) for _ in range(array.size)]
        return array
    dtype = NUMPY_TYPE[datatype]
    if dtype.kind == "b":
        return generator.random(shape) < 0.5
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        array = generator.integers(info.min, info.max, shape, dtype, endpoint=True)
        if array.size:
            array.reshape(-1)[rng.randrange(array.size)] = rng.choice((info.min, info.max, 0))
        return array
    array = generator.normal(0, 10, shape).astype(dtype)
    if array.size and rng.random() < 0.5:
        specials = (
            np.nan,
            np.inf,
            -np.inf,
            -0.0,
            ml_dtypes.finfo(dtype).max,
            ml_dtypes.finfo(dtype).smallest_subnormal,
        )
        array.reshape(-1)[rng.randrange(array.size)] = rng.choice(specials)
    return array


def spell(rng, array, datatype):
    """The same values in one of the forms that people have them in."""
    forms = [lambda: array, lambda: array, lambda: strided(rng, array)]
    if array.size:
        if datatype != "BF16":
            forms += [lambda: array.tolist(), lambda: tuple(array.tolist()), lambda: list(array)]
        if datatype != "BYTES" and array.dtype.byteorder in "=|<" and datatype != "BF16":
            forms.append(lambda: array.astype(array.dtype.newbyteorder(">")))
    forms += [lambda: read_only(array), lambda: array.view(Sub), lambda: np.asfortranarray(array)]
    return rng.choice(forms)()


class Sub(np.ndarray):
    """An array class of somebody's own."""


def strided(rng, array):
    """The same values with gaps, or backwards, in memory."""
    if array.ndim == 0:
        return array
    axis = rng.randrange(array.ndim)
    wide = np.repeat(array, 2, axis=axis)
    return (wide if rng.random() < 0.5 else np.flip(np.flip(wide, axis).copy(), axis))[
        tuple(slice(None, None, 2) if a == axis else slice(None) for a in range(array.ndim))
    ]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def spoil(rng, case, tensors, batch):
    """The same request with one thing wrong, or at least odd."""
    tensor = rng.choice(list(case.inputs))
    array = case.expected[tensor]
    datatype, dims = tensors[tensor]
    spoiler = rng.choice(SPOILERS)
    case.kind = f"'{tensor}' of '{case.model}', {spoiler.__name__}"
    spoiler(rng, case, tensor, array, datatype, dims, batch)
    return case


def wrong_rank(rng, case, tensor, array, datatype, dims, batch):
    fewer = np.zeros(array.shape[1:], array.dtype)
    case.inputs[tensor] = array[None] if rng.random() < 0.5 or array.ndim < 2 else fewer
    one_axis = batch and dims == [1] and np.ndim(case.inputs[tensor]) == 1  # a list of N is a batch of N
    case.expected[tensor] = case.inputs[tensor]
    case.valid = None if one_axis else False


def wrong_length(rng, case, tensor, array, datatype, dims, batch):
    fixed = [axis for axis, dim in enumerate(dims) if dim >= 0]
    if fixed:
        axis = rng.choice(fixed) + bool(batch)
        case.inputs[tensor] = np.concatenate([array, array], axis) if rng.random() < 0.5 else array.take([], axis)
        case.valid = False


def wrong_batch(rng, case, tensor, array, datatype, dims, batch):
    if batch:
        case.inputs[tensor] = np.concatenate([array] * (batch + 1)) if rng.random() < 0.5 else array[:0]
        case.valid = False


def other_type(rng, case, tensor, array, datatype, dims, batch):
    other = rng.choice([t for t in NUMPY_TYPE if t != datatype])
    case.inputs[tensor] = np.zeros(array.shape, NUMPY_TYPE[other])
    case.valid = False


def odd_type(rng, case, tensor, array, datatype, dims, batch):
    case.inputs[tensor] = np.zeros(array.shape, rng.choice(["M8[s]", "m8[s]", "c16", "V3", "i4,f4", "g"]))
    case.valid = False


def numbers_as_list(rng, case, tensor, array, datatype, dims, batch):
    """Numbers of another kind, in Python's own types: taken where nothing is lost but float digits."""
    numbers = [
        0,
        1,
        -1,
        2,
        127,
        128,
        255,
        256,
        -129,
        2**31,
        2**63,
        2**64,
        2**70,
        10**400,
        0.5,
        1e6,
        1e39,
        1e-50,
        True,
        False,
    ]
    numbers += [
        float("nan"),
        float("inf"),
        3.0,
        np.int8(-3),
        np.float64(1e300),
        np.float16(2),
        np.bool_(True),
        65519,
        65520,
    ]
    value = np.empty(array.shape, object)
    value.reshape(-1)[:] = [rng.choice(numbers) for _ in range(value.size)]
    case.inputs[tensor], case.valid = value.tolist(), None
    case.expected.pop(tensor)


def no_array(rng, case, tensor, array, datatype, dims, batch):
    things = (
        None, {}, {1: 2}, set(), object(), print, iter([1]), ..., NotImplemented, [None], [[None, 1]], "text", b"\x00",
        1j, "\ud800", ["\ud800"], [[["\ud800"]]], memoryview(b"abcd"), range(3), np.ma.masked, [[], [1]], [[[]]], type,
        np.array(None), np.array([None, 1], object), np.array("x"), np.float32("nan"), 2**100, [print], Hostile(),
    )  # fmt: skip
    case.inputs[tensor], case.valid = rng.choice(things), None
    case.expected.pop(tensor)
    if isinstance(case.inputs[tensor], str | bytes | memoryview | range | np.generic | int | list):
        case.valid = None
    else:
        case.valid = False


class Hostile:
    """Nothing about it can be asked."""

    def __array__(self, *arguments, **named):
        raise RuntimeError("no array here")

    def __repr__(self):
        return "Hostile()"


def missing(rng, case, tensor, array, datatype, dims, batch):
    del case.inputs[tensor], case.expected[tensor]
    case.valid = None if case.model == "every" else False
    case.blamed = {tensor} if case.inputs and case.model != "every" else set()


def unknown(rng, case, tensor, array, datatype, dims, batch):
    name = rng.choice(
        [tensor + "_", "", tensor.upper(), "日本", "\0", "x" * 1000, "'", f"{tensor}_out", 7, None, ("a",)]
    )
    case.inputs[name] = array
    case.valid = False
    case.blamed = {str(name)}


def object_numbers(rng, case, tensor, array, datatype, dims, batch):
    case.inputs[tensor] = array.astype(object)
    case.valid = datatype == "BYTES" or None


def numpy_text(rng, case, tensor, array, datatype, dims, batch):
    text = np.full(array.shape, "".join(rng.choices(string.ascii_letters + "é日", k=rng.randint(0, 9))))
    case.inputs[tensor] = text
    case.expected[tensor] = text
    case.valid = datatype == "BYTES"


def same_bytes(rng, case, tensor, array, datatype, dims, batch):
    """The right bytes under another shape or type."""
    if datatype != "BYTES":
        case.inputs[tensor] = rng.choice(
            (array.tobytes(), np.frombuffer(array.tobytes(), np.uint8), memoryview(array.tobytes()))
        )
        case.valid = None


def masked(rng, case, tensor, array, datatype, dims, batch):
    if datatype not in ("BYTES", "BF16"):
        case.inputs[tensor] = np.ma.masked_array(array, np.ones(array.shape, bool))
        case.valid = None  # what is masked is sent all the same, or refused


def broadcast(rng, case, tensor, array, datatype, dims, batch):
    if array.ndim and array.shape[0]:
        case.inputs[tensor] = case.expected[tensor] = np.broadcast_to(array[:1], array.shape)


SPOILERS = (
    wrong_rank, wrong_length, wrong_batch, other_type, odd_type, numbers_as_list, numbers_as_list, no_array, no_array,
    missing, unknown, object_numbers, numpy_text, same_bytes, masked, broadcast,
)  # fmt: skip
