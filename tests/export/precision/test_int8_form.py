"""INT8 in the form that TensorRT takes, and the sentence where it is in the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from product_model import Product, rows, weights, write_product, write_product_repository

from export.exporter import export_model
from export.graph import onnx_file
from export.lint.lint import lint
from export.precision.int8 import Quantization
from export.precision.int8_form import tensorrt_obstacle
from export.precision.precision import CPU, INT8, TENSORRT

ACCELERATOR = """\
optimization { execution_accelerators { gpu_execution_accelerator [ { name: "tensorrt" } ] } }
"""


@pytest.fixture
def small(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The product at INT8 for a runtime, `full.onnx` beside it."""
    write_product(tmp_path / "full.onnx", weights())
    rule, path = Product.reduced[INT8], tmp_path / "small.onnx"
    made = Quantization(tmp_path / "full.onnx", rows(1, 64), rule, (), tmp_path, runtime=request.param)
    assert made.record()["activations"] == ("int8 symmetric" if request.param == TENSORRT else "uint8")
    made.write(path)
    return path


@pytest.mark.parametrize("small", [TENSORRT], indirect=True)
def test_the_form_for_tensorrt_is_symmetric_and_close_to_fp32(small: Path) -> None:
    assert tensorrt_obstacle(small) is None
    kinds = {tensor.data_type for tensor in onnx.load(str(small)).graph.initializer}
    assert onnx.TensorProto.UINT8 not in kinds
    assert onnx.TensorProto.INT8 in kinds
    x = rows(2, 32).inputs
    full, reduced = (onnx_file.session(path)(x)["y"] for path in (small.with_name("full.onnx"), small))
    assert 0 < np.abs(full - reduced).max() < 0.2 * np.abs(full).max()


@pytest.mark.parametrize("small", [CPU], indirect=True)
def test_the_form_for_cpus_is_named_as_an_obstacle(small: Path) -> None:
    assert tensorrt_obstacle(small.with_name("full.onnx")) is None
    found = tensorrt_obstacle(small) or ""
    assert "'x'" in found
    assert "UINT8" in found


@pytest.mark.parametrize("small", [TENSORRT], indirect=True)
def test_a_zero_point_is_an_obstacle_too(small: Path) -> None:
    model = onnx.load(str(small))
    zero = next(tensor for tensor in model.graph.initializer if tensor.name == "x_zero_point")
    zero.CopyFrom(onnx.numpy_helper.from_array(np.array(-7, np.int8), zero.name))
    onnx.save(model, str(small))

    found = tensorrt_obstacle(small) or ""
    assert "'x'" in found
    assert "7" in found


def test_check_reports_it_where_tensorrt_is_configured_and_the_other_form_mends_it(tmp_path: Path) -> None:
    repository = write_product_repository(tmp_path / "model_repository")
    config = repository / "product" / "config.pbtxt"
    export_model(Product(), repository, precision=INT8, runtime=CPU)
    assert not [finding for finding in lint(repository) if finding.severity == "error"]
    config.write_text(config.read_text() + ACCELERATOR)

    (found,) = [finding for finding in lint(repository) if finding.severity == "error"]

    assert (found.severity, found.file.split("/")[0]) == ("error", "product")
    assert "'x'" in found.message
    assert (found.rule, found.field.rpartition(".")[2]) == ("int8", "name")
    result = export_model(Product(), repository, precision=INT8, runtime=TENSORRT)
    assert not result.skipped
    assert not [finding for finding in lint(repository) if finding.severity == "error"]
    assert export_model(Product(), repository, precision=INT8, runtime=TENSORRT).skipped
