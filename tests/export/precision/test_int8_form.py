"""INT8 in the form that TensorRT takes, and the sentence where it is in the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
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


def test_the_form_for_tensorrt_is_symmetric_and_close_to_fp32(tmp_path: Path) -> None:
    write_product(tmp_path / "full.onnx", weights())
    quantization = Quantization(
        tmp_path / "full.onnx", rows(1, 64), Product.reduced[INT8], (), tmp_path, runtime=TENSORRT
    )
    quantization.write(tmp_path / "small.onnx")

    assert tensorrt_obstacle(tmp_path / "small.onnx") is None
    kinds = {tensor.data_type for tensor in onnx.load(str(tmp_path / "small.onnx")).graph.initializer}
    assert onnx.TensorProto.UINT8 not in kinds
    assert onnx.TensorProto.INT8 in kinds
    assert quantization.record()["activations"] == "int8 symmetric"
    x = rows(2, 32).inputs
    full, small = (onnx_file.session(tmp_path / name)(x)["y"] for name in ("full.onnx", "small.onnx"))
    assert 0 < np.abs(full - small).max() < 0.2 * np.abs(full).max()


def test_the_form_for_cpus_is_named_as_an_obstacle(tmp_path: Path) -> None:
    write_product(tmp_path / "full.onnx", weights())
    Quantization(tmp_path / "full.onnx", rows(1, 64), Product.reduced[INT8], (), tmp_path).write(
        tmp_path / "small.onnx"
    )

    assert tensorrt_obstacle(tmp_path / "full.onnx") is None
    found = tensorrt_obstacle(tmp_path / "small.onnx") or ""
    assert "'x'" in found
    assert "UINT8" in found


def test_a_zero_point_is_an_obstacle_too(tmp_path: Path) -> None:
    write_product(tmp_path / "full.onnx", weights())
    quantization = Quantization(
        tmp_path / "full.onnx", rows(1, 64), Product.reduced[INT8], (), tmp_path, runtime=TENSORRT
    )
    quantization.write(tmp_path / "small.onnx")
    model = onnx.load(str(tmp_path / "small.onnx"))
    zero = next(tensor for tensor in model.graph.initializer if tensor.name == "x_zero_point")
    zero.CopyFrom(onnx.numpy_helper.from_array(np.array(-7, np.int8), zero.name))
    onnx.save(model, str(tmp_path / "small.onnx"))

    found = tensorrt_obstacle(tmp_path / "small.onnx") or ""
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
