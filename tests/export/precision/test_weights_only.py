"""Weights in blocks of 8 bits: nearly the answers of the FP32 decoder, from a third of the bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_decoder

from export.errors import ExportError
from export.graph import onnx_file
from export.graph.signature import from_onnx
from export.models.language import llama
from export.precision.weights_only import WeightsOnly
from export.recipe.limits import Reduced, Tolerance

TEXT = np.arange(30, 60)
RULE = Reduced(Tolerance(1.0, 0.9), weights_only=True)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    tiny_decoder.write_folder(tmp_path / "1")
    return tmp_path / "1" / "model.onnx"


def logits(graph: Path) -> np.ndarray:
    inputs = from_onnx(graph)[0].inputs
    return onnx_file.session(graph)(llama.whole_text(inputs, TEXT, np.arange(len(TEXT))))["logits"][0]


def test_every_product_is_reduced_and_the_answers_stay(full, tmp_path):
    made = WeightsOnly(full, RULE, (), tmp_path, keep_bytes=1024)
    made.write(tmp_path / "reduced.onnx")
    assert made.record()["quantised"] == {"Gemm": 1, "MatMul": 7 * tiny_decoder.SHAPE.layers}
    assert (tmp_path / "reduced.onnx").stat().st_size < 0.4 * full.stat().st_size
    given, wanted = logits(tmp_path / "reduced.onnx"), logits(full)
    cosines = (given * wanted).sum(axis=1) / np.linalg.norm(given, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosines.min() > 0.99
    assert from_onnx(tmp_path / "reduced.onnx")[0] == from_onnx(full)[0]


def test_an_excluded_product_keeps_its_weights(full, tmp_path):
    made = WeightsOnly(full, RULE, ("Gemm",), tmp_path, keep_bytes=1024)
    made.write(tmp_path / "reduced.onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "reduced.onnx").graph.node if node.name == "lm_head"] == [
        "Gemm"
    ]
    assert made.record()["kept_float"] == ["lm_head"]


def test_a_graph_without_large_products_is_refused(full, tmp_path):
    with pytest.raises(ExportError) as refused:
        WeightsOnly(full, RULE, (), tmp_path, keep_bytes=1 << 30)
    assert refused.value.field == "precision"
