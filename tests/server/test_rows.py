"""`rows_per_run: "auto"`: the backend computes as many rows a run as it found to be fastest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from complete_server import complete_server
from onnx import TensorProto, helper
from small_models import rows_together, write_onnx

from clients import Client

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
