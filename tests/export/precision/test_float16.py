"""FP16 graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto
from product_model import Product, rows, weights, write_product

from export.graph import onnx_file, signature
from export.precision.float16 import HalfPrecision

RULE = Product.reduced["fp16"]


def types(path: Path) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in onnx.load(path).graph.initializer}


def test_weights_are_halves_and_inputs_and_outputs_stay(tmp_path: Path) -> None:
    full, half = tmp_path / "full.onnx", tmp_path / "half.onnx"
    write_product(full, weights())

    HalfPrecision(full, RULE, ()).write(half)

    assert set(types(half).values()) == {TensorProto.FLOAT16}
    assert signature.from_onnx(half) == signature.from_onnx(full)
    x = rows(5, 8).inputs
    given, expected = onnx_file.session(half)(x)["y"], onnx_file.session(full)(x)["y"]
    assert 0 < np.abs(given - expected).max() < 1e-2


def test_what_is_excluded_stays_in_fp32(tmp_path: Path) -> None:
    full, half = tmp_path / "full.onnx", tmp_path / "half.onnx"
    write_product(full, weights())
    conversion = HalfPrecision(full, RULE, ("second",))

    conversion.write(half)

    assert types(half) == {
        "first_weight": TensorProto.FLOAT16,
        "second_weight": TensorProto.FLOAT,
        "third_weight": TensorProto.FLOAT16,
    }
    assert conversion.record()["kept_float"] == ["second"]


def test_one_operator_type_alone(tmp_path: Path) -> None:
    full, half = tmp_path / "full.onnx", tmp_path / "half.onnx"
    write_product(full, weights())
    conversion = HalfPrecision(full, RULE, ())

    conversion.write(half, only="Softmax")

    assert conversion.candidates == {"MatMul": "MatMul"}
    assert set(types(half).values()) == {TensorProto.FLOAT}


def test_weights_converted_from_file_to_file_are_those_of_a_graph_held_whole(tmp_path: Path) -> None:
    full = tmp_path / "full.onnx"
    write_product(full, weights())
    made = []
    for keep_bytes in (1 << 30, 100):
        path = tmp_path / f"{keep_bytes}.onnx"
        HalfPrecision(full, RULE, ("second",), keep_bytes=keep_bytes).write(path)
        made.append(onnx.load(path))
    assert made[0] == made[1]
    assert not list(tmp_path.glob("*.parts"))
