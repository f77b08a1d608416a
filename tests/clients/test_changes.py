"""A model that changes on its server is noticed by the clients that knew it before."""

import asyncio
import shutil

import numpy as np
import pytest
from complete_server import HEADERS, TOKEN, complete_server
from identity_models import write_identity
from python_models import write_python
from tritonclient.grpc import service_pb2

from clients import AsyncClient, Client, InvalidInputError

pytestmark = pytest.mark.process

STRICT_CONFIG = """
backend: "python"
input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]
"""
STRICT = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        error = pb_utils.TritonError("it is never content", pb_utils.TritonError.INVALID_ARG)
        return [pb_utils.InferenceResponse(error=error) for _ in requests]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return tmp_path_factory.mktemp("changes") / "model_repository"


@pytest.fixture(scope="module")
def server(repository):
    write_python(repository / "strict", STRICT_CONFIG, STRICT)
    names = ("--load-model=m", "--load-model=strict")
    write_identity(repository / "m", {"x": ("FP32", [2])}, max_batch_size=8)
    with complete_server(repository, admin_token=TOKEN, extra=("--model-control-mode=explicit", *names)) as server:
        yield server


@pytest.fixture
def become(server, repository):
    """Gives the model `m` another signature."""

    def load(inputs, max_batch_size):
        shutil.rmtree(repository / "m")
        write_identity(repository / "m", inputs, max_batch_size=max_batch_size)
        with Client(server.grpc_url, headers=HEADERS) as client:
            client.run(client.call("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(model_name="m")))

    return load


def test_a_model_that_changes_is_noticed(server, become):
    become({"x": ("FP32", [2])}, 8)
    with Client(server.grpc_url) as client:
        model = client.model("m")
        assert model(x=[[1, 2]] * 8)["x_out"].dtype == np.float32

        become({"x": ("INT64", [2])}, 8)
        assert model(x=[[1, 2]])["x_out"].dtype == np.int64, "what still fits is sent again"
        assert model.spec.inputs["x"].datatype == "INT64"

        become({"x": ("INT64", [2])}, 4)
        with pytest.raises(InvalidInputError, match="changed") as caught:
            model(x=[[1, 2]] * 8)
        assert (caught.value.model, caught.value.tensor, model.spec.max_batch_size) == ("m", "x", 4)

        become({"y": ("INT64", [2])}, 4)
        with pytest.raises(InvalidInputError, match="changed") as caught:
            model.one(x=[1, 2])
        assert (caught.value.tensor, list(model.spec.inputs)) == ("x", ["y"])
        assert list(model(y=[[1, 2]])) == ["y_out"]


def test_requests_in_flight_together_all_notice(server, become):
    async def ask():
        async with AsyncClient(server.grpc_url) as client:
            model = await client.model("m")
            become({"x": ("FP64", [2])}, 8)
            return await asyncio.gather(*(model(x=[[n, 2]]) for n in range(20)))

    become({"x": ("FP32", [2])}, 8)
    answers = asyncio.run(ask())
    assert [answer["x_out"].tolist() for answer in answers] == [[[n, 2]] for n in range(20)]
    assert {answer["x_out"].dtype for answer in answers} == {np.dtype(np.float64)}


def test_a_large_input_in_shared_memory_notices(server, become):
    become({"x": ("FP32", [-1])}, 2)
    with Client(server.grpc_url, shared_memory="system", headers=HEADERS) as client:
        model = client.model("m")
        become({"x": ("FP64", [-1])}, 2)
        assert model(x=[[1.0] * 100_000])["x_out"].dtype == np.float64


def test_a_refusal_by_a_model_that_is_what_it_was(server, monkeypatch):
    asked = []

    def call(self, method, *arguments, **options):
        asked.append(method)
        return ordinary(self, method, *arguments, **options)

    with Client(server.grpc_url) as client:
        strict = client.model("strict")
        ordinary = Client.call
        monkeypatch.setattr(Client, "call", call)
        with pytest.raises(InvalidInputError) as caught:
            strict(x=[1.0])
    assert "never content" in caught.value.details
    assert "changed" not in str(caught.value)
    assert asked == ["ModelInfer", "ModelMetadata", "ModelConfig"]
