"""`add`: what is decided about a graph, what is drafted, and that nothing is half there."""

import argparse
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
from imported_models import I64, F, matrix, node, write
from onnx import TensorProto

from export import recipes
from export.add.add import AddOptions, add
from export.add.sample_requests import SampleRequests, unknown_dims
from export.added.recipe import read_example, write_arrays
from export.config import config as configs
from export.engine.profiles import profiles
from export.errors import AccuracyError, ContractError, ExportError, RecipeError
from export.exporter import export_model
from export.graph import edit, interface
from export.lint.lint import lint
from export.recipe.measure import Reference
from export.repository.manifest import Manifest
from export.sources import from_onnx

DENSE = [node("MatMul", ["x", "w"], ["y"])]
WEIGHTS = {"w": matrix(3, 2)}


@pytest.fixture
def repository(tmp_path):
    made = tmp_path / "model_repository"
    made.mkdir()
    return made


def add_onnx(repository: Path, path: Path, **options):
    """Add an ONNX file as `mine`; returns the addition and the parsed config.pbtxt."""
    made = add("mine", AddOptions("onnx", str(path), **options), repository)
    return made, configs.load(repository / "mine" / "config.pbtxt").message


def dims(message):
    return {tensor.name: list(tensor.dims) for tensor in (*message.input, *message.output)}


def said(made, words):
    return [note for note in made.notes if words in note]


def test_an_open_batch_is_kept_and_the_draft_lints_clean(repository, tmp_path):
    path = write(tmp_path / "m.onnx", DENSE, [("x", F, ["rows", 3])], [("y", F, ["rows", 2])], WEIGHTS)
    made, message = add_onnx(repository, path)
    assert message.max_batch_size == made.max_batch_size == 8
    assert dims(message) == {"x": [3], "y": [2]}
    assert message.dynamic_batching.default_queue_policy.max_queue_size == 256
    assert [sample.batch_size for sample in message.model_warmup] == [1, 8]
    assert lint(repository) == []


def test_the_same_export_again_does_nothing_and_by_force_gives_the_same_bytes(repository, tmp_path):
    path = write(tmp_path / "m.onnx", DENSE, [("x", F, ["rows", 3])], [("y", F, ["rows", 2])], WEIGHTS)
    add_onnx(repository, path)
    before = Manifest.read(repository / "mine")
    assert export_model(recipes.find("mine", repository), repository).skipped
    again = export_model(recipes.find("mine", repository), repository, force=True)
    assert before is not None
    assert not again.skipped
    assert again.manifest.files == before.files


def test_a_changed_source_is_exported_again_and_a_missing_one_is_named(repository, tmp_path):
    shapes = [("x", F, ["rows", 3])], [("y", F, ["rows", 2])]
    path = write(tmp_path / "m.onnx", DENSE, *shapes, WEIGHTS)
    add_onnx(repository, path)
    kept = repository / "mine" / "source" / "m.onnx"
    write(kept, DENSE, *shapes, {"w": matrix(3, 2, seed=1)})
    assert not export_model(recipes.find("mine", repository), repository).skipped
    kept.unlink()
    with pytest.raises(RecipeError) as caught:
        export_model(recipes.find("mine", repository), repository)
    assert str(kept) in str(caught.value)
    moved = export_model(recipes.find("mine", repository), repository, weights=str(path))
    assert not moved.skipped


def test_weights_listed_as_inputs_become_constants(repository, tmp_path):
    shapes = [("x", F, ["rows", 3])], [("y", F, ["rows", 2])]
    path = write(tmp_path / "m.onnx", DENSE, *shapes, WEIGHTS, opset=9, ir_version=3, weights_as_inputs=True)
    made, message = add_onnx(repository, path)
    assert [tensor.name for tensor in message.input] == ["x"]
    assert said(made, "inputs")
    assert len(onnx.load(str(repository / "mine" / "1" / "model.onnx")).graph.input) == 1


def test_a_batch_fixed_at_one_is_opened_through_its_reshapes(repository, tmp_path):
    nodes = [
        node("Reshape", ["x", "flat"], ["a"]),
        node("MatMul", ["a", "w"], ["b"]),
        node("Reshape", ["b", "split"], ["y"]),
    ]
    weights = {"flat": np.array([1, 6]), "split": np.array([1, 2, -1]), "w": matrix(6, 4)}
    path = write(tmp_path / "m.onnx", nodes, [("x", F, [1, 2, 3])], [("y", F, [1, 2, 2])], weights)
    made, message = add_onnx(repository, path)
    assert message.max_batch_size == 8
    assert dims(message) == {"x": [2, 3], "y": [2, 2]}
    assert said(made, "open")
    assert made.exported.manifest.stations["onnx"].parity.max_abs < 1e-5


NOT_A_BATCH = {
    "rows that look at one another": (
        [node("Softmax", ["x"], ["y"], axis=0)],
        [("x", F, ["n", 3])],
        [("y", F, ["n", 3])],
        {"n": 5},
        "--dim",
    ),
    "a sum over the first axis": (
        [node("ReduceSum", ["x"], ["y"], keepdims=0)],
        [("x", F, [1, 3])],
        [("y", F, None)],
        {},
        "ReduceSum",
    ),
    "a row that is squeezed away": (
        [node("Reshape", ["x", "flat"], ["y"])],
        [("x", F, [1, 3])],
        [("y", F, [3])],
        {},
        "Reshape",
    ),
    "an expansion that holds on to one row": (
        [node("Expand", ["x", "two"], ["a"]), node("Split", ["a"], ["y", "z"], axis=0)],
        [("x", F, [1, 3])],
        [("y", F, [1, 3])],
        {},
        "Split",
    ),
    "a batch fixed at four": (
        [node("Relu", ["x"], ["y"])],
        [("x", F, [4, 3])],
        [("y", F, [4, 3])],
        {},
        "'x' 4",
    ),
    "one input of one row and one of four": (
        [node("Add", ["x", "z"], ["y"])],
        [("x", F, [4, 3]), ("z", F, [1, 3])],
        [("y", F, [4, 3])],
        {},
        "'x' 4, 'z' 1",
    ),
}


@pytest.mark.parametrize(("nodes", "inputs", "outputs", "sizes", "why"), NOT_A_BATCH.values(), ids=NOT_A_BATCH.keys())
def test_what_is_no_batch_is_served_whole(nodes, inputs, outputs, sizes, why, repository, tmp_path):
    constants = {"flat": np.array([3]), "two": np.array([2, 3])}
    used = {name for each in nodes for name in each.input}
    weights = {name: array for name, array in constants.items() if name in used}
    path = write(tmp_path / "m.onnx", nodes, inputs, outputs, weights, opset=13)
    made, message = add_onnx(repository, path, dims=sizes)
    assert message.max_batch_size == made.max_batch_size == 0
    assert said(made, why), made.notes
    assert said(made, "max_batch_size")
    assert [finding for finding in lint(repository) if finding.severity == "error"] == []


def test_a_first_axis_that_is_no_batch_stays_open(repository, tmp_path):
    nodes = [node("Softmax", ["x"], ["y"], axis=0)]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, ["steps", 3])], [("y", F, ["steps", 3])])
    made, message = add_onnx(repository, path)
    assert (message.max_batch_size, dims(message)) == (0, {"x": [-1, 3], "y": [-1, 3]})
    assert said(made, "Softmax")


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


def test_batching_can_be_declined(repository, tmp_path):
    path = write(tmp_path / "m.onnx", DENSE, [("x", F, ["rows", 3])], [("y", F, ["rows", 2])], WEIGHTS)
    _, message = add_onnx(repository, path, max_batch_size=0, dims={"rows": 5})
    assert (message.max_batch_size, dims(message)) == (0, {"x": [-1, 3], "y": [-1, 2]})
    assert Reference.read(repository / "mine" / "1" / "reference.npz").evaluation.inputs["x"].shape[1:] == (5, 3)


def test_tensors_with_the_batch_alone_get_an_axis_of_one(repository, tmp_path):
    nodes = [node("Mul", ["x", "x"], ["y"]), node("Greater", ["y", "x"], ["z"])]
    outputs = [("y", F, ["n"]), ("z", TensorProto.BOOL, ["n"])]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, ["n"])], outputs)
    made, message = add_onnx(repository, path)
    assert dims(message) == {"x": [1], "y": [1], "z": [1]}
    assert said(made, "'x', 'y', 'z'")


def test_outputs_without_shapes_get_those_of_a_run(repository, tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["y"]), node("ReduceMax", ["x"], ["top"], keepdims=0)]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, [2, 3])], [("y", F, None), ("top", F, None)], WEIGHTS, opset=13)
    _, message = add_onnx(repository, path)
    assert dims(message) == {"x": [2, 3], "y": [2, 2], "top": [1]}


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


@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BOOL, TensorProto.UINT8, TensorProto.STRING]
)
def test_every_type_that_numpy_has_is_taken(kind, repository, tmp_path):
    path = write(
        tmp_path / "m.onnx",
        [node("Identity", ["a/b:0"], ["c d"])],
        [("a/b:0", kind, ["n", 3])],
        [("c d", kind, ["n", 3])],
    )
    made, message = add_onnx(repository, path)
    assert message.input[0].name == "a/b:0"
    assert made.exported.manifest.stations["onnx"].accuracy == {"matching_rows": 1.0}
    assert bool(said(made, "float64")) == (kind == TensorProto.DOUBLE)


def test_control_flow_is_taken(repository, tmp_path):
    branches = {
        name: onnx.helper.make_graph(
            [node(operator, ["x"], [f"{name}_out"])],
            name,
            [],
            [onnx.helper.make_tensor_value_info(f"{name}_out", F, None)],
        )
        for name, operator in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    nodes = [node("ReduceSum", ["x"], ["sum"], keepdims=0), node("Greater", ["sum", "zero"], ["positive"])]
    nodes.append(onnx.helper.make_node("If", ["positive"], ["y"], **branches))
    path = write(
        tmp_path / "m.onnx",
        nodes,
        [("x", F, ["n", 3])],
        [("y", F, ["n", 3])],
        {"zero": np.array(0, np.float32)},
        opset=13,
    )
    _, message = add_onnx(repository, path, dims={"n": 2})  # one branch for all rows: no batch
    assert message.max_batch_size == 0


def test_random_answers_are_reported_and_allowed_for(repository, tmp_path):
    nodes = [node("RandomNormalLike", ["x"], ["noise"]), node("Add", ["x", "noise"], ["y"])]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, [4, 3])], [("y", F, [4, 3])])
    made, _ = add_onnx(repository, path)
    assert said(made, "RandomNormalLike")


def test_external_data_comes_along(repository, tmp_path):
    path = write(tmp_path / "from" / "m.onnx", DENSE, [("x", F, ["n", 3])], [("y", F, ["n", 2])], WEIGHTS)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    add_onnx(repository, path)
    assert sorted(file.name for file in (repository / "mine" / "1").iterdir()) == [
        "manifest.json",
        "model.onnx",
        "model.onnx.data",
        "reference.npz",
    ]
    manifest = Manifest.read(repository / "mine")
    assert manifest is not None
    assert "1/model.onnx.data" in manifest.files
    assert export_model(recipes.find("mine", repository), repository).skipped
    (repository / "mine" / "source" / "weights.bin").write_bytes(matrix(3, 2, seed=4).tobytes())
    assert not export_model(recipes.find("mine", repository), repository).skipped
    assert (repository / "mine" / "1" / "model.onnx.data").read_bytes() == matrix(3, 2, seed=4).tobytes()
    assert lint(repository) == []


def test_a_hubs_cache_which_links_the_model_and_its_data_is_taken_and_kept_by_the_links_name(repository, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    path = write(blobs / "m.onnx", DENSE, [("x", F, ["n", 3])], [("y", F, ["n", 2])], WEIGHTS)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.onnx_data", size_threshold=0)
    snapshot.mkdir()
    for number, name in enumerate(("m.onnx", "m.onnx_data")):
        (blobs / name).rename(blobs / f"{number}")
        (snapshot / name).symlink_to(blobs / f"{number}")
    add_onnx(repository, snapshot / "m.onnx")
    kept = repository / "mine" / "source"
    assert sorted(path.name for path in kept.iterdir() if not path.is_symlink()) == ["m.onnx", "m.onnx_data"]
    assert export_model(recipes.find("mine", repository), repository).skipped
    (kept / "m.onnx_data").unlink()
    with pytest.raises(ExportError, match=r"m\.onnx_data"):
        export_model(recipes.find("mine", repository), repository)


def test_scalars_are_served_with_an_axis_of_one(repository, tmp_path):
    """As of a voice detector that takes its sample rate so; one of the outputs is a constant."""
    nodes = [node("Cast", ["rate"], ["r"], to=F), node("Mul", ["x", "r"], ["y"]), node("Identity", ["rate"], ["same"])]
    path = write(
        tmp_path / "m.onnx",
        nodes,
        [("x", F, [2, 3]), ("rate", I64, [])],
        [("y", F, [2, 3]), ("same", I64, []), ("constant", F, [])],
        {"constant": np.array(3, np.float32)},
    )
    made, message = add_onnx(repository, path)
    assert (message.max_batch_size, dims(message)) == (
        0,
        {"x": [2, 3], "rate": [1], "y": [2, 3], "same": [1], "constant": [1]},
    )
    assert said(made, "'rate'")
    assert export_model(recipes.find("mine", repository), repository, force=True).manifest.files


def test_an_output_that_somebody_only_named_gets_its_type(repository, tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["inner"]), node("ArgMax", ["inner"], ["y"], axis=1)]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, ["n", 3])], [("y", I64, ["n", 1])], WEIGHTS)
    model = onnx.load(path)
    model.graph.output.add(name="inner")
    onnx.save(model, path)
    _, message = add_onnx(repository, path)
    assert dims(message) == {"x": [3], "y": [1], "inner": [2]}


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


def test_it_is_exported_in_half_precision(repository, tmp_path):
    path = write(tmp_path / "m.onnx", DENSE, [("x", F, ["n", 3])], [("y", F, ["n", 2])], WEIGHTS)
    add_onnx(repository, path)
    made = export_model(recipes.find("mine", repository), repository, precision="fp16")
    assert made.manifest.precision == "fp16"
    with pytest.raises(RecipeError) as caught:
        export_model(recipes.find("mine", repository), repository, precision="int8")
    assert (caught.value.field, caught.value.found) == ("precision", "int8")


def test_what_the_server_refuses_is_not_added(repository, tmp_path):
    path = write(tmp_path / "m.onnx", DENSE, [("x", F, ["n", 3])], [("y", F, ["n", 2])], WEIGHTS)

    def verify(recipe, staged):
        assert lint(staged) == []
        raise ExportError("Triton says no")

    with pytest.raises(ExportError, match="Triton says no"):
        add("mine", AddOptions("onnx", str(path)), repository, verify=verify)
    assert sorted(tmp_path.iterdir()) == sorted([repository, path])
    assert list(repository.iterdir()) == []


def test_a_recipe_that_was_spoiled_is_named(repository, tmp_path):
    path = write(tmp_path / "m.onnx", DENSE, [("x", F, ["n", 3])], [("y", F, ["n", 2])], WEIGHTS)
    add_onnx(repository, path)
    recipe = repository / "mine" / "recipe.toml"
    text = recipe.read_text()
    for broken, field, named in (
        (text.replace('kind = "onnx"', 'kind = "magic"'), None, "'magic'"),
        (text.replace("max_abs", "max"), "max_abs", "max_abs"),
        ("[", None, "recipe.toml"),
    ):
        recipe.write_text(broken)
        with pytest.raises(RecipeError, match=named) as caught:
            recipes.find("mine", repository)
        assert (caught.value.file, caught.value.field) == ("mine/recipe.toml", field)


STAGES = ("inspect", "convert to ONNX", "measure onnx", "publish", "verify")


def test_sigkill_at_every_stage_leaves_the_repository_as_it_was(tmp_path):
    path = write(tmp_path / "m.onnx", DENSE, [("x", F, ["n", 3])], [("y", F, ["n", 2])], WEIGHTS)
    program = """
import os, signal, sys
from pathlib import Path
from export.add.add import AddOptions, add
from export.added.recipe import read_example, write_arrays
stage, source, repository = sys.argv[1:]
def die(step, *_):
    if step == stage:
        os.kill(os.getpid(), signal.SIGKILL)
add("mine", AddOptions("onnx", source), Path(repository), on_progress=die, verify=lambda *_: die("verify"))
"""
    own = [tmp_path / str(index) / "model_repository" for index in range(len(STAGES))]
    for each in own:
        each.mkdir(parents=True)
    adding = [
        subprocess.Popen([sys.executable, "-c", program, stage, str(path), str(each)])
        for stage, each in zip(STAGES, own, strict=True)
    ]
    assert [each.wait() for each in adding] == [-signal.SIGKILL] * len(STAGES)
    for stage, each in zip(STAGES, own, strict=True):
        assert list(each.iterdir()) == [], stage
        add_onnx(each, path)
        assert list(each.parent.iterdir()) == [each], stage


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


def test_an_engine_gets_a_profile_for_what_was_added(repository, tmp_path):
    nodes, shape = [node("Add", ["x", "z"], ["y"])], ["n", "steps"]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, shape), ("z", F, shape)], [("y", F, shape)])
    made, message = add_onnx(repository, path, dims={"steps": 6})
    (profile,) = profiles(message, made.recipe.axis_ranges)
    assert (profile.shapes["x"].minimum, profile.shapes["x"].maximum) == ((1, 1), (8, 24))


def test_its_manifest_keeps_to_the_schema(repository, tmp_path):
    path = write(tmp_path / "m.onnx", DENSE, [("x", F, ["n", 3])], [("y", F, ["n", 2])], WEIGHTS)
    add_onnx(repository, path)
    schema = json.loads((Path(__file__).parents[3] / "docs" / "manifest.schema.json").read_text())
    jsonschema.validate(json.loads((repository / "mine" / "1" / "manifest.json").read_text()), schema)


def test_a_model_that_does_not_batch_lints_clean_with_its_bounded_queue(repository, tmp_path):
    path = write(tmp_path / "m.onnx", [node("Softmax", ["x"], ["y"], axis=0)], [("x", F, [4, 2])], [("y", F, [4, 2])])
    add_onnx(repository, path)
    assert lint(repository) == []
    config = repository / "mine" / "config.pbtxt"
    config.write_text(config.read_text().replace("dynamic_batching {", "dynamic_batching {\n  preserve_ordering: true"))
    assert "dynamic_batching" in [finding.field for finding in lint(repository)]


def test_an_example_may_have_an_input_by_the_name_of_an_argument_of_savez(tmp_path):
    arrays = {"file": np.arange(2), "a/b:0": np.array(["x", "y"])}
    write_arrays(tmp_path / "example.npz", arrays)
    read = read_example(tmp_path / "example.npz")
    assert {name: rows.tolist() for name, rows in read.items()} == {"file": [0, 1], "a/b:0": ["x", "y"]}


def test_a_batch_opened_by_hand_may_leave_the_old_shapes_inside(repository, tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["inner"]), node("Relu", ["inner"], ["y"])]
    path = write(tmp_path / "m.onnx", nodes, [("x", F, ["n", 3])], [("y", F, [1, 2])], WEIGHTS)
    model = onnx.load(path)
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("inner", F, [1, 2]))
    onnx.save(model, path)
    _, message = add_onnx(repository, path)
    assert dims(message) == {"x": [3], "y": [2]}
    served = onnxruntime.InferenceSession(str(repository / "mine" / "1" / "model.onnx"))
    assert served.get_outputs()[0].shape == ["batch", 2], "Triton's backend holds config.pbtxt to this"
    assert export_model(recipes.find("mine", repository), repository, precision="fp16").manifest.precision == "fp16"


NOT_IN_HALF = {
    "a model without a batch whose gate fails": (
        [node("Mul", ["x", "large"], ["y"])],
        [("x", F, [2, 3])],
        {"large": np.array(1e30, np.float32)},
        AccuracyError,
        ["--exclude"],
    ),
    "a graph that is quantised already": (
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])],
        [("x", F, ["n", 3])],
        {"s": np.array(0.02, np.float32), "z": np.array(0, np.int8)},
        ExportError,
        ["fp16", "QuantizeLinear", "--exclude"],
    ),
}


@pytest.mark.parametrize(("nodes", "inputs", "weights", "kind", "parts"), NOT_IN_HALF.values(), ids=NOT_IN_HALF.keys())
def test_what_half_precision_cannot_hold_is_reported_in_a_sentence(
    nodes, inputs, weights, kind, parts, repository, tmp_path
):
    path = write(tmp_path / "m.onnx", nodes, inputs, [("y", F, inputs[0][2])], weights, opset=13)
    add_onnx(repository, path)
    with pytest.raises(kind) as refusal:
        export_model(recipes.find("mine", repository), repository, precision="fp16")
    for part in parts:
        assert part in str(refusal.value)
    assert "/" not in str(refusal.value), "no path of the scratch folder"


@pytest.mark.parametrize("shape", [["n", 20], [4, 20]])
def test_int8_finds_its_ranges_on_real_requests(shape, repository, tmp_path):
    nodes = [node("Gemm", ["x", "w"], ["h"]), node("Relu", ["h"], ["y"])]  # without names, as many write them
    path = write(tmp_path / "m.onnx", nodes, [("x", F, shape)], [("y", F, [shape[0], 16])], {"w": matrix(20, 16)})
    requests = np.random.default_rng(0).normal(size=(12, *(size for size in shape if size != "n")))
    np.savez(tmp_path / "rows.npz", x=requests.astype(np.float32))
    made, _ = add_onnx(repository, path, example=tmp_path / "rows.npz")
    manifest = export_model(made.recipe, repository, precision="int8").manifest
    assert manifest.reduction["quantised"] == {"Gemm": 1}
    assert manifest.reduction["calibration"]["rows"] == 12
    np.savez(repository / "mine" / "example.npz", x=requests[:7].astype(np.float32))
    with pytest.raises(RecipeError) as caught:
        export_model(recipes.find("mine", repository), repository, precision="int8")
    assert (caught.value.file, caught.value.found, caught.value.expected) == ("mine/example.npz", 7, 8)


def test_int8_wants_an_opset_that_has_scales_per_channel(repository, tmp_path):
    path = write(tmp_path / "m.onnx", DENSE, [("x", F, ["n", 3])], [("y", F, ["n", 2])], WEIGHTS, opset=11)
    np.savez(tmp_path / "rows.npz", x=matrix(9, 3))
    made, _ = add_onnx(repository, path, example=tmp_path / "rows.npz")
    with pytest.raises(ExportError) as caught:
        export_model(made.recipe, repository, precision="int8")
    assert (caught.value.field, caught.value.found, caught.value.expected) == ("opset", 11, 13)


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


ANCHORS = [node("Relu", ["x"], ["y"])], [("x", F, ["n", 4])], {"anchors": np.array([1, 2, 3], np.float32)}


def test_an_output_that_is_a_weight_has_no_batch_and_is_served_in_every_precision(repository, tmp_path):
    nodes, inputs, weights = ANCHORS
    path = write(tmp_path / "m.onnx", nodes, inputs, [("y", F, ["n", 4]), ("anchors", F, [3])], weights)
    made, message = add_onnx(repository, path)
    assert said(made, "'anchors'")
    assert (message.max_batch_size, dims(message)) == (0, {"x": [-1, 4], "y": [-1, 4], "anchors": [3]})
    served = made.exported.manifest.stations["onnx"]
    assert served.accuracy == {"matching_rows": 1.0}
    assert export_model(made.recipe, repository, precision="fp16").manifest.precision == "fp16"


def test_an_output_that_is_a_weight_has_the_weights_own_type(repository, tmp_path):
    nodes, inputs, _ = ANCHORS
    outputs, weights = [("y", F, ["n", 4]), ("anchors", F, [3])], {"anchors": np.array([[1, 2]])}
    made, message = add_onnx(repository, write(tmp_path / "m.onnx", nodes, inputs, outputs, weights))
    assert dims(message)["anchors"] == [1, 2]
    assert made.exported.manifest.signature.outputs[1].data_type == "TYPE_INT64"


def test_an_output_that_is_a_weight_is_renamed_like_any_other(tmp_path):
    nodes, inputs, weights = ANCHORS
    path = write(tmp_path / "m.onnx", nodes, inputs, [("y", F, ["n", 4]), ("anchors", F, [3])], weights)
    model = onnx.load(path)
    interface.rename_outputs(model, {"y": "logits", "anchors": "y"})
    assert edit.fixed_outputs(model) == ["y"]
    answer = onnxruntime.InferenceSession(model.SerializeToString()).run(["y"], {"x": matrix(2, 4)})
    np.testing.assert_array_equal(answer[0], [1, 2, 3])
