"""`matching_rows`: what counts as the source's answer, and which reduced precisions that refuses."""

import numpy as np
import pytest
from imported_models import F, matrix, node, write

from export import recipes
from export.add.add import AddOptions, add
from export.added.recipe import write_arrays
from export.errors import AccuracyError
from export.exporter import export_model
from export.recipe.agreement import matching
from export.recipe.gate import gate
from export.recipe.measure import Measurement, Parity, parity

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(20, 16)).astype(np.float32)
NOISE = RANDOM.normal(size=(20, 16)).astype(np.float32)
SHARES = np.array([[0.6, 0.4], [0.1, 0.9], [0.5004, 0.4996], [0.2, 0.8]], np.float32)
NUMBERS = 1000 + np.arange(20, dtype=np.float32)[:, None]
LOGITS = np.array([[3.0, -1.0, 0.0], [0.0, 1.0, -5.0]], np.float32)

AGREE = [
    ("y", SHARES, SHARES[:, ::-1].round(1), 0.25, "shares whose best is another, but for a tie"),
    ("y", SHARES, SHARES * 0.9 + 0.05, 1.0, "shares that moved and have the same best"),
    ("logits", LOGITS, LOGITS + np.array([0, 3, 0]), 1.0, "scores by name that moved and have the same best"),
    ("logits", LOGITS, LOGITS + np.array([0, 5, 0]), 0.5, "scores by name of which one has another best"),
    ("y", NUMBERS, NUMBERS + 0.5, 1.0, "numbers off by a fortieth of their range"),
    ("y", NUMBERS, NUMBERS + 2, 0.0, "numbers off by a tenth of their range, which is 0.2 % of their size"),
    ("y", NUMBERS, np.full_like(NUMBERS, 1009.5), 0.1, "one number for all, near their mean"),
    ("y", NUMBERS[:1], NUMBERS[:1] + 40, 1.0, "a single row, which has no range: by its size"),
    ("y", NUMBERS[:1], NUMBERS[:1] + 60, 0.0, "a single row that is off by more than a twentieth of its size"),
    ("y", VECTORS, VECTORS + 0.1 * NOISE, 1.0, "vectors of the same direction"),
    ("y", VECTORS, VECTORS[::-1], 0.0, "vectors of other rows"),
    ("y", 1000 + VECTORS, 1000 + VECTORS[::-1], 0.0, "vectors that differ by little from a large mean, of other rows"),
    ("y", 1000 + VECTORS, 1000 + VECTORS + 0.1 * NOISE, 1.0, "the same of their own rows"),
    (
        "y",
        1.7e9 + NUMBERS.astype(float),
        1.7e9 + NUMBERS + 10.0,
        0.0,
        "doubles, whose range is small beside their size",
    ),
    ("y", np.zeros((3, 4), np.float32), np.full((3, 4), 1e-9, np.float32), 1.0, "zeros, but for the arithmetic"),
    ("y", np.array([["a"], ["b"]]), np.array([[b"a"], [b"c"]], object), 0.5, "texts, one of them another"),
    ("y", np.array([[b"\xff"]], object), np.array([[b"\xfe"]], object), 0.0, "bytes that are no texts, and differ"),
    ("y", np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 5]]), 0.5, "whole numbers, one of them another"),
    ("y", VECTORS, VECTORS * np.nan, 0.0, "no numbers"),
    ("y", VECTORS, VECTORS[:, :3], 0.0, "another shape"),
]


@pytest.mark.parametrize(("name", "source", "given", "fraction", "why"), AGREE, ids=[row[-1] for row in AGREE])
def test_answers_agree_as_a_person_would_say(name, source, given, fraction, why):
    assert matching({name: np.asarray(given)}, {name: source}) == pytest.approx(fraction)


def test_a_row_agrees_with_all_its_outputs():
    source = {"y": np.array([[1], [2], [3]]), "z": np.array([["a"], ["b"], ["c"]])}
    given = {"y": np.array([[1], [2], [0]]), "z": np.array([["a"], ["x"], ["c"]])}
    assert matching(given, source) == pytest.approx(1 / 3)


def test_what_the_source_itself_varies_by_is_allowed():
    assert matching({"y": VECTORS[::-1]}, {"y": VECTORS}, noise=10) == 1
    assert matching({"y": VECTORS[::-1]}, {"y": VECTORS}, noise=1e-3) == 0


@pytest.fixture(scope="module")
def offset(tmp_path_factory):
    """A regressor of 10,000 plus little, with real requests whose first number is large and hardly counts."""
    folder = tmp_path_factory.mktemp("offset")
    nodes = [node("MatMul", ["x", "w"], ["z"]), node("Add", ["z", "b"], ["y"])]
    weights = {"w": np.array([[1e-6], [1], [1], [1]], np.float32), "b": np.array([10_000], np.float32)}
    path = write(folder / "m.onnx", nodes, [("x", F, ["n", 4])], [("y", F, ["n", 1])], weights)
    rows = RANDOM.normal(size=(16, 4)) * [10_000, 1, 1, 1]
    write_arrays(folder / "rows.npz", {"x": rows.astype(np.float32)})
    repository = folder / "model_repository"
    repository.mkdir()
    add("mine", AddOptions("onnx", str(path), example=folder / "rows.npz"), repository)
    return repository


PRECISIONS = [
    ("fp32", 1.0, True),
    ("fp16", 0.99, True),
    ("fp16", 0.9, False),
    ("int8", 0.95, True),
    ("int8", 0.9, False),
]


@pytest.mark.parametrize(("precision", "matching_rows", "passes"), PRECISIONS)
def test_a_precision_may_cost_few_rows(precision, matching_rows, passes, offset):
    recipe = recipes.find("mine", offset)
    source = Measurement({"matching_rows": 1.0})
    measured = Measurement({"matching_rows": matching_rows}, Parity(0, 0, 1))
    if passes:
        gate(recipe, "onnx", source, measured, recipe.reduced.get(precision))
        return
    with pytest.raises(AccuracyError) as refused:
        gate(recipe, "onnx", source, measured, recipe.reduced.get(precision))
    assert refused.value.field == "matching_rows"
    assert refused.value.found == pytest.approx(1 - matching_rows)


def test_a_precision_that_loses_the_answers_is_not_published(offset):
    """The large number takes INT8's steps: what is left is close by the size of the answers, and all of their range."""
    with pytest.raises(AccuracyError) as refused:
        export_model(recipes.find("mine", offset), offset, precision="int8")
    assert refused.value.field == "matching_rows"


def test_each_output_is_held_to_its_own_size(tmp_path):
    """Beside an output of 1e6, one of 1 might be off by anything."""
    nodes = [node("MatMul", ["x", "w"], ["small"]), node("Mul", ["small", "million"], ["large"])]
    weights = {"w": matrix(4, 3), "million": np.array([1e6], np.float32)}
    outputs = [("small", F, ["n", 3]), ("large", F, ["n", 3])]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, ["n", 4])], outputs, weights)
    repository = tmp_path / "model_repository"
    repository.mkdir()
    add("mine", AddOptions("onnx", str(path)), repository)
    recipe = recipes.find("mine", repository)
    rows = recipe.example(8)["x"]
    source = {"small": rows @ weights["w"], "large": 1e6 * rows @ weights["w"]}
    given = {"small": source["small"] + 0.02, "large": source["large"]}
    source_measured = Measurement({"matching_rows": 1.0})
    with pytest.raises(AccuracyError):
        gate(recipe, "onnx", source_measured, Measurement({"matching_rows": 1.0}, parity(given, source)))
