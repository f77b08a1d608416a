"""The blocking client against a real server."""

import asyncio
import dataclasses
import fractions
import inspect
import math
import threading
import time

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

import clients
from clients import (
    AsyncClient,
    AsyncModel,
    Classification,
    Client,
    DeadlineExceededError,
    InvalidInputError,
    Model,
    ModelNotFoundError,
    ModelSpec,
    OverloadedError,
    TensorSpec,
    UnreachableError,
    failures,
)


@pytest.fixture(scope="module")
def client(small_server):
    with Client(small_server.grpc_url) as client:
        yield client


def test_public_names():
    assert len(clients.__all__) == len(set(clients.__all__))
    assert all(getattr(clients, name).__module__.startswith("clients.") for name in clients.__all__)


def test_both_clients_have_the_same_surface():
    for blocking, waiting in ((Client, AsyncClient), (Model, AsyncModel)):
        public = {name for name in dir(blocking) if not name.startswith("_")}
        assert public == {name for name in dir(waiting) if not name.startswith("_")}
        for name in public:
            method, twin = getattr(blocking, name), getattr(waiting, name)
            if inspect.isfunction(method):
                assert list(inspect.signature(method).parameters) == list(inspect.signature(twin).parameters), name
    assert inspect.signature(Model.__call__).parameters == inspect.signature(AsyncModel.__call__).parameters


def test_the_asyncio_client(small_server):
    async def ask():
        async with AsyncClient(small_server.grpc_url) as client:
            assert await client.is_ready()
            assert {"double", "echo"} <= set(await client.models())
            double, echo = await client.model("double"), await client.model("echo")
            assert repr(double) == f"AsyncModel('double' at {small_server.grpc_url}, x: FP32 [batch, 2])"
            answers = await asyncio.gather(*(double.one(x=[n, 0]) for n in range(50)))
            assert [answer["y"].tolist() for answer in answers] == [[2 * n, 0] for n in range(50)]
            assert (await echo(text=["à"], request_id="r1"))["said"].tolist() == [["à".encode()]]
            assert (await double.classify(x=[[1, 2]], top=1))[0][0].label == "right"
            with pytest.raises(ModelNotFoundError) as unknown:
                await client.model("triple")
            assert {"double", "echo"} <= set(unknown.value.served)
            with pytest.raises(InvalidInputError) as refused:
                await double(x=[1, 2, 3])
            assert (refused.value.tensor, refused.value.expected) == ("x", "FP32 [batch, 2]")

    asyncio.run(ask())


def test_named_arrays_in_named_arrays_out(client):
    double = client.model("double")
    assert double(x=[[1, 2], [3, 4]])["y"].tolist() == [[2, 4], [6, 8]]
    assert double({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[2, 2]]


def test_one_sample_without_a_batch_axis(client):
    assert client.model("double").one(x=[1, 2])["y"].tolist() == [2, 4]
    assert client.model("echo").one(text="à bientôt")["said"].tolist() == ["à bientôt".encode()]


def test_strings_survive_the_round_trip(client):
    texts = ["", "naïve", "日本語", "🌧", "a\nb"]
    assert client.model("echo")(text=texts)["said"].ravel().tolist() == [text.encode() for text in texts]


def test_a_model_without_a_batch_axis_and_with_two_types(client):
    outputs = client.model("mixed")(whole=[1, 2, 3], half=np.array([0.5, 1.5], np.float16))
    assert outputs["whole_out"].tolist() == [1, 2, 3]
    assert outputs["half_out"].dtype == np.float16


def test_outputs_can_be_selected(client):
    mixed = client.model("mixed")
    outputs = mixed(whole=[1, 2, 3], half=np.zeros(1, np.float16), outputs=["half_out"])
    assert list(outputs) == ["half_out"]


ODD_CALLS = {
    "an array without its name": (
        lambda double: double(np.ones((1, 2), np.float32)),
        "'x'.*ndarray",
    ),
    "a sample without its name": (lambda double: double.one([1, 2]), "'x'.*list"),
    "nothing": (lambda double: double(x=None), "'x'.*FP32"),
    "no label at all": (lambda double: double.classify(x=[[1, 2]], top=0), "top"),
}


@pytest.mark.parametrize("case", ODD_CALLS)
def test_what_a_call_cannot_mean_is_invalid_input(client, case):
    call, words = ODD_CALLS[case]
    with pytest.raises(InvalidInputError, match=words):
        call(client.model("double"))


def test_what_a_call_can_only_mean_is_taken(client):
    double = client.model("double", version=1)
    assert list(double(x=[[1, 2]], outputs="y", request_id=7)) == ["y"]


def test_labels_come_from_the_servers_label_file(client):
    ranked = client.model("double").classify(x=[[1, 2], [4, 3]], top=2)
    assert ranked == [
        [Classification("right", 4.0, 1), Classification("left", 2.0, 0)],
        [Classification("left", 8.0, 0), Classification("right", 6.0, 1)],
    ]


def test_the_model_prints_its_signature(client, small_server):
    assert repr(client.model("double")) == f"Model('double' at {small_server.grpc_url}, x: FP32 [batch, 2])"


def test_an_unknown_model_is_refused_with_the_known_ones(client):
    with pytest.raises(ModelNotFoundError, match="'triple'") as caught:
        client.model("triple")
    assert list(caught.value.served) == client.models()


def test_an_unknown_version_is_refused(client):
    with pytest.raises(ModelNotFoundError, match="7") as caught:
        client.model("double", version="7")
    assert "double" in caught.value.served


def test_ready_models_are_listed(client):
    assert client.is_ready()
    assert {"double", "echo", "mixed", "slow"} <= set(client.models())


def test_a_closed_client_says_so(small_server):
    used, unused = Client(small_server.grpc_url), Client(small_server.grpc_url)
    assert used.is_ready()
    for client in (used, unused):
        client.close()
        client.close()
        with pytest.raises(ValueError, match="closed"):
            client.models()


def test_a_closed_asyncio_client_says_so(small_server):
    async def use_after_closing():
        async with AsyncClient(small_server.grpc_url) as client:
            double = await client.model("double")
        with pytest.raises(ValueError, match="closed"):
            await double(x=[[1, 2]])
        with pytest.raises(ValueError, match="closed"):
            await client.models()

    asyncio.run(use_after_closing())


def test_no_server_is_unreachable_with_its_address():
    with Client("127.0.0.1:9", timeout_s=5) as nobody, pytest.raises(UnreachableError) as caught:
        nobody.model("double")
    assert caught.value.endpoint == "127.0.0.1:9"
    assert caught.value.endpoint in str(caught.value)
    with Client("127.0.0.1:9", timeout_s=5) as nobody:
        assert not nobody.is_ready()


def test_a_deadline_that_passes_is_named(client):
    slow = client.model("slow")
    with pytest.raises(DeadlineExceededError, match=r"0\.1 s") as caught:
        slow(seconds=[0.6], timeout_s=0.1)
    assert caught.value.status == "DEADLINE_EXCEEDED"
    time.sleep(0.5)  # the python model cannot be interrupted: let it finish before the next test


def test_a_full_queue_is_overloaded(client):
    slow = client.model("slow")
    ends = []

    def call():
        try:
            slow(seconds=[0.1])
            ends.append("answered")
        except OverloadedError as error:
            ends.append("overloaded" if "maximum queue size" in error.details else str(error))

    threads = [threading.Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(ends) == {"answered", "overloaded"}, ends


def test_what_the_server_refuses_is_invalid_input(client, small_server):
    """A request that the codec would never make, sent past it, comes back as the same kind of error."""
    with grpc.insecure_channel(small_server.grpc_url) as channel:
        request = service_pb2.ModelInferRequest(model_name="double")
        request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
        request.raw_input_contents.append(b"\0" * 12)
        with pytest.raises(grpc.RpcError) as caught:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    error = failures.from_rpc(caught.value, failures.Sent("double", small_server.grpc_url))
    assert isinstance(error, InvalidInputError)
    assert "[1,3]" in str(error)


def test_many_threads_share_one_client(client):
    double = client.model("double")
    wrong = []

    def call(number):
        for _ in range(50):
            if double(x=[[number, number]])["y"].tolist() != [[2 * number, 2 * number]]:
                wrong.append(number)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_error_tree_has_one_base():
    exceptions = [each for each in vars(clients).values() if isinstance(each, type) and issubclass(each, Exception)]
    errors = [each for each in exceptions if not issubclass(each, Warning)]
    assert len(errors) == 11
    for error in errors:
        assert issubclass(error, clients.InferenceError)
        assert error.__name__.endswith("Error")
        assert error.label in (error.__name__, error.__name__.removesuffix("Error"))
    assert len({error.label for error in errors}) == len(errors)


NO_DEADLINES = [0, -1.0, math.inf, math.nan, 1e10, 1e300, "30", True, [1]]


@pytest.mark.parametrize("timeout_s", [None, *NO_DEADLINES])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_without_a_deadline_is_refused(kind, timeout_s):
    with pytest.raises(ValueError, match="timeout_s"):
        kind("localhost:8001", timeout_s=timeout_s)


PLAIN = ModelSpec("m", "", 8, {"x": TensorSpec("x", "FP32", (1,))}, {"y": TensorSpec("y", "FP32", (1,))})
STATEFUL = dataclasses.replace(PLAIN, sequence=True)
CALLS = {
    "a call": (PLAIN, lambda m, s: m(x=[1], timeout_s=s)),
    "a sample": (PLAIN, lambda m, s: m.one(x=[1], timeout_s=s)),
    "labels": (PLAIN, lambda m, s: m.classify(x=[1], timeout_s=s)),
    "a map": (PLAIN, lambda m, s: next(m.map([[1]], timeout_s=s, errors="return"))),
    "a stream": (PLAIN, lambda m, s: m.stream(x=[1], timeout_s=s)),
    "a sequence": (STATEFUL, lambda m, s: m.sequence()(x=[1], timeout_s=s)),
}


@pytest.mark.parametrize("timeout_s", NO_DEADLINES)
@pytest.mark.parametrize("memory", [None, "system"])
def test_a_call_without_a_deadline_is_refused(timeout_s, memory):
    with Client("127.0.0.1:9", timeout_s=5, shared_memory=memory) as client:
        for spec, call in CALLS.values():
            with pytest.raises(ValueError, match="timeout_s"):
                call(Model(client, spec), timeout_s)


@pytest.mark.parametrize("call", CALLS)
def test_a_call_of_the_asyncio_client_without_a_deadline_is_refused(call):
    spec, ask = CALLS[call] if call != "a map" else (PLAIN, lambda m, s: anext(m.map([[1]], timeout_s=s)))

    async def ask_it():
        async with AsyncClient("127.0.0.1:9", timeout_s=5) as client:
            with pytest.raises(ValueError, match="timeout_s"):
                await ask(AsyncModel(client, spec), math.inf)

    asyncio.run(ask_it())


def test_any_real_number_is_a_deadline(client):
    double = client.model("double")
    for timeout_s in (5, np.float32(5), np.int64(5), fractions.Fraction(5), 1e9):
        assert double(x=[[1, 2]], timeout_s=timeout_s)["y"].tolist() == [[2, 4]]
