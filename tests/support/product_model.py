"""A recipe whose small model can be reduced: three products with weights, quickly exported at any precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.recipe.limits import Figure, Reduced, Tolerance
from export.recipe.recipe import Evaluation, Recipe, Source, Weights

WIDTH = 16
PRODUCT_CONFIG = f"""\
name: "product"
backend: "onnxruntime"
max_batch_size: 8
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ {WIDTH} ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ {WIDTH} ] }} ]
"""


def weights(outlier: float = 1.0) -> list[np.ndarray]:
    """Three matrices. `outlier` enlarges one column of the first, and so one of the second's inputs, out of range."""
    random = np.random.default_rng(3)
    made = [random.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float32) for _ in range(3)]
    made[0][:, 0] *= outlier
    made[1][0] /= outlier
    return made


def write_product(path: Path, matrices: list[np.ndarray]) -> None:
    """x -> first -> second -> third -> y, each a MatMul with its name."""
    names = ["first", "second", "third"]
    between = ["x", "a", "b", "y"]
    nodes = [
        helper.make_node("MatMul", [between[index], f"{name}_weight"], [between[index + 1]], name=name)
        for index, name in enumerate(names)
    ]
    initializers = [
        numpy_helper.from_array(matrix, f"{name}_weight") for name, matrix in zip(names, matrices, strict=True)
    ]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "product", tensors[:1], tensors[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def write_product_repository(repository: Path) -> Path:
    """A model repository with the configuration of `product`; returns it."""
    (repository / "product" / "1").mkdir(parents=True)
    (repository / "product" / "config.pbtxt").write_text(PRODUCT_CONFIG)
    return repository


def rows(seed: int, count: int) -> Evaluation:
    """Random rows."""
    return Evaluation({"x": np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)})


class Product(Recipe):
    """`x` FP32 [N, 16] -> `y` FP32 [N, 16], three products apart."""

    name = "product"
    summary = "three products"
    figures = (Figure("sign_rate", "fraction of signs that are the source's", tolerance=0.0),)
    tolerance = Tolerance(max_abs=1e-4, min_cosine=0.99999)
    reduced = {  # noqa: RUF012
        "fp16": Reduced(Tolerance(max_abs=1e-2, min_cosine=0.9999), losses={"sign_rate": 0.02}),
        "int8": Reduced(Tolerance(max_abs=1.0, min_cosine=0.98), losses={"sign_rate": 0.1}),
    }

    def __init__(self, outlier: float = 1.0, calibrated: bool = True) -> None:
        self.matrices = weights(outlier)
        self.calibrated = calibrated

    def resolve(self, weights: str | None) -> Weights:
        return Weights("made here", {})

    def load(self, weights: Weights) -> Source:
        def predict(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            first, second, third = self.matrices
            return {"y": arrays["x"] @ first @ second @ third}

        calibration = (lambda: rows(1, 64)) if self.calibrated else None
        return Source(
            predict, lambda path: write_product(path, self.matrices), self.evaluation(), calibration=calibration
        )

    def evaluation(self) -> Evaluation:
        return rows(2, 64)

    def score(self, outputs, evaluation, source=None) -> dict[str, float]:
        if source is None:
            return {}
        return {"sign_rate": float((np.sign(outputs["y"]) == np.sign(source["y"])).mean())}

    def interpret(self, outputs, labels=()) -> list[str]:
        return [str(row) for row in outputs["y"]]
