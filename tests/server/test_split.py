"""Graphs that do not answer one row per row, under real dynamic batching: nobody gets rows of somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from complete_server import complete_server
from onnx import TensorProto, helper
from small_models import write_onnx

from clients import Client, ServerError

pytestmark = pytest.mark.process

ON_DEVICE = 'parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "no" } }'
IN_RUNS = 'parameters { key: "rows_per_run" value { string_value: "2" } }'
FILTER = [
    helper.make_node("Constant", [], ["least"], value_float=0.5),
    helper.make_node("ReduceMax", ["x"], ["largest"], axes=[1], keepdims=0),
    helper.make_node("Greater", ["largest", "least"], ["kept"]),
    helper.make_node("Compress", ["x", "kept"], ["y"], axis=0),
]
DOUBLE = [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)]
PLACES = [
    helper.make_node("NonZero", ["x"], ["places"]),
    helper.make_node("Transpose", ["places"], ["turned"]),
    helper.make_node("Cast", ["turned"], ["y"], to=TensorProto.FLOAT),
]
# name: (the nodes that make `y`, what the graph calls the first axis of `y`, more of config.pbtxt)
MODELS = {
    "filter": (FILTER, "n", ""),
    "filter_on_device": (FILTER, "n", ON_DEVICE),
    "filter_in_runs": (FILTER, "n", IN_RUNS),
    "double": (DOUBLE, "n", ""),
    "places": (PLACES, "found", ""),
}
TOGETHER = 3


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    repository = tmp_path_factory.mktemp("split") / "model_repository"
    for name, (nodes, rows, more) in MODELS.items():
        write_onnx(
            repository / name / "1" / "model.onnx",
            [*nodes, helper.make_node("Identity", ["x"], ["same"])],
            [("x", TensorProto.FLOAT, ["n", 2])],
            [("y", TensorProto.FLOAT, [rows, 2]), ("same", TensorProto.FLOAT, ["n", 2])],
        )
        (repository / name / "config.pbtxt").write_text(
            f"""
            backend: "onnxruntime"
            max_batch_size: 8
            input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 2 ] }} ]
            output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 2 ] }} ]
            output [ {{ name: "same" data_type: TYPE_FP32 dims: [ 2 ] }} ]
            instance_group [ {{ count: 1 kind: KIND_CPU }} ]
            dynamic_batching {{ preferred_batch_size: [ {TOGETHER} ] max_queue_delay_microseconds: 2000000 }}
            {more}
            """
        )
    with complete_server(repository) as server, Client(server.grpc_url) as client:
        yield client


def ask(client: Client, name: str, rows: list[list[float]], outputs: list[str]) -> list[Any]:
    """What each row is answered, asked by requests that Triton takes as one batch: {output: rows}, or "error"."""
    model = client.model(name)

    def one(row: list[float]) -> Any:
        try:
            answer = model({"x": np.array([row], np.float32)}, outputs=outputs)
        except ServerError:
            return "error"
        return {output: array.tolist() for output, array in answer.items()}

    with ThreadPoolExecutor(TOGETHER) as pool:
        return list(pool.map(one, rows))


LOW, HIGH, HIGHER = [0.25, 0.125], [7.0, 7.0], [9.0, 9.0]


@pytest.mark.parametrize("name", ["filter", "filter_on_device", "filter_in_runs"])
def test_a_dropped_row_shifts_no_other_answer(client: Client, name: str) -> None:
    for rows in ([LOW, HIGH, HIGHER], [HIGH, LOW, HIGHER], [LOW, LOW, LOW]):
        own = [{"y": [row], "same": [row]} if row is not LOW else "error" for row in rows]
        assert ask(client, name, rows, ["y", "same"]) == own
        assert ask(client, name, rows, ["same"]) == [{"same": [row]} for row in rows]


def test_added_rows_go_to_nobody(client: Client) -> None:
    rows = [LOW, HIGH, HIGHER]
    assert ask(client, "double", rows, ["y"]) == ["error"] * 3
    assert ask(client, "double", rows, ["same"]) == [{"same": [row]} for row in rows]


def test_rows_that_only_add_up_are_not_split(client: Client) -> None:
    """Two, none and one place of a number that is not zero: as many rows as requests, and none of them is in order."""
    rows = [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]
    assert ask(client, "places", rows, ["y"]) == ["error", "error", {"y": [[0, 1]]}]


def test_a_request_of_several_rows_is_held_to_its_own(client: Client) -> None:
    model = client.model("filter")
    rows = np.array([HIGH, HIGHER, HIGH], np.float32)
    assert np.array_equal(model(x=rows)["y"], rows)
    with pytest.raises(ServerError):
        model(x=np.array([HIGH, LOW, HIGHER], np.float32))
