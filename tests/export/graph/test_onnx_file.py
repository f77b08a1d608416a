"""Writing ONNX from torch, cleaning it, running it."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from scale_model import write_scale

from export.errors import NotLoadedError
from export.graph import onnx_file


@pytest.mark.slow
def test_a_torch_module_becomes_one_file_that_knows_no_path_of_this_machine(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Twice(torch.nn.Module):
        def forward(self, x):
            return x.sum(dim=1, keepdim=True) * 2

    path = tmp_path / "m.onnx"

    onnx_file.write_torch(Twice(), {"x": torch.ones(2, 3)}, {"x": {0: "batch", 1: "width"}}, "total", path)

    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]
    assert str(Path(__file__).parents[3]).encode() not in path.read_bytes()
    model = onnx.load(path)
    assert (model.opset_import[0].version, model.ir_version) == (onnx_file.OPSET, onnx_file.IR_VERSION)
    x = np.arange(20, dtype=np.float32).reshape(4, 5)
    assert np.allclose(onnx_file.session(path)({"x": x})["total"], 2 * x.sum(axis=1, keepdims=True))


def test_clean_removes_notes_and_keeps_the_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write_scale(path)
    model = onnx.load(path)
    model.graph.node[0].doc_string = "File /home/somebody/model.py, line 3"
    model.graph.node[1].metadata_props.add(key="stack_trace", value="/home/somebody")

    onnx_file.clean(model)

    onnx.save(model, path)

    assert b"somebody" not in path.read_bytes()
    assert (onnx_file.session(path)({"x": np.ones((1, 3), np.float32)})["y"] == 2).all()


def test_a_file_that_onnx_runtime_cannot_load(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")

    with pytest.raises(NotLoadedError) as caught:
        onnx_file.session(path)
    assert caught.value.file == "m.onnx"


def test_quiet_hushes_warnings_and_logs_and_lets_errors_pass(caplog: pytest.LogCaptureFixture) -> None:
    def chatter_and_fail() -> None:
        warnings.warn("chatter", stacklevel=1)
        logging.getLogger("torch.onnx").error("chatter")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), onnx_file.quiet():
        chatter_and_fail()

    assert caplog.records == []
    logging.getLogger("torch.onnx").error("heard again")
    assert [record.message for record in caplog.records] == ["heard again"]
