"""Sample requests: examples of every shape, sizes of open axes, and values that a graph can take."""

import argparse
import shlex

import numpy as np
import onnx
import pytest
from added_models import add_onnx, dims
from imported_models import I64, F, matrix, node, write
from onnx import TensorProto

from export.add.add import AddOptions, add
from export.add.sample_requests import SampleRequests, unknown_dims
from export.added.recipe import read_example, write_arrays
from export.errors import ContractError
from export.sources import from_onnx

DENSE = [node("MatMul", ["x", "w"], ["y"])]
WEIGHTS = {"w": matrix(3, 2)}


SCALAR_EXAMPLES = {
    "one number a row, as the input is": (8,),
    "a column, as numpy makes it": (8, 1),
    "a column of columns": (8, 1, 1),
}


@pytest.mark.parametrize("shape", SCALAR_EXAMPLES.values(), ids=SCALAR_EXAMPLES.keys())
def test_an_example_of_a_scalar_may_have_axes_of_one(shape, repository, tmp_path):
    nodes = [node("Cast", ["rate"], ["r"], to=F), node("Mul", ["x", "r"], ["y"])]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, [1, 4]), ("rate", I64, [])], [("y", F, [1, 4])])
    write_arrays(tmp_path / "rows.npz", {"x": np.ones((8, 1, 4), np.float32), "rate": np.full(shape, 16000)})
    made, message = add_onnx(repository, path, example=tmp_path / "rows.npz")
    assert dims(message) == {"x": [1, 4], "rate": [1], "y": [1, 4]}
    assert made.exported.manifest.stations["onnx"].accuracy == {"matching_rows": 1.0}


OTHER_SHAPES = {"an axis too many": (8, 5, 3), "an axis too few": (8,), "another size": (8, 5)}


@pytest.mark.parametrize("shape", OTHER_SHAPES.values(), ids=OTHER_SHAPES.keys())
def test_an_example_of_another_shape_is_refused_with_the_right_one(shape, repository, tmp_path):
    path = write(tmp_path / "m.onnx", DENSE, [("x", F, ["rows", 3])], [("y", F, ["rows", 2])], WEIGHTS)
    write_arrays(tmp_path / "rows.npz", {"x": np.ones(shape, np.float32)})
    with pytest.raises(ContractError) as caught:
        add_onnx(repository, path, example=tmp_path / "rows.npz")
    assert (caught.value.tensor, caught.value.found, caught.value.expected) == ("x", shape, (3,))
    assert not (repository / "mine").exists()


# (the graph's first axis and its others, the example's shape, the dims that are served)
FITTED = {
    "a batch of one in each request": (["rows", 3], (8, 1, 3), [3]),
    "one number a row where a column is taken": (["rows", 1], (8,), [1]),
    "a column where one number a row is taken": (["rows"], (8, 1), [1]),
    "whole requests without an axis of one": ([4, 1], (8, 4), [4, 1]),
}


@pytest.mark.parametrize(("taken", "given", "served"), FITTED.values(), ids=FITTED.keys())
def test_axes_of_one_in_an_example_are_added_or_taken_away(taken, given, served, repository, tmp_path):
    path = write(tmp_path / "m.onnx", [node("Neg", ["x"], ["y"])], [("x", F, taken)], [("y", F, taken)])
    write_arrays(tmp_path / "rows.npz", {"x": np.arange(np.prod(given), dtype=np.float32).reshape(given)})
    made, message = add_onnx(repository, path, example=tmp_path / "rows.npz")
    assert dims(message) == {"x": served, "y": served}
    assert made.exported.manifest.stations["onnx"].accuracy == {"matching_rows": 1.0}


def test_an_open_length_is_sized_by_its_symbol_and_stays_open(repository, tmp_path):
    path = write(
        tmp_path / "m.onnx",
        [node("Add", ["x", "z"], ["y"])],
        [("x", F, ["n", "steps"]), ("z", F, ["n", "steps"])],
        [("y", F, ["n", "steps"])],
    )
    made, message = add_onnx(repository, path, dims={"steps": 6})
    assert dims(message) == {"x": [-1], "z": [-1], "y": [-1]}
    assert made.recipe.example(2)["z"].shape == (2, 6)
    ((lengths,),) = made.recipe.axis_ranges["x"].values()
    assert (lengths.minimum, lengths.optimum, lengths.maximum) == (1, 6, 24)


def test_token_ids_stay_inside_the_table_they_index(repository, tmp_path):
    nodes = [node("Cast", ["ids"], ["wide"], to=I64), node("Gather", ["table", "wide"], ["y"])]
    path = write(
        tmp_path / "m.onnx",
        nodes,
        [("ids", TensorProto.INT32, ["n", 40])],
        [("y", F, ["n", 40, 2])],
        {"table": matrix(11, 2)},
    )
    made, _ = add_onnx(repository, path)
    ids = made.recipe.evaluation().inputs["ids"]
    assert (ids.dtype, ids.min(), ids.max()) == (np.int32, 0, 10)


def test_real_requests_take_the_place_of_made_up_ones(repository, tmp_path):
    path = write(tmp_path / "m.onnx", [node("Log", ["x"], ["y"])], [("x", F, ["n", 3])], [("y", F, ["n", 3])])
    rows = np.arange(1, 16, dtype=np.float32).reshape(5, 3)
    np.savez(tmp_path / "rows.npz", x=rows)
    made, _ = add_onnx(repository, path, example=tmp_path / "rows.npz")
    np.testing.assert_array_equal(made.recipe.evaluation().inputs["x"], rows)
    assert "file = " in (repository / "mine" / "recipe.toml").read_text()


BEYOND = [(F, 2**24 + 1, "FP32 rounds it"), (TensorProto.INT32, 2**31, "INT32 cuts it off")]


@pytest.mark.parametrize(("kind", "number", "why"), BEYOND, ids=[row[-1] for row in BEYOND])
def test_whole_numbers_that_the_input_does_not_hold_are_refused(kind, number, why, repository, tmp_path):
    path = write(
        tmp_path / "m.onnx", [node("Identity", ["x"], ["y"])], [("x", kind, ["n", 1])], [("y", kind, ["n", 1])]
    )
    np.savez(tmp_path / "rows.npz", x=np.array([[1], [number]]))
    with pytest.raises(ContractError) as refused:
        add_onnx(repository, path, example=tmp_path / "rows.npz")
    assert refused.value.tensor == "x"
    np.savez(tmp_path / "rows.npz", x=np.array([[1], [number - 1]]))
    add_onnx(repository, path, example=tmp_path / "rows.npz")


def test_one_example_row_is_filled_up_to_judge_batching(repository, tmp_path):
    nodes = [node("Softmax", ["x"], ["y"], axis=0)]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, ["n", 3])], [("y", F, ["n", 3])])
    np.savez(tmp_path / "rows.npz", x=matrix(1, 3))
    _, message = add_onnx(repository, path, example=tmp_path / "rows.npz")
    assert message.max_batch_size == 0, "one row alone equals itself, whatever the graph does with two"


def test_requests_of_a_model_without_a_batch_are_stacked_or_one(repository, tmp_path):
    path = write(tmp_path / "m.onnx", [node("Softmax", ["x"], ["y"], axis=0)], [("x", F, [4, 2])], [("y", F, [4, 2])])
    np.savez(tmp_path / "one.npz", x=matrix(4, 2).astype(np.float64))
    np.savez(tmp_path / "five.npz", x=np.stack([matrix(4, 2, seed) for seed in range(5)]))
    for name, rows in (("one", 1), ("five", 5)):
        made = add(name, AddOptions("onnx", str(path), example=tmp_path / f"{name}.npz"), repository)
        assert made.recipe.evaluation().inputs["x"].shape == (rows, 4, 2)
    np.savez(tmp_path / "text.npz", x=np.array(["a"]))
    with pytest.raises(ContractError) as caught:
        add("text", AddOptions("onnx", str(path), example=tmp_path / "text.npz"), repository)
    assert (caught.value.tensor, caught.value.found, caught.value.expected) == ("x", "<U1", np.float32)


def test_an_example_may_have_an_input_by_the_name_of_an_argument_of_savez(tmp_path):
    arrays = {"file": np.arange(2), "a/b:0": np.array(["x", "y"])}
    write_arrays(tmp_path / "example.npz", arrays)
    read = read_example(tmp_path / "example.npz")
    assert {name: rows.tolist() for name, rows in read.items()} == {"file": [0, 1], "a/b:0": ["x", "y"]}


CACHE = {"sequence_length": 3, "past_sequence_length": 5}


def with_cache(path, mask="past_sequence_length + sequence_length", past="past_sequence_length"):
    """A mask over a cache and what is new, as optimum names its axes."""
    nodes = [
        node("Cast", ["input_ids"], ["now"], to=F),
        node("Concat", ["past", "now"], ["all"], axis=1),
        node("Cast", ["attention_mask"], ["mask"], to=F),
        node("Mul", ["all", "mask"], ["y"]),
    ]
    inputs = [
        ("input_ids", I64, ["batch_size", "sequence_length"]),
        ("attention_mask", I64, ["batch_size", mask]),
        ("past", F, ["batch_size", past]),
    ]
    return write(path, nodes, inputs, [("y", F, ["batch_size", mask])])


def test_an_axis_that_is_a_sum_of_others_is_computed(repository, tmp_path):
    made, _ = add_onnx(repository, with_cache(tmp_path / "m.onnx"), dims=CACHE)
    shapes = {name: rows.shape[1:] for name, rows in made.recipe.evaluation().inputs.items()}
    assert shapes == {"input_ids": (3,), "attention_mask": (8,), "past": (5,)}
    ((mask,),) = made.recipe.axis_ranges["attention_mask"].values()
    assert (mask.minimum, mask.optimum, mask.maximum) == (2, 8, 32), "an engine takes what its parts may add up to"


def test_a_size_that_is_given_by_its_place_counts_as_that_of_its_name(repository, tmp_path):
    made, _ = add_onnx(repository, with_cache(tmp_path / "m.onnx"), dims={"input_ids:1": 3, "past:1": 5})
    assert made.recipe.evaluation().inputs["attention_mask"].shape[1:] == (8,)


SUGGESTED = {
    "a sum": {},
    "a difference, of which equal parts leave nothing": {
        "mask": "sequence_length",
        "past": "longest - sequence_length",
    },
    "half of another": {"past": "sequence_length // 2"},
    "a name for a shell to stumble over": {"past": "past length (tokens); $HOME"},
    "a name like an option": {"past": "--past"},
    "a number for a name": {"past": "4"},
    "a question mark for a name": {"past": "?"},
    "minus one for a name": {"past": "-1"},
}


@pytest.mark.parametrize("axes", SUGGESTED.values(), ids=SUGGESTED.keys())
def test_what_is_suggested_can_be_pasted_and_gives_every_axis_a_size(axes, repository, tmp_path):
    path = with_cache(tmp_path / "m.onnx", **axes)
    with pytest.raises(ContractError) as refusal:
        add_onnx(repository, path)
    suggested = refusal.value.expected
    assert suggested in str(refusal.value)
    given = argparse.ArgumentParser()
    given.add_argument("--dim", action="append")
    pairs = [text.rpartition("=") for text in given.parse_args(shlex.split(suggested)).dim]
    examples = SampleRequests(
        from_onnx.load(str(path), tmp_path), onnx.load(path), {name: int(n) for name, _, n in pairs}
    )
    assert unknown_dims(examples.model, examples.dims) is None
    assert all(all(rule.shape) for rule in examples.rules("own").values())


def test_sizes_that_leave_an_axis_none_are_reported(repository, tmp_path):
    path = with_cache(tmp_path / "m.onnx", past="longest - sequence_length")
    with pytest.raises(ContractError, match="longest=3, sequence_length=3") as caught:
        add_onnx(repository, path, dims={"longest": 3, "sequence_length": 3, "past_sequence_length": 2})
    assert (caught.value.tensor, caught.value.found) == ("past", "longest - sequence_length")
