"""`add`: what is drafted, exported and kept, and that a failure leaves the repository as it was."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from added_models import add_onnx, dims
from imported_models import F, matrix, node, write

from export import recipes
from export.add.add import AddOptions, add
from export.engine.profiles import profiles
from export.errors import AccuracyError, ExportError, RecipeError
from export.exporter import export_model
from export.lint.lint import lint
from export.repository.manifest import Manifest

DENSE = [node("MatMul", ["x", "w"], ["y"])]
WEIGHTS = {"w": matrix(3, 2)}


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
