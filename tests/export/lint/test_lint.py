"""The linter: one broken repository a row, and what must be said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scale_model import SCALE_CONFIG, replace, write_scale

from export.errors import ConfigError
from export.lint.lint import Finding, lint

QUEUE = "  default_queue_policy {\n    max_queue_size: 64\n    default_timeout_microseconds: 1000000\n"
INPUT = 'name: "x"\n    data_type: TYPE_FP32\n    dims: [ 3 ]'
GROUP = "instance_group [ { count: 1 kind: KIND_CPU } ]"
THREADS = 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }'
WARM = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 3 ] zero_data: true } }'

# (what is replaced, by what, the field, the line, a value that the message or remedy names, the row in a sentence)
SCALE_ERRORS = [
    (
        "max_batch_size: 8",
        "max_batch_sise: 8",
        "max_batch_sise",
        4,
        "max_batch_sise",
        "an unknown field",
    ),
    ("max_batch_size: 8", "max_batch_size: x", "", 4, "integer", "a value of another type"),
    ('name: "scale"', 'name: "scales"', "name", 1, "'scale'", "a name that is not the folder's"),
    ("max_batch_size: 8", "max_batch_size: -1", "max_batch_size", 4, "-1", "a negative batch"),
    ('backend: "onnxruntime"\n', "", "", None, "backend", "no backend"),
    (INPUT, INPUT.replace("[ 3 ]", "[ -1, 3 ]"), "input[0].dims", 10, "max_batch_size", "the batch in dims"),
    (
        INPUT,
        INPUT.replace("[ 3 ]", "[ 8, 3 ]"),
        "input[0].dims",
        10,
        "max_batch_size",
        "the largest batch in dims",
    ),
    (INPUT, INPUT.replace("[ 3 ]", "[ 4 ]"), "input[0].dims", 10, "[3]", "dims of another model"),
    (INPUT, INPUT.replace("[ 3 ]", "[ 0 ]"), "input[0].dims[0]", 10, "0", "a size of nothing"),
    (INPUT, INPUT.replace("[ 3 ]", "[ -2 ]"), "input[0].dims[0]", 10, "-2", "a size below -1"),
    (INPUT, INPUT.replace("dims: [ 3 ]", ""), "input[0]", 7, "dims", "no dims"),
    (INPUT, INPUT.replace("data_type: TYPE_FP32", ""), "input[0]", 7, "data_type", "no data_type"),
    (INPUT, INPUT.replace("FP32", "INT8"), "input[0].data_type", 9, "TYPE_FP32", "another data_type"),
    (
        INPUT,
        INPUT.replace('"x"', '"X"'),
        "input[0].name",
        8,
        "['x']",
        "another name",
    ),
    (INPUT, INPUT.replace('name: "x"', ""), "input[0]", 7, "name", "no name"),
    (INPUT, f"{INPUT} format: FORMAT_NHWC", "input[0].format", 10, "dims", "an image format of one dim"),
    (INPUT, f"{INPUT} is_shape_tensor: true", "input[0].is_shape_tensor", 10, "TensorRT", "a shape tensor"),
    (INPUT, f"{INPUT} reshape {{ shape: [ 4 ] }}", "input[0].reshape.shape", 10, "[4]", "a reshape"),
    ('name: "y"', 'name: "x"', "output[0].name", 15, "['y']", "an output's name"),
    ("[ 4, 8 ]", "[ 4, 9 ]", "dynamic_batching.preferred_batch_size[1]", 23, "9", "a size too large"),
    ("[ 4, 8 ]", "[ 0 ]", "dynamic_batching.preferred_batch_size[0]", 23, "0", "a size too small"),
    ("    max_queue_size: 64\n", "", "dynamic_batching.default_queue_policy", 24, "max_queue_size", "no bound"),
    (
        *(
            "    max_queue_size: 64",
            "    max_queue_size: 0",
            "dynamic_batching.default_queue_policy.max_queue_size",
            25,
        ),
        *("max_queue_size", "a bound of nothing"),
    ),
    (
        QUEUE,
        f"  priority_levels: 2\n{QUEUE}",
        "dynamic_batching.priority_levels",
        24,
        "0",
        "levels",
    ),
    (
        *(
            QUEUE,
            f"  priority_levels: 2 default_priority_level: 3\n{QUEUE}",
            "dynamic_batching.default_priority_level",
            24,
        ),
        *("2", "a default that is no level"),
    ),
    (
        *(QUEUE, f"  priority_queue_policy {{ key: 1 value {{ max_queue_size: 4 }} }}\n{QUEUE}"),
        *('dynamic_batching.priority_queue_policy["1"]', 24, "priority_levels", "a policy for no level"),
    ),
    (
        *(QUEUE, f"  priority_levels: 2 default_priority_level: 1 preserve_ordering: true\n{QUEUE}"),
        *("dynamic_batching.preserve_ordering", 24, "2", "order over levels"),
    ),
    (
        *(QUEUE, f"  preserve_ordering: true\n{QUEUE}    timeout_action: DELAY\n"),
        *("dynamic_batching.preserve_ordering", 24, "REJECT", "order with delays"),
    ),
    (GROUP, GROUP.replace("1", "-1"), "instance_group[0].count", 31, "-1", "a negative count"),
    (GROUP, GROUP.replace("1", "1 gpus: 0"), "instance_group[0].gpus", 31, "[0]", "GPUs of a CPU"),
    (
        *(GROUP, "instance_group [ { count: 1 kind: KIND_GPU gpus: [ 0, -1 ] } ]", "instance_group[0].gpus[1]", 31),
        *("-1", "a GPU below 0"),
    ),
    (GROUP, GROUP.replace("1", '1 profile: "0"'), "instance_group[0].profile", 31, "TensorRT", "a profile"),
    (
        *(THREADS, THREADS.replace("intra_op_thread", "intra_op_tread"), 'parameters["intra_op_tread_count"]', 33),
        *("'intra_op_thread_count'", "a misspelt parameter"),
    ),
    (
        *(THREADS, THREADS.replace('"1"', '"two"'), 'parameters["intra_op_thread_count"].value', 33),
        *("'two'", "a thread count that is no number"),
    ),
    (
        *(GROUP, f"{GROUP} response_cache {{ enable: true }} model_transaction_policy {{ decoupled: true }}"),
        *("response_cache", 31, "decoupled", "a cache for a decoupled model"),
    ),
    (
        *(GROUP, f"{GROUP} version_policy {{ specific {{ }} }}", "version_policy.specific", 31),
        *("versions", "a version policy without versions"),
    ),
    (
        *(GROUP, f'{GROUP} batch_input {{ kind: BATCH_ELEMENT_COUNT target_name: "c" data_type: TYPE_INT64 }}'),
        *("batch_input[0].data_type", 31, "TYPE_INT32", "a batch input of another type"),
    ),
    (
        *(GROUP, f"{GROUP} model_metrics {{ metric_control {{ histogram_options {{ }} }} }}"),
        *("model_metrics.metric_control[0].histogram_options", 31, "buckets", "a histogram without buckets"),
    ),
    (
        *(
            GROUP,
            f'{GROUP} optimization {{ execution_accelerators {{ gpu_execution_accelerator {{ name: "trt" }} }} }}',
        ),
        *(
            "optimization.execution_accelerators.gpu_execution_accelerator[0].name",
            31,
            "tensorrt",
            "an accelerator",
        ),
    ),
    (
        GROUP,
        f'{GROUP} optimization {{ execution_accelerators {{ gpu_execution_accelerator {{ name: "tensorrt" '
        'parameters { key: "device_id" value: "1" } } } }',
        'optimization.execution_accelerators.gpu_execution_accelerator[0].parameters["device_id"]',
        *(31, "device_id", "an accelerator's parameter that fails the load"),
    ),
    ("batch_size: 1\n", "batch_size: 9\n", "model_warmup[0].batch_size", 38, "8", "a large warm-up"),
    (WARM, WARM.replace('"x"', '"z"'), 'model_warmup[0].inputs["z"]', 39, "'z'", "a warm-up of no input"),
    (
        *(WARM, WARM.replace("[ 3 ]", "[ -1 ]"), 'model_warmup[0].inputs["x"].value.dims', 39),
        *("[-1]", "a warm-up of no size"),
    ),
    (
        WARM,
        WARM.replace("zero_data: true", ""),
        'model_warmup[0].inputs["x"]',
        39,
        "data",
        "a warm-up of nothing",
    ),
    (
        *(WARM, WARM.replace("zero_data: true", 'input_data_file: "x.bin"')),
        *('model_warmup[0].inputs["x"].value.input_data_file', 39, "warmup/x.bin", "a warm-up's file"),
    ),
    ("labels.txt", "names.txt", "output[0].label_filename", 18, "names.txt", "a missing label file"),
    ("model.onnx", "net.onnx", "default_model_filename", 3, "1/net.onnx", "a missing artefact"),
]


@pytest.mark.parametrize(
    ("old", "new", "field", "line", "named", "why"), SCALE_ERRORS, ids=[row[-1] for row in SCALE_ERRORS]
)
def test_errors_of_a_model(
    repository: Path, old: str, new: str, field: str, line: int | None, named: str, why: str
) -> None:
    replace(repository / "scale" / "config.pbtxt", old, new)

    found = lint(repository, ["scale"])

    hits = [finding for finding in found if finding.field == field and named in f"{finding.message}; {finding.remedy}"]
    assert hits, "\n".join(map(str, found))
    assert (hits[0].severity, hits[0].file, hits[0].line) == ("error", "scale/config.pbtxt", line)


SCALE_WARNINGS = [
    (THREADS, "", "parameters", "intra_op_thread_count", "threads left to chance"),
    (GROUP, GROUP.replace("1", "0"), "instance_group[0].count", "0", "a count of 0"),
    (
        *("    default_timeout_microseconds: 1000000\n", ""),
        *(
            "dynamic_batching.default_queue_policy.default_timeout_microseconds",
            "timeout",
            "no timeout",
        ),
    ),
    (
        QUEUE,
        f"{QUEUE}    timeout_action: DELAY\n",
        "dynamic_batching.default_queue_policy.timeout_action",
        "REJECT",
        "delays",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "field", "named", "why"), SCALE_WARNINGS, ids=[row[-1] for row in SCALE_WARNINGS]
)
def test_warnings_of_a_model(repository: Path, old: str, new: str, field: str, named: str, why: str) -> None:
    replace(repository / "scale" / "config.pbtxt", old, new)

    (found,) = lint(repository, ["scale"])

    assert (found.severity, found.field) == ("warning", field)
    assert named in f"{found.message}; {found.remedy}"


CHAIN_ERRORS = [
    ('platform: "ensemble"\n', "", "platform", "''", "another platform"),
    (
        'platform: "ensemble"',
        'platform: "ensemble" backend: "python"',
        "backend",
        "ensemble",
        "a backend",
    ),
    (
        *("max_batch_size: 8", f"max_batch_size: 8 {GROUP}"),
        *("instance_group", "instances", "instances"),
    ),
    (
        "max_batch_size: 8",
        "max_batch_size: 16",
        "max_batch_size",
        "'prepare'",
        "a larger batch than a step",
    ),
    (
        *('model_name: "scale"', 'model_name: "scala"', "ensemble_scheduling.step[1].model_name"),
        *("'scala'", "a step that does not exist"),
    ),
    (
        *('input_map { key: "x" value: "prepared" }', 'input_map { key: "x" value: "other" }'),
        *('ensemble_scheduling.step[1].input_map["x"].value', "'other'", "a tensor from nowhere"),
    ),
    (
        *('input_map { key: "x" value: "prepared" }', 'input_map { key: "z" value: "prepared" }'),
        *('ensemble_scheduling.step[1].input_map["z"]', "'z'", "an input that a step has not"),
    ),
    (
        *('input_map { key: "x" value: "prepared" }', ""),
        *("ensemble_scheduling.step[1]", "'x'", "an input left out"),
    ),
    (
        *('output_map { key: "y" value: "y" }', 'output_map { key: "z" value: "y" }'),
        *('ensemble_scheduling.step[1].output_map["z"]', "'z'", "an output that a step has not"),
    ),
    (
        *('output_map { key: "y" value: "y" }', 'output_map { key: "y" value: "result" }'),
        *("output[0].name", "'y'", "an output that nobody makes"),
    ),
    (
        *('output_map { key: "y" value: "y" }', 'output_map { key: "y" value: "prepared" }'),
        *(
            'ensemble_scheduling.step[1].output_map["y"].value',
            "'prepared'",
            "a tensor made twice",
        ),
    ),
    (
        *('input_map { key: "x" value: "prepared" }', 'input_map { key: "x" value: "y" }'),
        *(
            'ensemble_scheduling.step[1].input_map["x"].value',
            "'y'",
            "a step that waits for itself",
        ),
    ),
    (
        *('"y" data_type: TYPE_FP32', '"y" data_type: TYPE_FP64'),
        *("output[0]", "TYPE_FP64", "another type"),
    ),
    (
        *('"raw" data_type: TYPE_FP32 dims: [ 3 ]', '"raw" data_type: TYPE_FP32 dims: [ 4 ]'),
        *('ensemble_scheduling.step[0].input_map["raw"].value', "[4]", "another shape"),
    ),
]


@pytest.mark.parametrize(("old", "new", "field", "named", "why"), CHAIN_ERRORS, ids=[row[-1] for row in CHAIN_ERRORS])
def test_errors_of_an_ensemble(repository: Path, old: str, new: str, field: str, named: str, why: str) -> None:
    replace(repository / "chain" / "config.pbtxt", old, new)

    found = lint(repository, ["chain"])

    hits = [finding for finding in found if finding.field == field and named in finding.message]
    assert hits, "\n".join(map(str, found))
    assert (hits[0].severity, hits[0].file) == ("error", "chain/config.pbtxt")
    assert hits[0].line or "" in (old, new)


def test_a_named_configuration_of_a_step_breaks_the_ensemble_that_has_none(repository: Path) -> None:
    (repository / "scale" / "configs").mkdir()
    text = SCALE_CONFIG.replace("max_batch_size: 8", "max_batch_size: 4").replace("[ 4, 8 ]", "[ 4 ]")
    (repository / "scale" / "configs" / "cpu.pbtxt").write_text(text)

    (found,) = lint(repository)

    assert (found.severity, found.file, found.field) == ("error", "chain/config.pbtxt", "max_batch_size")
    assert all(part in found.message for part in ("8", "'scale'", "4", "scale/configs/cpu.pbtxt"))


NAMED_ERRORS = [
    (INPUT, INPUT.replace("FP32", "FP16"), "input[0].data_type", "TYPE_FP32", "another type"),
    (INPUT, INPUT.replace('"x"', '"z"'), "input[0].name", "'z'", "another name"),
    ('    label_filename: "labels.txt"\n', "", "output[0].label_filename", "labels.txt", "no labels"),
    ("max_batch_size: 8", "max_batch_size: 0", "max_batch_size", "0", "no batching"),
    ("max_batch_size: 8", "max_batch_size: 8 nonsense: 1", "nonsense", "nonsense", "an unknown field"),
]


@pytest.mark.parametrize(("old", "new", "field", "named", "why"), NAMED_ERRORS, ids=[row[-1] for row in NAMED_ERRORS])
def test_a_named_configuration_that_breaks_the_contract(
    repository: Path, old: str, new: str, field: str, named: str, why: str
) -> None:
    path = repository / "scale" / "configs" / "cpu.pbtxt"
    path.parent.mkdir()
    path.write_text(SCALE_CONFIG)
    replace(path, old, new)

    found = lint(repository, ["scale"])

    hits = [finding for finding in found if finding.field == field and named in finding.message]
    assert hits, "\n".join(map(str, found))
    assert (hits[0].severity, hits[0].file) == ("error", "scale/configs/cpu.pbtxt")


def test_a_named_configuration_may_tune_and_may_name_an_engine_that_is_elsewhere(repository: Path) -> None:
    (repository / "scale" / "configs").mkdir()
    tuned = SCALE_CONFIG.replace("count: 1", "count: 2").replace("max_queue_size: 64", "max_queue_size: 8")
    (repository / "scale" / "configs" / "cpu.pbtxt").write_text(tuned)
    engine = SCALE_CONFIG.replace("onnxruntime", "tensorrt").replace("model.onnx", "model.plan").replace(THREADS, "")
    (repository / "scale" / "configs" / "h200.pbtxt").write_text(engine)

    (found,) = lint(repository)

    assert (found.severity, found.file) == ("warning", "scale/configs/h200.pbtxt")
    assert "1/model.plan" in found.message


FOLDERS = [
    (lambda r: (r / "scale/config.pbtxt").unlink(), "scale/config.pbtxt", "missing", "no config.pbtxt"),
    (lambda r: (r / "chain/1").rmdir(), "chain", "version", "an ensemble without a version"),
    (lambda r: (r / "prepare/1/model.py").unlink(), "prepare/config.pbtxt", "1/model.py", "no python model"),
    (lambda r: (r / "prepare/1/model.py").write_text("def"), "prepare/config.pbtxt", "Python", "broken Python"),
    (
        lambda r: (r / "prepare/1/model.py").write_text("PARAMETERS = {'loss'}\n"),
        *("prepare/config.pbtxt", "'gain'", "a parameter nobody reads"),
    ),
    (lambda r: (r / "scale/labels.txt").write_text("a\nb\n"), "scale/config.pbtxt", "labels.txt", "too few labels"),
    (
        lambda r: (r / "scale/labels.txt").write_bytes(b"a\nb\xe9\nc\n"),
        *("scale/config.pbtxt", "line 2", "labels of another encoding"),
    ),
    (
        lambda r: (r / "scale/labels.txt").write_bytes(b"\xef\xbb\xbfa\nb\nc\n"),
        *("scale/config.pbtxt", "byte-order mark", "a mark before the first label"),
    ),
    (
        lambda r: (r / "scale/labels.txt").write_bytes(b"a\r\nb\r\nc\r\n"),
        *("scale/config.pbtxt", "line 1", "labels from Windows"),
    ),
    (
        lambda r: (r / "scale/1/model.onnx").write_bytes((r / "scale/1/model.onnx").read_bytes() + b"\0"),
        *("scale/1/model.onnx", "bytes", "an artefact that grew"),
    ),
    (
        lambda r: write_scale(r / "scale/1/model.onnx", gain=3.0),
        *("scale/1/model.onnx", "SHA-256", "an artefact of other weights"),
    ),
    (lambda r: (r / "scale/1/manifest.json").write_text("{"), "scale/1/manifest.json", "", "a manifest"),
]


@pytest.mark.parametrize(("damage", "file", "named", "why"), FOLDERS, ids=[row[-1] for row in FOLDERS])
def test_errors_of_a_folder(repository: Path, damage, file: str, named: str, why: str) -> None:
    damage(repository)

    found = lint(repository)

    hits = [finding for finding in found if finding.file == file and named in finding.message]
    assert hits, "\n".join(map(str, found))
    assert hits[0].severity == "error"


def test_without_a_graph_the_batch_in_every_dims_is_suspected(repository: Path) -> None:
    config = repository / "scale" / "config.pbtxt"
    config.write_text(SCALE_CONFIG.replace("dims: [ 3 ]", "dims: [ -1, 3 ]"))
    (repository / "scale" / "1" / "model.onnx").unlink()

    (found,) = [finding for finding in lint(repository, ["scale"]) if finding.severity == "warning"]

    assert (found.field, found.line) == ("input[0].dims[0]", 10)


def test_an_artefact_without_a_manifest_is_a_warning(repository: Path) -> None:
    (repository / "scale" / "1" / "manifest.json").unlink()

    (found,) = lint(repository)

    assert (found.severity, found.file) == ("warning", "scale/config.pbtxt")
    assert "manifest" in found.message


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

    assert [f"'{rows}'" in finding.message for finding in found] == [True] * refused


DECLARATIONS = [
    ("PARAMETERS = {'gain': 1, 'other': 2}", 0, "a dictionary"),
    ("PARAMETERS: frozenset[str] = frozenset({'gain'})", 0, "a frozen set with an annotation"),
    ("PARAMETERS = ('gain',)", 0, "a tuple"),
    ("# nothing is declared", 1, "nothing, which is a warning"),
    ("PARAMETERS = make()", 1, "what cannot be read without running it"),
]


@pytest.mark.parametrize(("text", "count", "why"), DECLARATIONS, ids=[row[-1] for row in DECLARATIONS])
def test_how_a_python_model_declares_its_parameters(repository: Path, text: str, count: int, why: str) -> None:
    (repository / "prepare" / "1" / "model.py").write_text(text)

    found = lint(repository)

    assert [finding.severity for finding in found] == ["warning"] * count


def test_companions_that_are_missing_or_of_other_weights(exported: Path) -> None:
    companion = exported / "image_preprocess" / "1" / "manifest.json"
    record = json.loads(companion.read_text())
    assert lint(exported) == []

    companion.unlink()
    (missing,) = lint(exported)
    assert missing.file.startswith("image_preprocess/")
    assert "`fathom export mobilenet_v2`" in missing.remedy

    record["source"]["sha256"] = "f" * 64
    companion.write_text(json.dumps(record))
    (mismatch,) = lint(exported)
    assert mismatch.file == "image_preprocess/1/manifest.json"
    assert "ffffffffffff" in mismatch.message
    assert "mobilenet_v2" in mismatch.message


def test_without_artefacts_every_model_says_what_to_run(exported: Path) -> None:
    for name in ("minilm", "mobilenet_v2", "rain_forecast"):
        for file in ("model.onnx", "manifest.json", "reference.npz"):
            (exported / name / "1" / file).unlink()

    found = {finding.file: finding for finding in lint(exported) if finding.severity == "error"}

    for name in ("minilm", "mobilenet_v2", "rain_forecast"):
        assert "1/model.onnx" in found[f"{name}/config.pbtxt"].message
        assert f"`fathom export {name}`" in found[f"{name}/config.pbtxt"].remedy


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
