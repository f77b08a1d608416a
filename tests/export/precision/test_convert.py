"""Export at a reduced precision, from the recipe to the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from product_model import Product, write_product_repository
from scale_model import tree

from export.errors import AccuracyError, ExportError, RecipeError
from export.exporter import export_model
from export.graph import onnx_file
from export.lint.lint import lint
from export.repository.manifest import Manifest
from export.repository.scratch import SCRATCH


@pytest.fixture
def products(tmp_path: Path) -> Path:
    return write_product_repository(tmp_path / "model_repository")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_reduced_export_is_published_with_its_settings_and_distances(products: Path, precision: str) -> None:
    steps: list[str] = []

    result = export_model(Product(), products, precision=precision, on_progress=lambda step, *_: steps.append(step))

    record = Manifest.read(products / "product")
    assert record == result.manifest
    assert record is not None
    assert record.precision == precision
    assert record.stations is not None
    assert list(record.stations) == ["source", "onnx_fp32", "onnx"]
    assert record.reduction is not None
    assert 0 < record.reduction["parity_to_fp32"]["max_abs"] < 1.0
    assert record.stations["onnx"].parity != record.stations["onnx_fp32"].parity
    assert set(record.files) == {"1/model.onnx", "1/reference.npz"}
    assert sorted(path.name for path in (products / "product" / "1").iterdir()) == [
        *("manifest.json", "model.onnx", "reference.npz")
    ]
    assert [finding for finding in lint(products) if finding.severity == "error"] == []
    assert f"measure onnx at {precision}" in steps
    x = np.ones((2, 16), np.float32)
    assert onnx_file.session(products / "product" / "1" / "model.onnx")({"x": x})["y"].shape == (2, 16)


def test_another_precision_or_exclusion_exports_again_and_the_same_does_not(products: Path) -> None:
    seen = set()
    for precision, excluded in (("fp32", ()), ("fp16", ()), ("int8", ()), ("int8", ("second",)), ("fp32", ())):
        result = export_model(Product(), products, precision=precision, excluded=excluded)
        assert not result.skipped
        seen.add(result.manifest.files["1/model.onnx"].sha256)
        assert export_model(Product(), products, precision=precision, excluded=excluded).skipped

    assert len(seen) == 4


def test_a_failed_gate_names_the_figures_and_the_operator_and_publishes_nothing(products: Path) -> None:
    before = tree(products)

    with pytest.raises(AccuracyError) as caught:
        export_model(Product(outlier=1000.0), products, precision="int8")

    error = caught.value
    assert (error.field, error.found, error.expected) == ("sign_rate", pytest.approx(1.0), pytest.approx(0.1))
    assert "--exclude second" in str(error.remedy)
    assert tree(products) == before
    assert not (products.parent / SCRATCH).exists()


def test_the_exclusion_that_a_failed_gate_proposes_helps(products: Path) -> None:
    result = export_model(Product(outlier=1000.0), products, precision="int8", excluded=["second"])

    assert result.manifest.reduction is not None
    assert result.manifest.reduction["kept_float"] == ["second"]
    assert result.manifest.reduction["quantised"] == {"MatMul": 2}


def test_int8_without_calibration_data_and_an_unknown_exclusion_are_refused(products: Path) -> None:
    with pytest.raises(ExportError) as caught:
        export_model(Product(calibrated=False), products, precision="int8")
    assert caught.value.field == "calibration"
    with pytest.raises(RecipeError) as refused:
        export_model(Product(), products, precision="fp16", excluded=["fourth"])
    assert (refused.value.field, refused.value.found) == ("exclude", "fourth")
