"""The export of one model, from the recipe to the repository."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from scale_model import SCALE_CONFIG, Scale, replace, tree
from small_models import write_onnx as write_small_onnx

from clients import Client
from export import recipes
from export.errors import AccuracyError, ContractError, ExportError
from export.exporter import export_model
from export.graph import onnx_file
from export.lint.lint import lint
from export.recipe.measure import Reference
from export.recipe.recipe import Source, Weights
from export.repository.manifest import Manifest
from export.repository.scratch import SCRATCH
from server import TritonServer

SEED = 20_261_123
KILLS = int(os.environ.get("FATHOM_KILLS", "8"))


class Crowded(Scale):
    """Its graph adds nothing, made of the largest row: the figures are right, the structure is not."""

    def load(self, weights: Weights) -> Source:
        def write_onnx(path: Path) -> None:
            constants = [
                helper.make_node("Constant", [], [name], value_float=value)
                for name, value in (("two", 2.0), ("no", 0.0))
            ]
            nodes = [
                *constants,
                helper.make_node("ReduceMax", ["x"], ["largest"], axes=[0]),
                helper.make_node("Mul", ["largest", "no"], ["nothing"]),
                helper.make_node("Mul", ["x", "two"], ["twice"]),
                helper.make_node("Add", ["twice", "nothing"], ["y"]),
            ]
            tensor = (TensorProto.FLOAT, ["n", 3])
            write_small_onnx(path, nodes, [("x", *tensor)], [("y", *tensor)])

        return dataclasses.replace(super().load(weights), write_onnx=write_onnx)


def test_a_graph_whose_rows_meet_is_not_published_where_requests_are_batched(repository: Path, scale: Scale) -> None:
    before = tree(repository)
    with pytest.raises(ContractError) as caught:
        export_model(Crowded(scale.weights), repository)
    assert (caught.value.field, caught.value.tensor) == ("max_batch_size", "y")
    assert caught.value.found.startswith("ReduceMax")
    assert tree(repository) == before


def test_an_export_publishes_artefact_reference_labels_and_manifest(repository: Path, scale: Scale) -> None:
    steps: list[tuple[str, int, int]] = []

    result = export_model(scale, repository, on_progress=lambda *step: steps.append(step))

    folder = repository / "scale"
    assert (result.recipe, result.folder, result.skipped) == ("scale", folder, False)
    assert set(result.manifest.files) == {"1/model.onnx", "1/reference.npz", "labels.txt"}
    assert result.manifest == Manifest.read(folder)
    assert result.manifest.changed_files(folder) == []
    assert result.manifest.stations is not None
    assert result.manifest.stations["source"].accuracy == result.manifest.stations["onnx"].accuracy == {"hit_rate": 1.0}
    assert result.manifest.stations["onnx"].parity is not None
    x = np.ones((2, 3), np.float32)
    assert (onnx_file.session(folder / "1" / "model.onnx")({"x": x})["y"] == 2 * x).all()
    assert (Reference.read(folder / "1" / "reference.npz").outputs["y"] == scale.evaluation().inputs["x"] * 2).all()
    assert [finding for finding in lint(repository) if finding.severity == "error"] == []
    assert [step for step, done, total in steps if done == total] == [
        *(
            "check what is there",
            "load the trained model",
            "convert to ONNX",
            "measure source",
            "measure onnx",
            "publish",
        )
    ]


def test_nothing_changed_means_nothing_done(repository: Path, scale: Scale) -> None:
    first = export_model(scale, repository)
    before = tree(repository)

    second = export_model(scale, repository)

    assert second.skipped
    assert second.manifest == first.manifest
    assert tree(repository) == before
    assert not export_model(scale, repository, force=True).skipped
    scale.weights.write_text("2.0")
    assert not export_model(scale, repository).skipped
    assert export_model(scale, repository).skipped


def test_tuning_config_pbtxt_is_no_reason_to_build_but_breaking_it_is_reported(repository: Path, scale: Scale) -> None:
    export_model(scale, repository)
    config = repository / "scale" / "config.pbtxt"
    replace(config, "count: 1", "count: 4")
    assert export_model(scale, repository).skipped

    replace(config, '"x"\n    data_type: TYPE_FP32\n    dims: [ 3 ]', '"x"\n    data_type: TYPE_FP32\n    dims: [ 5 ]')
    with pytest.raises(ContractError) as caught:
        export_model(scale, repository)
    assert (caught.value.tensor, caught.value.found, caught.value.expected) == ("x", [5], [3])


def test_force_reads_nothing_of_what_is_published(repository: Path, scale: Scale) -> None:
    export_model(scale, repository)
    scale.shape = ("n", 5)
    config = repository / "scale" / "config.pbtxt"
    config.write_text(SCALE_CONFIG.replace("[ 3 ]", "[ 5 ]"))
    with pytest.raises(ContractError):  # nothing that decides the build has changed, and the published graph is no fit
        export_model(scale, repository)

    result = export_model(scale, repository, force=True)

    assert not result.skipped
    assert result.manifest.signature.inputs[0].dims == (-1, 5)


def test_bundled_weights_by_name_repair_a_config_that_does_not_fit(repository: Path, scale: Scale) -> None:
    export_model(scale, repository, weights="bundled")
    config = repository / "scale" / "config.pbtxt"
    replace(config, '"x"\n    data_type: TYPE_FP32\n    dims: [ 3 ]', '"x"\n    data_type: TYPE_FP32\n    dims: [ 5 ]')

    result = export_model(scale, repository, weights="bundled")

    assert all(part in result.notes[-1] for part in ("scale/config.pbtxt", "input[0].dims", "[5]", "[3]"))
    assert config.read_text() == SCALE_CONFIG


def test_files_of_an_earlier_export_do_not_stay(repository: Path, scale: Scale) -> None:
    export_model(scale, repository)
    folder = repository / "scale"
    (folder / "1" / "notes.txt").write_text("mine")
    stale = folder / "1" / "model.plan"
    stale.write_text("an engine of the old weights")
    record = json.loads((folder / "1" / "manifest.json").read_text())
    record["files"]["1/model.plan"] = {"sha256": "0" * 64, "bytes": stale.stat().st_size}
    (folder / "1" / "manifest.json").write_text(json.dumps(record))

    export_model(scale, repository, force=True)

    assert not stale.exists()
    assert (folder / "1" / "notes.txt").read_text() == "mine"


def failing_load(scale: Scale) -> None:
    def load(weights: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    scale.load = load  # type: ignore[assignment,method-assign]


def worse_graph(scale: Scale) -> None:
    scale.onnx_gain = 2.5


def other_width(scale: Scale) -> None:
    scale.shape = ("n", 4)


FAILURES = [
    (
        failing_load,
        ExportError,
        {"field": "package", "expected": "torch"},
        "a package is missing",
    ),
    (worse_graph, AccuracyError, {"field": "hit_rate", "found": 1.0, "expected": 0.1}, "the graph is worse"),
    (other_width, ContractError, {"tensor": "x", "found": [3], "expected": [4]}, "a size"),
]


@pytest.mark.parametrize(("damage", "error", "about", "why"), FAILURES, ids=[row[-1] for row in FAILURES])
def test_a_failed_export_leaves_the_repository_as_it_was(
    repository: Path, scale: Scale, damage, error: type[ExportError], about: dict[str, object], why: str
) -> None:
    before = tree(repository)
    damage(scale)

    with pytest.raises(error) as caught:
        export_model(scale, repository)

    assert {name: getattr(caught.value, name) for name in about} == about
    assert "\n" not in str(caught.value)
    assert tree(repository) == before
    assert not (repository.parent / SCRATCH).exists()


def test_named_configurations_keep_the_contract_too(repository: Path, scale: Scale) -> None:
    (repository / "scale" / "configs").mkdir()
    named = repository / "scale" / "configs" / "cpu.pbtxt"
    named.write_text(SCALE_CONFIG)
    replace(named, '"x"\n    data_type: TYPE_FP32', '"x"\n    data_type: TYPE_INT8')

    with pytest.raises(ContractError) as caught:
        export_model(scale, repository)
    error = caught.value
    assert (error.file, error.line, error.tensor, error.found) == ("scale/configs/cpu.pbtxt", 9, "x", "TYPE_INT8")


def test_other_weights_rewrite_dims_and_labels_and_bundled_ones_put_them_back(repository: Path, scale: Scale) -> None:
    (repository / "scale" / "configs").mkdir()
    (repository / "scale" / "configs" / "cpu.pbtxt").write_text(SCALE_CONFIG.replace("count: 1", "count: 2"))
    before = tree(repository / "scale")
    scale.shape = ("n", 5)

    result = export_model(scale, repository, weights="somewhere")

    for file, field in (("config.pbtxt", "input"), ("config.pbtxt", "output"), ("configs/cpu.pbtxt", "input")):
        assert any(f"scale/{file}" in note and f"{field}[0].dims" in note for note in result.notes)
    assert "scale/labels.txt" in result.notes[-1]
    assert (repository / "scale" / "labels.txt").read_text() == "".join(f"label {index}\n" for index in range(5))
    assert (repository / "scale" / "config.pbtxt").read_text() == SCALE_CONFIG.replace("[ 3 ]", "[ 5 ]")
    assert [finding for finding in lint(repository, ["scale"]) if finding.severity == "error"] == []

    scale.shape = ("n", 3)
    with pytest.raises(ContractError, match="--weights bundled") as caught:
        export_model(scale, repository)
    assert (caught.value.tensor, caught.value.found, caught.value.expected) == ("x", [5], [3])
    export_model(scale, repository, weights="bundled")

    after = tree(repository / "scale")
    assert {name: after[name] for name in before if name.endswith((".pbtxt", ".txt"))} == {
        name: content for name, content in before.items() if name.endswith((".pbtxt", ".txt"))
    }


def test_the_bundled_models_are_skipped_without_torch(exported: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from export import recipes
from export.exporter import export_model
results = [export_model(recipes.find(name), Path({str(exported)!r})) for name in recipes.NAMES]
print(all(result.skipped for result in results), {{"torch", "onnx", "sklearn"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert (done.stdout, done.stderr) == ("True set()\n", "")


@pytest.mark.slow  # tests/fathom/test_add.py compares the bytes of a second build of a smaller model
@pytest.mark.parametrize("name", ["rain_forecast", "mobilenet_v2"])
def test_a_build_is_reproducible_and_silent(name: str, exported: Path) -> None:
    """The same sources give the same bytes, and converters keep quiet on both streams."""
    before = Manifest.read(exported / name)
    assert before is not None
    program = f"""
from pathlib import Path
from export import recipes
from export.exporter import export_model
export_model(recipes.find({name!r}), Path({str(exported)!r}), force=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    after = Manifest.read(exported / name)
    assert after is not None
    assert after.created != before.created
    assert after.files == before.files


def files(repository: Path) -> set[str]:
    """What lies in a repository, but for the bytecode that Triton's python backend leaves beside each model.py."""
    return {name for name in tree(repository) if "__pycache__" not in name}


@pytest.mark.slow
def test_sigkill_at_random_moments_leaves_the_repository_whole(exported: Path) -> None:
    """Half of the kills come while the model is trained, converted and measured, half around publishing.

    FATHOM_KILLS sets how many there are. After each, the model must load in ONNX Runtime and lint clean, and no file
    may lie in the repository that was not there before; a real Triton loads it after every tenth.
    """
    program = f"""
from pathlib import Path
from export import recipes
from export.exporter import export_model
export_model(recipes.find("rain_forecast"), Path({str(exported)!r}), force=True)
"""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True)
    whole_s = time.monotonic() - began
    names = files(exported)
    question = recipes.find("rain_forecast").example(2)
    moments = random.Random(SEED)
    killed, in_scratch, seen = 0, 0, set()
    for index in range(KILLS):
        with subprocess.Popen([sys.executable, "-c", program]) as exporting:
            time.sleep(moments.uniform(*((0.1, 0.8) if index % 2 else (0.8, 1.05))) * whole_s)
            exporting.send_signal(signal.SIGKILL)
        killed += exporting.returncode == -signal.SIGKILL
        in_scratch += (exported.parent / SCRATCH).exists()
        record = Manifest.read(exported / "rain_forecast")
        assert record is not None
        seen.add(record.created)
        assert lint(exported, ["rain_forecast"]) == []
        assert files(exported) == names
        assert onnx_file.session(exported / "rain_forecast" / "1" / "model.onnx")(question)
        if index % 10 == 9:
            with (
                TritonServer(exported, stop_timeout_s=0) as server,
                Client(server.grpc_url) as client,
            ):
                assert client.model("rain_forecast")(question)
    print(f"{KILLS} kills: {killed} in time, {in_scratch} left scratch behind, {len(seen)} published versions seen")
    assert killed >= KILLS // 2, "the kills came too late to interrupt anything"

    done = subprocess.run([sys.executable, "-c", program], check=False)

    assert done.returncode == 0
    assert lint(exported, ["rain_forecast"]) == []
    assert files(exported) == names
    assert not (exported.parent / SCRATCH).exists()
