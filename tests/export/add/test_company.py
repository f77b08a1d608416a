"""Rows asked alone and in company: models as functions, and whether a batch is believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imported_models import F, node, write
from onnx import helper

from export.add import batching_trial
from export.add.company import disagreement, unlike
from export.added.input_generators import InputGenerator, InputRule
from export.added.recipe_file import NONE, OWN
from export.recipe.recipe import Array
from export.sources import from_onnx

RULES = {"x": InputRule("TYPE_FP32", (2,), InputGenerator("normal"))}
ROWS = {"x": np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)}


def fails_on_zeros(x: Array) -> Array:
    if not x.any(axis=1).all():
        raise ValueError("zeros")
    return x


def not_a_number(x: Array) -> Array:
    """Rows without an answer of their own, which spoil nobody else's."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return x / np.abs(x).sum(axis=1, keepdims=True)


ROW_BY_ROW: dict[str, Callable[[Array], Array]] = {
    "each by itself": lambda x: x * 2,
    "in another order of adding": lambda x: x + np.float32(1e-7) * len(x),
    "rows that it does not take are left out": fails_on_zeros,
    "rows of zeros have no answer": not_a_number,
}
IN_COMPANY: dict[str, Callable[[Array], Array]] = {
    "turned round": lambda x: x[::-1],
    "sorted": lambda x: np.sort(x, axis=0),
    "less the mean": lambda x: x - x.mean(axis=0),
    "a running sum": lambda x: np.cumsum(x, axis=0),
    "by its place": lambda x: x + np.arange(len(x), dtype=np.float32)[:, None],
    "by the number of rows": lambda x: x * len(x),
    "by the number of rows, from five on": lambda x: x * max(4, len(x)),
    "rows below -50 dropped": lambda x: x[x.min(axis=1) > -50],
    "rows above 50 dropped": lambda x: x[x.max(axis=1) < 50],
    "rows of zeros dropped": lambda x: x[x.any(axis=1)],
    "equal rows once": lambda x: np.unique(x, axis=0),
    "rows twice": lambda x: np.concatenate([x, x]),
    "another sign if any is large": lambda x: -x if x.max() > 50 else x,
    "one dropped and one added": lambda x: np.concatenate([x[x.min(axis=1) > -50], x[x.min(axis=1) <= -50] * 0]),
    "what is not a number spreads": lambda x: x + np.nan_to_num(not_a_number(x), nan=7).sum(),
    "fails with more than two": lambda x: x.reshape(min(len(x), 2), 2),
}


@pytest.mark.parametrize("answer", ROW_BY_ROW.values(), ids=ROW_BY_ROW.keys())
def test_a_model_that_answers_row_by_row_agrees(answer: Callable[[Array], Array]) -> None:
    assert disagreement(lambda inputs: {"y": answer(inputs["x"])}, unlike(ROWS, RULES)) is None


@pytest.mark.parametrize("answer", IN_COMPANY.values(), ids=IN_COMPANY.keys())
def test_an_answer_that_company_changes_is_found(answer: Callable[[Array], Array]) -> None:
    assert disagreement(lambda inputs: {"y": answer(inputs["x"])}, unlike(ROWS, RULES)) is not None


def test_a_slow_graph_answers_few_rows_and_found_all_the_same() -> None:
    asked = []

    def predict(inputs: Any) -> dict[str, Array]:
        asked.append(len(inputs["x"]))
        return {"y": inputs["x"] * 2}

    assert disagreement(predict, unlike(ROWS, RULES), budget_s=0) is None
    assert asked == [1, 1, 1, 3, 3]
    missed = [
        name
        for name, answer in IN_COMPANY.items()
        if disagreement(lambda inputs, answer=answer: {"y": answer(inputs["x"])}, unlike(ROWS, RULES), budget_s=0)
        is None
    ]
    assert missed == ["by the number of rows, from five on"]


def test_one_output_of_two_is_enough() -> None:
    assert "'z'" in str(disagreement(lambda inputs: {"y": inputs["x"], "z": inputs["x"][::-1]}, unlike(ROWS, RULES)))


KINDS: dict[str, tuple[InputGenerator, Array]] = {
    "TYPE_FP16": (InputGenerator("normal"), np.ones((3, 2), np.float16)),
    "TYPE_INT64": (InputGenerator("integers", high=9), np.ones((3, 2), np.int64)),
    "TYPE_BOOL": (InputGenerator("booleans"), np.array([[True], [False], [True]])),
    "TYPE_STRING": (InputGenerator("texts", texts=("a", "jazz")), np.array([["a"], ["jazz"], ["a"]])),
    "TYPE_UINT8": (InputGenerator("integers", high=255), np.ones((3, 2, 2), np.uint8)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_differ_are_of_the_inputs_type_and_within_its_values(kind: str) -> None:
    values, rows = KINDS[kind]
    made = unlike({"x": rows}, {"x": InputRule(kind, rows.shape[1:], values)})["x"]
    assert (len(made), made.shape[1:], made.dtype) == (7, rows.shape[1:], rows.dtype)
    assert np.array_equal(made[4:], rows)
    if values.kind == "integers":
        assert (made.min(), made.max()) == (0, values.high)


def branch(operator: str) -> Any:
    """A branch that makes `x` its output by one operator."""
    name = f"{operator}_of_x"
    return helper.make_graph(
        [node(operator, ["x"], [name])], operator, [], [helper.make_tensor_value_info(name, F, None)]
    )


def scan(carried: str) -> Any:
    """A scan over the rows of `x` that adds to each what is carried, which is made by the operator `carried`."""
    vectors = {name: helper.make_tensor_value_info(name, F, [4]) for name in ("sum", "row", "next", "given")}
    nodes = [
        node("Add", ["sum", "row"], ["given"]),
        node(carried, ["sum", "row"] if carried == "Add" else ["sum"], ["next"]),
    ]
    body = helper.make_graph(nodes, "body", [vectors["sum"], vectors["row"]], [vectors["next"], vectors["given"]])
    return node("Scan", ["start", "x"], ["end", "y"], body=body, num_scan_inputs=1)


LOW = np.array(-10, np.float32)
KEPT = [
    node("ReduceMax", ["x"], ["m"], axes=[1], keepdims=0),
    node("Greater", ["m", "low"], ["kept"]),
    node("Compress", ["x", "kept"], ["c"], axis=0),
]
# (nodes, what the graph calls the first axis of `y`, weights, whether a batch is believed)
GRAPHS: dict[str, Any] = {
    "rows dropped that no made-up row resembles": (
        [*KEPT, node("Neg", ["c"], ["y"])],
        *("kept", {"low": LOW}, False),
    ),
    "dropped where shapes cannot be followed": (
        [*KEPT, node("Reshape", ["c", "flat"], ["f"]), node("Reshape", ["f", "back"], ["y"])],
        *("n", {"low": LOW, "flat": np.array([-1]), "back": np.array([-1, 4])}, False),
    ),
    "a branch that the largest of the batch decides": (
        [
            node("ReduceMax", ["x"], ["top"], keepdims=0),
            node("Greater", ["top", "high"], ["over"]),
            node("If", ["over"], ["y"], then_branch=branch("Neg"), else_branch=branch("Identity")),
        ],
        *("n", {"high": np.array(10, np.float32)}, False),
    ),
    "a sum that a scan carries from row to row": (
        [scan(carried="Add")],
        "n",
        {"start": np.zeros(4, np.float32)},
        False,
    ),
    "a scan that carries the same to each row": (
        [scan(carried="Identity")],
        *("n", {"start": np.ones(4, np.float32)}, True),
    ),
    "what is not zero, put back where it was": (
        [
            node("NonZero", ["x"], ["places"]),
            node("Transpose", ["places"], ["found"]),
            node("GatherND", ["x", "found"], ["v"]),
            node("ScatterND", ["x", "found", "v"], ["y"]),
        ],
        *("n", {}, True),
    ),
    "a first axis with a name of its own, as exporters make them": ([node("Neg", ["x"], ["y"])], "y_dim_0", {}, True),
}


@pytest.mark.parametrize(("nodes", "first", "weights", "batched"), GRAPHS.values(), ids=GRAPHS.keys())
def test_a_batch_is_believed_only_of_row_by_row(
    nodes: Any, first: str, weights: Any, batched: bool, tmp_path: Path
) -> None:
    path = write(tmp_path / "m.onnx", nodes, [("x", F, ["n", 4])], [("y", F, [first, 4])], weights)
    found = batching_trial.plan(from_onnx.load(str(path), tmp_path), path, tmp_path, {})
    assert found.batch == (OWN if batched else NONE)
    assert batched == (not any("max_batch_size" in note for note in found.notes))
