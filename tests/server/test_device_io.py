"""Tensors handed over as DLPack through an I/O binding: what a GPU instance does, here on the CPU in a real Triton."""

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from complete_server import complete_server
from onnx import TensorProto, helper
from small_models import write_double, write_onnx

from clients import Client, ServerError
from server import TritonServer

pytestmark = pytest.mark.process

ON_DEVICE = 'parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "no" } }\n'
ONE_INSTANCE = "instance_group [ { count: 1 kind: KIND_CPU } ]\n"
BATCHES = "dynamic_batching { max_queue_delay_microseconds: 200000 }\n"
TYPES = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "INT32": TensorProto.INT32, "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
}  # fmt: skip
DOUBLE = """
max_batch_size: 16
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
"""
TEXT = """
max_batch_size: 4
input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "said" data_type: TYPE_STRING dims: [ 1 ] } ]
"""
ENSEMBLE = """
name: "chain"
platform: "ensemble"
max_batch_size: 16
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
ensemble_scheduling { step [
  { model_name: "first" model_version: -1 input_map { key: "x" value: "x" } output_map { key: "y" value: "twice" } },
  { model_name: "second" model_version: -1 input_map { key: "x" value: "twice" } output_map { key: "y" value: "y" } }
] }
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`types` (each input given back), `first`, `second`, their ensemble `chain`, and `text`."""
    repository = tmp_path_factory.mktemp("device") / "model_repository"
    tensors = [(name, kind, ["n", "m"]) for name, kind in TYPES.items()]
    write_onnx(
        repository / "types" / "1" / "model.onnx",
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in TYPES],
        tensors,
        [(f"{name}_out", kind, shape) for name, kind, shape in tensors],
    )
    declared = "".join(
        f'input [ {{ name: "{name}" data_type: TYPE_{name} dims: [ -1 ] }} ]\n'
        f'output [ {{ name: "{name}_out" data_type: TYPE_{name} dims: [ -1 ] }} ]\n'
        for name in TYPES
    )
    config = f'backend: "onnxruntime"\nmax_batch_size: 16\n{declared}{ONE_INSTANCE}{BATCHES}{ON_DEVICE}'
    (repository / "types" / "config.pbtxt").write_text(config)
    for name in ("first", "second"):
        write_double(repository / name, DOUBLE + ONE_INSTANCE + ON_DEVICE)
    (repository / "chain" / "1").mkdir(parents=True)
    (repository / "chain" / "config.pbtxt").write_text(ENSEMBLE)
    text = (TensorProto.STRING, ["n", 1])
    write_onnx(
        repository / "text" / "1" / "model.onnx",
        [helper.make_node("Identity", ["text"], ["said"])],
        [("text", *text)],
        [("said", *text)],
    )
    (repository / "text" / "config.pbtxt").write_text(f'backend: "onnxruntime"\n{TEXT}{ONE_INSTANCE}{ON_DEVICE}')
    with complete_server(repository) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Client(server.grpc_url) as client:
        yield client


def sent(rows, columns, seed):
    generator = np.random.default_rng(seed)
    made = {}
    for name in TYPES:
        numbers = generator.integers(0, 2 if name == "BOOL" else 100, (rows, columns))
        made[name] = numbers.astype({"BOOL": bool, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64}.get(
            name, name.lower()))  # fmt: skip
    return made


def same(inputs, outputs):
    return all(
        outputs[f"{name}_out"].dtype == values.dtype and np.array_equal(outputs[f"{name}_out"], values)
        for name, values in inputs.items()
    )


def test_the_log_says_which_models_keep_tensors_on_their_device(server):
    log = server.log_path.read_text()
    told = [line for line in log.splitlines() if "cpu:0" in line]
    assert all(any(f"'{name}'" in line for line in told) for name in ("types", "first", "second"))
    assert not any("'text'" in line for line in told)  # strings have no DLPack form


def test_every_type_comes_back_as_it_went_in(client):
    inputs = sent(3, 5, 0)
    assert same(inputs, client.model("types")(inputs))


def executions(server):
    with urllib.request.urlopen(f"http://{server.http_url}/v2/models/types/stats") as answer:
        return json.load(answer)["model_stats"][0]["execution_count"]


def test_requests_of_one_batch_each_get_their_own_rows(server, client):
    model = client.model("types")
    wanted = [sent(rows, 4, rows) for rows in (1, 2, 3, 4, 5)]
    before = executions(server)
    with ThreadPoolExecutor(len(wanted)) as pool:
        answers = list(pool.map(model, wanted))
    assert all(same(inputs, outputs) for inputs, outputs in zip(wanted, answers, strict=True))
    assert executions(server) - before < len(wanted)


def test_an_empty_tensor_passes(client):
    inputs = sent(1, 0, 0)
    assert same(inputs, client.model("types")(inputs))


def test_only_the_outputs_asked_for_are_given(client):
    assert set(client.model("types")(sent(1, 2, 0), outputs=["FP32_out"])) == {"FP32_out"}


def test_an_ensemble_hands_over_on_the_device(client):
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert np.array_equal(client.model("chain")(x=x)["y"], 4 * x)


def test_texts_go_through_host_memory(client):
    assert client.model("text")(text=[["ja"], ["nein"]])["said"].tolist() == [[b"ja"], [b"nein"]]


def test_a_failing_run_is_an_error_of_the_request_and_the_model_lives_on(tmp_path):
    tensor = (TensorProto.FLOAT, ["n", "m"])
    write_onnx(
        tmp_path / "pairs" / "1" / "model.onnx",
        [
            helper.make_node("Constant", [], ["shape"], value_ints=[-1, 2]),
            helper.make_node("Reshape", ["x", "shape"], ["y"]),
        ],
        [("x", *tensor)],
        [("y", TensorProto.FLOAT, ["k", 2])],
    )
    (tmp_path / "pairs" / "config.pbtxt").write_text(f'backend: "onnxruntime"\n{ONE_INSTANCE}{ON_DEVICE}')
    with TritonServer(tmp_path, stop_timeout_s=0) as server, Client(server.grpc_url) as client:
        model = client.model("pairs")
        with pytest.raises(ServerError, match="'pairs'"):
            model(x=np.zeros((1, 3), np.float32))
        assert model(x=np.ones((1, 2), np.float32))["y"].tolist() == [[1, 1]]
