"""The linter: one broken repository a row, and what must be said of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from scale_model import PYTHON_MODEL, SCALE_CONFIG, replace, write_scale

from export.added.recipe_file import FILE as RECIPE
from export.command import fathom
from export.engine import gpu
from export.engine.gpu import Gpu
from export.errors import ConfigError
from export.lint.lint import Finding, lint

QUEUE = "  default_queue_policy {\n    max_queue_size: 64\n    default_timeout_microseconds: 1000000\n"
INPUT = 'name: "x"\n    data_type: TYPE_FP32\n    dims: [ 3 ]'
GROUP, ON_GPU = (f"instance_group [ {{ count: 1 kind: KIND_{kind} }} ]" for kind in ("CPU", "GPU"))
BOUND = "max_queue_size: 4 default_timeout_microseconds: 1"
POLICY = "dynamic_batching.default_queue_policy"
ACCELERATOR = "optimization.execution_accelerators.gpu_execution_accelerator[0]"
THREADS = 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }'


def accelerator(name: str, more: str = "") -> str:
    """An accelerator for GPUs."""
    return f' optimization {{ execution_accelerators {{ gpu_execution_accelerator {{ name: "{name}" {more} }} }} }}'


# What Triton refuses is in `configurations`, with the rule and the field; here are the lines, and what Triton takes.
# (what is replaced, by what, the rule, the field, the line, the row in a sentence)
SCALE_ERRORS = [
    ("max_batch_size: 8", "max_batch_sise: 8", "syntax", "max_batch_sise", 4, "an unknown field"),
    ("[ 4, 8 ]", "[ 4, 9 ]", "preferred-size", "dynamic_batching.preferred_batch_size[1]", 23, "a size too large"),
    (
        *(THREADS, THREADS.replace("intra_op_thread", "intra_op_tread"), "parameters"),
        *('parameters["intra_op_tread_count"]', 33, "a misspelt parameter"),
    ),
    (GROUP, ON_GPU + accelerator("trt"), "gpu-accelerators", f"{ACCELERATOR}.name", 31, "an accelerator"),
    (
        *(GROUP, ON_GPU + accelerator("tensorrt", 'parameters { key: "device_id" value: "1" }')),
        *("gpu-accelerators", f'{ACCELERATOR}.parameters["device_id"]', 31, "an accelerator's parameter"),
    ),
    ("batch_size: 1\n", "batch_size: 9\n", "warm-up", "model_warmup[0].batch_size", 38, "a large warm-up"),
    ("labels.txt", "names.txt", "labels", "output[0].label_filename", 18, "a missing label file"),
]


def places(findings: list[Finding]) -> set[tuple[str, str, str, str]]:
    """What tests hold of findings, which is not their wording."""
    return {(finding.severity, finding.file, finding.rule, finding.field) for finding in findings}


@pytest.mark.parametrize(
    ("old", "new", "rule", "field", "line", "why"), SCALE_ERRORS, ids=[row[-1] for row in SCALE_ERRORS]
)
def test_errors_of_a_model(
    repository: Path, old: str, new: str, rule: str, field: str, line: int | None, why: str
) -> None:
    replace(repository / "scale" / "config.pbtxt", old, new)

    found = lint(repository, ["scale"])

    assert ("error", "scale/config.pbtxt", rule, field) in places(found)
    assert line in {finding.line for finding in found if finding.field == field}


SCALE_WARNINGS = [
    (THREADS, "", "threads", "parameters", "threads left to chance"),
    (GROUP, GROUP.replace("1", "0"), "instances", "instance_group[0].count", "a count of 0"),
    (
        "    default_timeout_microseconds: 1000000\n",
        "",
        "queue",
        f"{POLICY}.default_timeout_microseconds",
        "no timeout",
    ),
    (QUEUE, f"{QUEUE}    timeout_action: DELAY\n", "queue", f"{POLICY}.timeout_action", "delays"),
    ("    max_queue_size: 64\n", "", "queue", POLICY, "no bound"),
    ("    max_queue_size: 64", "    max_queue_size: 0", "queue", f"{POLICY}.max_queue_size", "a bound of nothing"),
    (
        *(QUEUE, f"  priority_queue_policy {{ key: 1 value {{ {BOUND} }} }}\n{QUEUE}", "priorities"),
        *('dynamic_batching.priority_queue_policy["1"]', "a policy without levels"),
    ),
    (
        *(GROUP, GROUP + accelerator("trt"), "gpu-accelerators", f"{ACCELERATOR}.name"),
        "an accelerator of GPUs for a CPU",
    ),
    (
        *(GROUP, f"{GROUP} version_policy {{ specific {{ versions: [ 1, 2 ] }} }}", "version-policy"),
        *("version_policy.specific.versions[1]", "a version beside one that is served"),
    ),
    (
        *(GROUP, f'{GROUP} cc_model_filenames {{ key: "7.5" value: "old.onnx" }}', "artefact"),
        *('cc_model_filenames["7.5"]', "no file for a GPU"),
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "rule", "field", "why"), SCALE_WARNINGS, ids=[row[-1] for row in SCALE_WARNINGS]
)
def test_warnings_of_a_model(repository: Path, old: str, new: str, rule: str, field: str, why: str) -> None:
    replace(repository / "scale" / "config.pbtxt", old, new)

    assert places(lint(repository, ["scale"])) == {("warning", "scale/config.pbtxt", rule, field)}


def test_a_named_configuration_of_a_step_breaks_the_ensemble_that_has_none(repository: Path) -> None:
    (repository / "scale" / "configs").mkdir()
    text = SCALE_CONFIG.replace("max_batch_size: 8", "max_batch_size: 4").replace("[ 4, 8 ]", "[ 4 ]")
    (repository / "scale" / "configs" / "cpu.pbtxt").write_text(text)

    (found,) = lint(repository)

    assert (found.severity, found.file, found.field) == ("error", "chain/config.pbtxt", "max_batch_size")
    assert found.rule == "ensemble-batch"


NAMED_ERRORS = [
    (INPUT, INPUT.replace("FP32", "FP16"), "agreement", "input[0].data_type", "another type"),
    (INPUT, INPUT.replace('"x"', '"z"'), "agreement", "input[0].name", "another name"),
    ('    label_filename: "labels.txt"\n', "", "agreement", "output[0].label_filename", "no labels"),
    ("max_batch_size: 8", "max_batch_size: 0", "agreement", "max_batch_size", "no batching"),
    ("max_batch_size: 8", "max_batch_size: 8 nonsense: 1", "syntax", "nonsense", "an unknown field"),
]


@pytest.mark.parametrize(("old", "new", "rule", "field", "why"), NAMED_ERRORS, ids=[row[-1] for row in NAMED_ERRORS])
def test_a_named_configuration_that_breaks_the_contract(
    repository: Path, old: str, new: str, rule: str, field: str, why: str
) -> None:
    path = repository / "scale" / "configs" / "cpu.pbtxt"
    path.parent.mkdir()
    path.write_text(SCALE_CONFIG)
    replace(path, old, new)

    assert ("error", "scale/configs/cpu.pbtxt", rule, field) in places(lint(repository, ["scale"]))


def test_a_named_configuration_may_tune_and_may_name_an_engine_that_is_elsewhere(repository: Path) -> None:
    (repository / "scale" / "configs").mkdir()
    tuned = SCALE_CONFIG.replace("count: 1", "count: 2").replace("max_queue_size: 64", "max_queue_size: 8")
    (repository / "scale" / "configs" / "cpu.pbtxt").write_text(tuned)
    engine = SCALE_CONFIG.replace("onnxruntime", "tensorrt").replace("model.onnx", "model.plan").replace(THREADS, "")
    (repository / "scale" / "configs" / "h200.pbtxt").write_text(engine)

    (found,) = lint(repository)

    assert (found.severity, found.file, found.rule) == ("warning", "scale/configs/h200.pbtxt", "artefact")


FOLDERS = [
    (lambda r: (r / "prepare/1/model.py").unlink(), "prepare/config.pbtxt", "artefact", "no python model"),
    (
        lambda r: (r / "scale/labels.txt").write_bytes(b"a\nb\xe9\nc\n"),
        *("scale/config.pbtxt", "labels", "labels of another encoding"),
    ),
    (
        lambda r: (r / "scale/labels.txt").write_bytes(b"\xef\xbb\xbfa\nb\nc\n"),
        *("scale/config.pbtxt", "labels", "a mark before the first label"),
    ),
    (
        lambda r: write_scale(r / "scale/1/model.onnx", gain=3.0),
        *("scale/1/model.onnx", "manifest", "an artefact of other weights"),
    ),
    (lambda r: (r / "scale/1/manifest.json").write_text("{"), "scale/1/manifest.json", "manifest", "a manifest"),
]


@pytest.mark.parametrize(("damage", "file", "rule", "why"), FOLDERS, ids=[row[-1] for row in FOLDERS])
def test_errors_of_a_folder(repository: Path, damage, file: str, rule: str, why: str) -> None:
    damage(repository)

    assert ("error", file, rule) in {place[:3] for place in places(lint(repository))}


def test_without_a_configuration_triton_completes_one_which_is_a_warning(repository: Path) -> None:
    (repository / "scale" / "config.pbtxt").unlink()

    found = lint(repository, ["scale"])

    assert {finding.severity for finding in found} == {"warning"}
    assert ("warning", "scale/config.pbtxt", "no-config", "") in places(found)


@pytest.mark.parametrize("here", [None, Gpu("NVIDIA L4", "8.9", "580")], ids=["no GPU here", "a GPU here"])
def test_instances_on_a_gpu_are_a_warning_where_there_is_none(
    here: Gpu | None, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "find", lambda: here)
    replace(repository / "scale" / "config.pbtxt", GROUP, ON_GPU)

    expected = set() if here else {("warning", "scale/config.pbtxt", "gpu-here", "instance_group[0].kind")}
    assert places(lint(repository, ["scale"])) == expected


def test_a_graph_without_the_file_of_its_weights(repository: Path) -> None:
    path = repository / "scale" / "1" / "model.onnx"
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "beside"))
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    (path.parent / "model.onnx.data").unlink()

    assert ("error", "scale/1/model.onnx", "graph-file", "") in places(lint(repository, ["scale"]))


def test_without_a_graph_the_batch_in_every_dims_is_suspected(repository: Path) -> None:
    config = repository / "scale" / "config.pbtxt"
    config.write_text(SCALE_CONFIG.replace("dims: [ 3 ]", "dims: [ -1, 3 ]"))
    (repository / "scale" / "1" / "model.onnx").unlink()

    (found,) = [finding for finding in lint(repository, ["scale"]) if finding.severity == "warning"]

    assert (found.field, found.line) == ("input[0].dims[0]", 10)


@pytest.mark.parametrize("has_recipe", [True, False], ids=["with a recipe", "without one, of whoever made the file"])
def test_an_artefact_without_a_manifest_is_a_warning_where_export_makes_it(repository: Path, has_recipe: bool) -> None:
    (repository / "scale" / "1" / "manifest.json").unlink()
    if has_recipe:
        (repository / "scale" / RECIPE).write_text("")

    expected = {("warning", "scale/config.pbtxt", "origin", "")} if has_recipe else set()
    assert places(lint(repository)) == expected


@pytest.mark.parametrize("text", ["{", '{"format": 1}'], ids=["cut off", "fields are missing"])
def test_a_manifest_that_cannot_be_read_is_one_finding(repository: Path, text: str) -> None:
    (repository / "scale" / RECIPE).write_text("")
    (repository / "scale" / "1" / "manifest.json").write_text(text)

    (found,) = lint(repository)

    assert (found.severity, found.file, found.rule) == ("error", "scale/1/manifest.json", "manifest")
    assert str(repository) not in found.message


def test_a_published_file_that_is_missing_is_one_finding(repository: Path) -> None:
    (repository / "scale" / RECIPE).write_text("")
    (repository / "scale" / "1" / "model.onnx").unlink()

    (found,) = lint(repository)

    assert (found.severity, found.file, found.rule) == ("error", "scale/1/model.onnx", "manifest")
    assert fathom("export", "scale", "--force", repository=repository) in found.remedy


@pytest.mark.parametrize(
    ("dims", "rows", "refused"),
    [
        ("[ 3 ]", "auto", False),
        ("[ -1 ]", "8", False),
        ("[ -1 ]", "auto", True),
        ("[ 3 ]", "all", True),
    ],
)
def test_rows_per_run_can_be_measured_where_the_sizes_are_known(
    repository: Path, dims: str, rows: str, refused: bool
) -> None:
    config = repository / "scale" / "config.pbtxt"
    replace(config, INPUT, INPUT.replace("[ 3 ]", dims))
    replace(config, THREADS, f'{THREADS}\nparameters {{ key: "rows_per_run" value {{ string_value: "{rows}" }} }}')

    found = [finding for finding in lint(repository, ["scale"]) if "rows_per_run" in finding.field]

    assert [finding.rule for finding in found] == ["whole-numbers"] * refused


DECLARATIONS = [
    ("PARAMETERS = {'gain': 1, 'other': 2}", 0, "a dictionary"),
    ("PARAMETERS: frozenset[str] = frozenset({'gain'})", 0, "a frozen set with an annotation"),
    ("PARAMETERS = ('gain',)", 0, "a tuple"),
    ("# nothing is declared", 1, "nothing, which is a warning"),
    ("PARAMETERS = make()", 1, "what cannot be read without running it"),
]


@pytest.mark.parametrize(("text", "count", "why"), DECLARATIONS, ids=[row[-1] for row in DECLARATIONS])
def test_how_a_python_model_declares_its_parameters(repository: Path, text: str, count: int, why: str) -> None:
    (repository / "prepare" / "1" / "model.py").write_text(f"{text}\n{PYTHON_MODEL}")

    found = lint(repository)

    assert [finding.severity for finding in found] == ["warning"] * count


SLOTS = [("8", 0, "as it is committed"), ("0", 1, "too few"), ("eight", 1, "no number"), ("٣", 1, "no digit of ASCII")]


@pytest.mark.parametrize(("slots", "count", "why"), SLOTS, ids=[row[-1] for row in SLOTS])
def test_a_bundled_python_model_says_what_its_numbers_are_at_least(
    tmp_path: Path, slots: str, count: int, why: str
) -> None:
    committed = Path(__file__).parents[3] / "model_repository" / "recipe_writer"
    config = shutil.copytree(committed, tmp_path / "recipe_writer") / "config.pbtxt"
    replace(config, '"8"', f'"{slots}"')

    found = lint(tmp_path)

    assert [finding.field for finding in found if finding.severity == "error"] == ['parameters["slots"].value'] * count


def test_companions_that_are_missing_or_of_other_weights(exported: Path) -> None:
    companion = exported / "image_preprocess" / "1" / "manifest.json"
    record = json.loads(companion.read_text())
    models = ["mobilenet_v2", "image_preprocess", "image_classifier"]
    assert lint(exported, models) == []

    companion.unlink()
    (missing,) = lint(exported, models)
    assert (missing.rule, missing.file) == ("companion", "image_preprocess/1/manifest.json")
    assert fathom("export", "mobilenet_v2", repository=exported) in missing.remedy

    record["source"]["sha256"] = "f" * 64
    companion.write_text(json.dumps(record))
    (mismatch,) = lint(exported, models)
    assert (mismatch.rule, mismatch.file) == ("companion", "image_preprocess/1/manifest.json")


def test_without_artefacts_every_model_says_what_to_run(exported: Path) -> None:
    for name in ("minilm", "mobilenet_v2", "rain_forecast"):
        for file in ("model.onnx", "manifest.json", "reference.npz"):
            (exported / name / "1" / file).unlink()

    found = {finding.file: finding for finding in lint(exported) if finding.severity == "error"}

    for name in ("minilm", "mobilenet_v2", "rain_forecast"):
        assert found[f"{name}/config.pbtxt"].rule == "artefact"
        assert fathom("export", name, repository=exported) in found[f"{name}/config.pbtxt"].remedy


def test_the_small_repository_is_clean(repository: Path) -> None:
    assert lint(repository) == []


def test_an_unknown_model_and_a_missing_repository(repository: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        lint(repository, ["skale"])
    error = caught.value
    assert (error.file, error.found, error.expected) == (str(repository), "skale", ["chain", "prepare", "scale"])
    with pytest.raises(ConfigError) as caught:
        lint(repository / "nowhere")
    assert caught.value.file == str(repository / "nowhere")


def test_a_finding_in_words_and_as_a_record() -> None:
    finding = Finding("error", "m/config.pbtxt", "name", "it is wrong", "write it right", 3)

    assert str(finding) == "m/config.pbtxt:3 name: it is wrong; write it right"
    assert finding.to_json()["line"] == 3
