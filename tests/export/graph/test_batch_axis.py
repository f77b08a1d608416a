"""What a graph's structure says of its batch axis: a graph a row, and the operator that is to blame for each output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from imported_models import I64, F, Tensor, node, write

from export.graph.batch_axis import obstacles

X: Tensor = ("x", F, ["n", 4])
PICTURE: Tensor = ("x", F, ["n", 3, 4, 4])
Y: Tensor = ("y", F, None)
COUNTS: Tensor = ("y", I64, None)
HALF, ROW = np.array(0.5, np.float32), np.array([0])
ONES = dict.fromkeys(("scale", "shift", "mean", "spread"), np.ones(4, np.float32))
LARGE_ENOUGH = [node("ReduceMax", ["x"], ["m"], axes=[1], keepdims=0), node("Greater", ["m", "half"], ["kept"])]
FOUND = [node("NonZero", ["x"], ["places"]), node("Transpose", ["places"], ["found"])]
BOXES = [("boxes", F, ["n", 9, 4]), ("scores", F, ["n", 1, 9])]
NMS = {"most": np.array([3]), "overlap": np.array([0.5], np.float32), "least": np.array([0.5], np.float32)}

# (nodes, inputs, outputs, weights, the operator that is named for each output that has an obstacle)
ROWS_ARE_CHOSEN: dict[str, Any] = {
    "rows above a threshold": (
        [*LARGE_ENOUGH, node("Compress", ["x", "kept"], ["y"], axis=0)],
        *([X], [Y], {"half": HALF}, {"y": "Compress"}),
    ),
    "the filtered rows go through a layer": (
        [*LARGE_ENOUGH, node("Compress", ["x", "kept"], ["c"], axis=0), node("MatMul", ["c", "w"], ["y"])],
        *([X], [Y], {"half": HALF, "w": np.ones((4, 2), np.float32)}, {"y": "Compress"}),
    ),
    "one of two outputs is filtered": (
        [*LARGE_ENOUGH, node("Compress", ["x", "kept"], ["y"], axis=0), node("Neg", ["x"], ["z"])],
        *([X], [Y, ("z", F, None)], {"half": HALF}, {"y": "Compress"}),
    ),
    "single numbers above a threshold, under a name of their own": (
        [
            node("Greater", ["x", "half"], ["kept"]),
            node("Compress", ["x", "kept"], ["c"]),
            node("Reshape", ["c", "to"], ["y"]),
        ],
        *([X], [("y", F, ["kept", 2])], {"half": HALF, "to": np.array([-1, 2])}, {"y": "Compress"}),
    ),
    "the first rows, as many as are large": (
        [
            *LARGE_ENOUGH,
            node("Cast", ["kept"], ["ones"], to=I64),
            node("ReduceSum", ["ones"], ["count"]),
            node("Slice", ["x", "row", "count", "row"], ["y"]),
        ],
        *([X], [Y], {"half": HALF, "row": ROW}, {"y": "Slice"}),
    ),
    "boxes with what else is known of them": (
        [
            node("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["chosen"]),
            node("Gather", ["chosen", "places"], ["at"], axis=1),
            node("GatherND", ["boxes", "at"], ["corners"]),
            node("Cast", ["at"], ["numbers"], to=F),
            node("Concat", ["numbers", "corners"], ["y"], axis=1),
        ],
        *(BOXES, [Y], {**NMS, "places": np.array([0, 2])}, {"y": "NonMaxSuppression"}),
    ),
    "places of what is not zero": (FOUND, [X], [("found", I64, None)], {}, {"found": "NonZero"}),
    "boxes without overlap": (
        [node("NonMaxSuppression", ["boxes", "scores", "most", "overlap", "least"], ["y"])],
        *(BOXES, [COUNTS], NMS, {"y": "NonMaxSuppression"}),
    ),
    "distinct rows": ([node("Unique", ["x"], ["y"], axis=0)], [X], [Y], {}, {"y": "Unique"}),
}
ROWS_ARE_ADDED: dict[str, Any] = {
    "rows twice": ([node("Concat", ["x", "x"], ["y"], axis=0)], [X], [Y], {}, {"y": "Concat"}),
    "rows tiled": ([node("Tile", ["x", "by"], ["y"])], [X], [Y], {"by": np.array([2, 1])}, {"y": "Tile"}),
    "each row three times": (
        [
            node("Unsqueeze", ["x", "one"], ["u"]),
            node("Expand", ["u", "three"], ["e"]),
            node("Reshape", ["e", "rows"], ["y"]),
        ],
        *([X], [Y], {"one": np.array([1]), "three": np.array([1, 3, 1]), "rows": np.array([-1, 4])}),
        {"y": "Reshape"},
    ),
    "a row of zeros behind": (
        [node("Pad", ["x", "by"], ["y"])],
        [X],
        [Y],
        {"by": np.array([0, 0, 1, 0])},
        {"y": "Pad"},
    ),
    "halves": ([node("Split", ["x"], ["y", "z"], axis=0)], [X], [Y, ("z", F, None)], {}, dict.fromkeys("yz", "Split")),
}
ROWS_MEET: dict[str, Any] = {
    "the largest over the batch": ([node("TopK", ["x", "k"], ["y", "at"], axis=0)], [X], [Y], {"k": np.array([2])}),
    "a softmax over the batch": ([node("Softmax", ["x"], ["y"], axis=0)], [X], [Y], {}),
    "less the mean over the batch": (
        [node("ReduceMean", ["x"], ["m"], axes=[0]), node("Sub", ["x", "m"], ["y"])],
        *([X], [Y], {}),
    ),
    "a share of the sum of everything": (
        [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Div", ["x", "s"], ["y"])],
        *([X], [Y], {}),
    ),
    "a running sum over the batch": ([node("CumSum", ["x", "zero"], ["y"])], [X], [Y], {"zero": np.array(0)}),
    "the batch turned round": (
        [node("Slice", ["x", "last", "before", "rows", "back"], ["y"])],
        *([X], [Y], {"last": np.array([-1]), "before": np.array([-(2**62)]), "rows": ROW, "back": np.array([-1])}),
    ),
    "a softmax over everything, laid flat": (
        [node("Reshape", ["x", "flat"], ["f"]), node("Softmax", ["f"], ["s"]), node("Reshape", ["s", "back"], ["y"])],
        *([X], [Y], {"flat": np.array([-1]), "back": np.array([-1, 4])}),
    ),
    "a softmax over the batch behind heads, whose shapes are not followed": (
        [
            node("Reshape", ["x", "heads"], ["h"]),
            node("Add", ["h", "x3"], ["a"]),
            node("Softmax", ["a"], ["y"], axis=0),
        ],
        *([X, ("x3", F, ["n", 2, 2])], [Y], {"heads": np.array([-1, 2, 2])}),
    ),
    "less the first row": (
        [node("Gather", ["x", "row"], ["r"], axis=0), node("Sub", ["x", "r"], ["y"])],
        *([X], [Y], {"row": ROW}),
    ),
    "likeness of each row to each": (
        [node("Transpose", ["x"], ["t"]), node("MatMul", ["x", "t"], ["y"])],
        *([X], [Y], {}),
    ),
    "likeness written as a sum": ([node("Einsum", ["x", "x"], ["y"], equation="bi,ci->bc")], [X], [Y], {}),
    "products summed over the batch": ([node("Gemm", ["x", "x"], ["y"], transA=1)], [X], [Y], {}),
    "a batch normalization that still learns": (
        [node("BatchNormalization", ["x", *ONES], ["y", "m", "v"], training_mode=1)],
        *([X], [Y], ONES),
    ),
    "a normalization over pictures": ([node("MeanVarianceNormalization", ["x"], ["y"])], [PICTURE], [Y], {}),
}
ELSEWHERE: dict[str, Any] = {
    "rows on the second axis": ([node("Transpose", ["x"], ["y"])], [X], [Y], {}, {"y": "Transpose"}),
    "a constant": ([node("Identity", ["w"], ["y"])], [X], [Y], {"w": np.ones((3, 4), np.float32)}, {"y": "Identity"}),
}
ONE_FOR_ONE: dict[str, Any] = {
    "a layer": ([node("MatMul", ["x", "w"], ["y"])], [X], [Y], {"w": np.ones((4, 2), np.float32)}),
    "a softmax of each row": ([node("Softmax", ["x"], ["y"], axis=1)], [X], [Y], {}),
    "the largest of each row": ([node("TopK", ["x", "k"], ["y", "at"])], [X], [Y], {"k": np.array([2])}),
    "a running sum of each row": ([node("CumSum", ["x", "one"], ["y"])], [X], [Y], {"one": np.array(1)}),
    "a mean of each row": ([node("ReduceMean", ["x"], ["y"], axes=[-1])], [X], [Y], {}),
    "each row twice as wide": ([node("Tile", ["x", "by"], ["y"])], [X], [Y], {"by": np.array([1, 2])}),
    "a slice of the whole batch": (
        [node("Slice", ["x", "row", "end", "row"], ["y"])],
        *([X], [Y], {"row": ROW, "end": np.array([2**62])}),
    ),
    "what is not zero, put back where it was": (
        [
            *FOUND,
            node("GatherND", ["x", "found"], ["v"]),
            node("Neg", ["v"], ["w"]),
            node("ScatterND", ["x", "found", "w"], ["y"]),
        ],
        *([X], [Y], {}),
    ),
    "twice the batch within, half of it given": (
        [
            node("Concat", ["x", "x"], ["both"], axis=0),
            node("Split", ["both"], ["a", "b"], axis=0),
            node("Add", ["a", "b"], ["y"]),
        ],
        *([X], [Y], {}),
    ),
    "steps of all rows laid flat for a layer": (
        [node("Reshape", ["x", "flat"], ["f"]), node("Softmax", ["f"], ["s"]), node("Reshape", ["s", "back"], ["y"])],
        *([("x", F, ["n", 3, 4])], [Y], {"flat": np.array([-1, 4]), "back": np.array([-1, 3, 4])}),
    ),
    "columns of zeros behind": ([node("Pad", ["x", "by"], ["y"])], [X], [Y], {"by": np.array([0, 0, 0, 1])}),
    "a constant filtered by a constant": (
        [node("Compress", ["w", "kept"], ["c"], axis=0), node("Add", ["x", "c"], ["y"])],
        *([X], [Y], {"w": np.ones((3, 4), np.float32), "kept": np.array([False, True, False])}),
    ),
    "heads that are split and turned": (
        [
            node("Reshape", ["x", "heads"], ["h"]),
            node("Transpose", ["h"], ["t"], perm=[0, 2, 1]),
            node("MatMul", ["h", "t"], ["s"]),
            node("Softmax", ["s"], ["y"], axis=-1),
        ],
        *([X], [Y], {"heads": np.array([0, 2, 2])}),
    ),
    "scores of each row, added up by name": ([node("Einsum", ["x", "x"], ["y"], equation="bi,bi->b")], [X], [Y], {}),
}


def blamed(tmp_path: Path, nodes: Any, inputs: Any, outputs: Any, weights: Any) -> dict[str, str]:
    """{output: operator} of what is found."""
    path = write(tmp_path / "m.onnx", nodes, inputs, outputs, weights, opset=17)
    return {each.output: each.operator.split(" ")[0] for each in obstacles(onnx.load(str(path)))}


CHANGED = {**ROWS_ARE_CHOSEN, **ROWS_ARE_ADDED, **ELSEWHERE}


@pytest.mark.parametrize("graph", CHANGED.values(), ids=CHANGED.keys())
def test_other_rows_than_the_batch_are_found(graph: Any, tmp_path: Path) -> None:
    assert blamed(tmp_path, *graph[:4]) == graph[4]


@pytest.mark.parametrize("graph", ROWS_MEET.values(), ids=ROWS_MEET.keys())
def test_rows_that_meet_are_found(graph: Any, tmp_path: Path) -> None:
    operators = {each.op_type for each in graph[0]}
    found = blamed(tmp_path, *graph)
    assert set(found) == {"y"}
    assert found["y"] in operators


@pytest.mark.parametrize("graph", ONE_FOR_ONE.values(), ids=ONE_FOR_ONE.keys())
def test_a_graph_that_answers_row_by_row_is_not_suspected(graph: Any, tmp_path: Path) -> None:
    assert blamed(tmp_path, *graph) == {}


def test_a_softmax_before_opset_13_covers_the_axes_behind_its_own(tmp_path: Path) -> None:
    for axis, found in ((0, {"y": "Softmax"}), (1, {})):
        path = write(tmp_path / "m.onnx", [node("Softmax", ["x"], ["y"], axis=axis)], [X], [Y], opset=11)
        assert {each.output: each.operator for each in obstacles(onnx.load(str(path)))} == found


def test_the_operator_is_named_as_in_the_graph(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [node("Softmax", ["x"], ["y"], axis=0, name="/head/softmax")], [X], [Y])
    (found,) = obstacles(onnx.load(str(path)))
    assert "Softmax '/head/softmax'" in str(found)
    assert "'y'" in str(found)
