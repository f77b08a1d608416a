"""Models of trees have no precision below FP32."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from imported_models import F, matrix, node, write_functions
from onnx import helper

from export import recipes
from export.add.add import AddOptions, add
from export.errors import NotOfferedError
from export.exporter import export_model
from export.precision.compare import compare
from export.precision.trees import WHY_NOT_REDUCED, only_trees
from export.recipe.recipe import Recipe
from export.sources.base import SKLEARN

PRODUCT = node("MatMul", ["x", "w"], ["z"])
TREES = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        pytest.param([TREES], True, id="trees alone"),
        pytest.param([TREES, PRODUCT], False, id="trees beside a matrix of weights"),
        pytest.param([PRODUCT], False, id="no trees"),
    ],
)
def test_a_graph_of_trees_alone(nodes: list[onnx.NodeProto], expected: bool, tmp_path: Path) -> None:
    weights = {"w": matrix(3, 2)} if PRODUCT in nodes else {"scale": matrix(1, 3)}
    output = next(each.output[0] for each in nodes)
    path = tmp_path / "model.onnx"
    graph = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info("x", F, ["rows", 3])],
        [helper.make_tensor_value_info(output, F, ["rows", 1])],
        [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    onnx.save(helper.make_model(graph), str(path))

    assert only_trees(path) is expected


@pytest.fixture
def churn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """An added pipeline of trees, whose graph ONNX Runtime's converter to FP16 makes unloadable."""
    monkeypatch.chdir(tmp_path)
    repository = tmp_path / "r"
    repository.mkdir()
    add("churn", AddOptions(SKLEARN, f"{write_functions(tmp_path, 'tree_functions')}:churn"), repository)
    return recipes.find("churn", repository)


def test_an_added_model_of_trees_is_offered_at_fp32_only(churn: Recipe, tmp_path: Path) -> None:
    rows = compare(churn)

    assert [(row.precision, row.passed) for row in rows] == [("fp32", True), ("fp16", None), ("int8", None)]
    assert [row.gate for row in rows[1:]] == [WHY_NOT_REDUCED] * 2
    with pytest.raises(NotOfferedError) as caught:
        export_model(churn, tmp_path / "r", precision="fp16")
    assert (caught.value.why, caught.value.expected) == (WHY_NOT_REDUCED, ("fp32",))
