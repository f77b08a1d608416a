"""`rows_per_run: "auto"`: the backend computes as many rows a run as it found to be fastest, or says why it cannot."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from complete_server import complete_server
from onnx import TensorProto, helper
from small_models import rows_together, write_double, write_onnx

from clients import Client
from server import ServerStartError, TritonServer

pytestmark = pytest.mark.process

AUTO = 'parameters { key: "rows_per_run" value { string_value: "auto" } }'
CONFIG = f"""
backend: "onnxruntime"
max_batch_size: 4
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [ {{ name: "together" data_type: TYPE_INT64 dims: [ 1 ] }}, {{ name: "work" data_type: TYPE_FP32 dims: [ 1 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
{AUTO}
"""


def write_working(folder: Path, sines: int, work: list[onnx.NodeProto]) -> None:
    """A model that computes as many sines in a run as `all` says; the nodes `work` make it of `sines` and `count`."""
    write_onnx(
        folder / "1" / "model.onnx",
        [
            *rows_together(),
            helper.make_node("Constant", [], ["sines"], value=helper.make_tensor("n", TensorProto.INT64, [1], [sines])),
            *work,
            helper.make_node("ReduceMean", ["x"], ["one"], keepdims=0),
            helper.make_node("Expand", ["one", "all"], ["copies"]),
            helper.make_node("Sin", ["copies"], ["much"]),
            helper.make_node("ReduceMean", ["much"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["x", "mean"], ["work"]),
        ],
        [("x", TensorProto.FLOAT, ["n", 1])],
        [("together", TensorProto.INT64, ["n", 1]), ("work", TensorProto.FLOAT, ["n", 1])],
    )
    (folder / "config.pbtxt").write_text(CONFIG)


def write_crowded(folder: Path) -> None:
    """Its work grows with the square of the rows."""
    squared = [helper.make_node("Mul", ["count", "count"], ["squared"])]
    write_working(folder, 100_000, [*squared, helper.make_node("Mul", ["squared", "sines"], ["all"])])


def write_sociable(folder: Path) -> None:
    """Its work is the same for any number of rows."""
    write_working(folder, 400_000, [helper.make_node("Identity", ["sines"], ["all"])])


def test_the_rows_that_cost_least_here_are_computed_together(tmp_path: Path) -> None:
    write_crowded(tmp_path / "crowded")
    write_sociable(tmp_path / "sociable")
    with complete_server(tmp_path) as server, Client(server.grpc_url) as client:
        rows = np.zeros((4, 1), dtype=np.float32)
        found = {name: client.model(name)(x=rows)["together"].ravel().tolist() for name in ("crowded", "sociable")}
    assert found == {"crowded": [1, 1, 1, 1], "sociable": [4, 4, 4, 4]}


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    """Inputs of open size, zeros that the graph cannot compute, and a word that is neither a number nor auto."""
    write_onnx(
        tmp_path / "open" / "same" / "1" / "model.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, ["n", "m"])],
        [("y", TensorProto.FLOAT, ["n", "m"])],
    )
    (tmp_path / "open" / "same" / "config.pbtxt").write_text(f'backend: "onnxruntime" max_batch_size: 4 {AUTO}')
    write_double(tmp_path / "word" / "double", f"{AUTO.replace('auto', 'many')}")
    write_onnx(
        tmp_path / "zeros" / "picky" / "1" / "model.onnx",
        [
            helper.make_node("Constant", [], ["ten"], value=helper.make_tensor("ten", TensorProto.INT64, [1], [10])),
            helper.make_node("Sub", ["x", "ten"], ["index"]),
            helper.make_node("Constant", [], ["table"], value=helper.make_tensor("t", TensorProto.FLOAT, [2], [1, 2])),
            helper.make_node("Gather", ["table", "index"], ["y"]),
        ],
        [("x", TensorProto.INT64, ["n", 1])],
        [("y", TensorProto.FLOAT, ["n", 1])],
    )
    (tmp_path / "zeros" / "picky" / "config.pbtxt").write_text(f'backend: "onnxruntime" max_batch_size: 4 {AUTO}')
    names = {
        "open": ("rows_per_run", "'auto'", "'x'", "[-1]"),
        "word": ("rows_per_run", "'many'"),
        "zeros": ("rows_per_run", "'auto'", "zeros"),
    }

    def start(case: str) -> None:
        with pytest.raises(ServerStartError) as caught:
            TritonServer(tmp_path / case).start()
        (reason,) = caught.value.models.values()
        assert all(name in reason for name in names[case]), reason

    with ThreadPoolExecutor() as pool:
        list(pool.map(start, names))
