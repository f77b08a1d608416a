"""Which operator costs most."""

from __future__ import annotations

from pathlib import Path

from product_model import Product, rows, weights, write_product

from export.precision.int8 import Quantization
from export.precision.sensitivity import Cost, costs


def test_the_operator_with_the_widest_input_costs_most(tmp_path: Path) -> None:
    """`second` gets one input a thousand times larger than the rest, which then share a few steps of the range."""
    full = tmp_path / "full.onnx"
    write_product(full, weights(outlier=1000.0))
    quantization = Quantization(full, rows(1, 64), Product.reduced["int8"], (), tmp_path)
    steps: list[tuple[str, int, int]] = []

    found = costs(
        full, rows(1, 64), quantization.candidates, quantization.write, tmp_path, lambda *step: steps.append(step)
    )

    assert found[0].name == "second"
    assert found[0].error > 10 * found[1].error > 0
    assert [done for _, done, _ in steps] == [0, 1, 2, 3]


def test_a_cost_in_words() -> None:
    assert all(part in str(Cost("node_7", "MatMul", 0.0456)) for part in ("MatMul", "'node_7'", "4.6 %"))
    assert str(Cost("Softmax", "Softmax", 0.5)).count("Softmax") == 1
