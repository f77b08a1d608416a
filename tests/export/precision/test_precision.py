"""Precisions that recipes offer, and what stays in FP32."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from product_model import weights, write_product
from scale_model import Scale

from export import recipes
from export.errors import RecipeError
from export.precision.precision import FP32, kept_float, rule


def test_a_precision_that_is_not_offered_says_why(scale: Scale) -> None:
    for recipe, precision in ((scale, "int8"), (recipes.find("rain_forecast"), "fp16")):
        with pytest.raises(RecipeError) as caught:
            rule(recipe, precision)
        error = caught.value
        assert (error.field, error.found, error.expected) == ("precision", precision, (FP32,))
        assert recipe.why_not_reduced in str(error)


KEPT = [
    ((), (), set(), "nothing is kept"),
    (("second", "of_other_weights"), (), {"second"}, "the recipe's, where the graph has them"),
    ((), ("third",), {"third"}, "a person's node"),
    (("first",), ("MatMul",), {"first", "second", "third"}, "a person's operator type"),
]


@pytest.mark.parametrize(("keep", "excluded", "expected", "why"), KEPT, ids=[row[-1] for row in KEPT])
def test_kept_float(tmp_path: Path, keep, excluded, expected: set[str], why: str) -> None:
    write_product(tmp_path / "m.onnx", weights())

    assert kept_float(onnx.load(tmp_path / "m.onnx"), keep, excluded) == expected


def test_excluding_what_is_not_there_offers_what_is(tmp_path: Path) -> None:
    write_product(tmp_path / "m.onnx", weights())

    with pytest.raises(RecipeError) as caught:
        kept_float(onnx.load(tmp_path / "m.onnx"), (), ("secund",))
    assert (caught.value.field, caught.value.found) == ("exclude", "secund")
    assert "second" in str(caught.value)
