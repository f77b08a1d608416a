"""What `fathom add` refuses: the class of error, the values that it names, and nothing left behind."""

import json
import os
import pickle
import zipfile

import numpy as np
import onnx
import pytest
from imported_models import I64, F, matrix, node, save_encoder, write, write_functions
from onnx import TensorProto, helper

from export.errors import ContractError, ExportError, NotLoadedError, RecipeError
from fathom import cli
from fathom.console.arguments import UsageError

ROW = [("x", F, ["n", 3])]
RELU = [node("Relu", ["x"], ["y"])]


def relu(path, **options):
    return write(path, RELU, ROW, [("y", F, ["n", 3])], **options)


def a_pickle(folder):
    (folder / "model.pkl").write_bytes(pickle.dumps({"weights": [1.0]}))
    return ["--onnx", "model.pkl"]


def a_joblib_file(folder):
    (folder / "model.joblib").write_bytes(pickle.dumps([1.0], protocol=4))
    return ["--sklearn", "model.joblib"]


def a_renamed_pickle(folder):
    (folder / "model.onnx").write_bytes(pickle.dumps({"weights": [1.0]}))
    return ["--onnx", "model.onnx"]


def a_torch_checkpoint(folder):
    with zipfile.ZipFile(folder / "weights", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")
    return ["--torch", "weights"]


def pickled_weights(folder):
    (folder / "hub").mkdir()
    (folder / "hub" / "config.json").write_text("{}")
    (folder / "hub" / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    return ["--hf", "hub"]


def map_as_input(folder):
    words = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(F, []))
    nodes = [node("DictVectorizer", ["words"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a", "b"])]
    y = helper.make_tensor_value_info("y", F, [1, 2])
    graph = helper.make_graph(nodes, "g", [helper.make_value_info("words", words)], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "m.onnx")
    return ["--onnx", "m.onnx"]


def data_outside(folder, location="../secret.bin"):
    relu(folder / "m.onnx")
    model = onnx.load(folder / "m.onnx")
    tensor = model.graph.initializer.add(name="w", data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    onnx.save(model, folder / "m.onnx")
    return ["--onnx", "m.onnx"]


def data_through_a_link(folder):
    (folder / "w.bin").symlink_to("/etc/hostname")
    return data_outside(folder, "w.bin")


def data_cut_short(folder):
    (folder / "w.bin").write_bytes(b"cut")
    arguments = data_outside(folder, "w.bin")
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    model.graph.initializer[0].external_data.add(key="length", value="8")
    onnx.save(model, folder / "m.onnx")
    return arguments


def untyped_output(folder):
    relu(folder / "m.onnx")
    model = onnx.load(folder / "m.onnx")
    model.graph.output.add(name="nowhere")
    onnx.save(model, folder / "m.onnx")
    return ["--onnx", "m.onnx"]


def a_pipe(folder):
    os.mkfifo(folder / "m.onnx")
    return ["--onnx", "m.onnx"]


def two_gigabytes(folder):
    with (folder / "m.onnx").open("wb") as file:
        file.truncate(2**31)
    return ["--onnx", "m.onnx"]


def custom_operator(folder):
    nodes = [node("Relu", ["x"], ["a"]), node("Fancy", ["a"], ["y"], domain="com.acme")]
    write(folder / "m.onnx", nodes, ROW, [("y", F, ["n", 3])], domains=[("com.acme", 1)])
    return ["--onnx", "m.onnx"]


def unknown_operator(folder):
    write(folder / "m.onnx", [node("Fancy", ["x"], ["y"])], ROW, [("y", F, ["n", 3])])
    return ["--onnx", "m.onnx"]


def one_of(nodes, inputs, outputs, **options):
    def make(folder):
        write(folder / "m.onnx", nodes, inputs, outputs, **options)
        return ["--onnx", "m.onnx"]

    return make


def text(content):
    def make(folder):
        (folder / "m.onnx").write_text(content)
        return ["--onnx", "m.onnx"]

    return make


def plain(*options):
    def make(folder):
        relu(folder / "m.onnx")
        return ["--onnx", "m.onnx", *options]

    return make


def functions(name):
    def make(folder):
        return ["--torch" if name in TORCH else "--sklearn", f"{write_functions(folder)}:{name}"]

    return make


BOOSTED = """
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

ROWS = np.eye(4, 3, dtype=np.float32)


class CatBoostClassifier:
    __module__ = "catboost.core"


class LGBMClassifier(LogisticRegression):
    __module__ = "lightgbm.sklearn"


def catboost():
    return CatBoostClassifier()


def lightgbm():
    return LGBMClassifier().fit(ROWS, [0, 1, 0, 1]), ROWS


def lightgbm_in_a_pipeline():
    return make_pipeline("passthrough", LGBMClassifier()).fit(ROWS, [0, 1, 0, 1]), ROWS
"""


def boosted(name):
    """A stand-in of the library's class: skl2onnx knows neither."""

    def make(folder):
        (folder / "boosted.py").write_text(BOOSTED)
        return ["--sklearn", f"boosted:{name}"]

    return make


TORCH = (
    "module_only",
    "no_module",
    "broken",
    "absent",
    "scripted",
    "misfit",
    "exits",
    "no_axes",
    "other_axes",
    "complex_valued",
    "own_name",
    "one_name",
    "row_by_row",
    "no_tensors",
)


def generating(folder):
    save_encoder(folder / "hub")
    settings = json.loads((folder / "hub" / "config.json").read_text())
    (folder / "hub" / "config.json").write_text(json.dumps({**settings, "architectures": ["GPT2LMHeadModel"]}))
    return ["--hf", "hub"]


def own_code(folder):
    generating(folder)
    settings = json.loads((folder / "hub" / "config.json").read_text())
    own = {**settings, "architectures": ["AcmeModel"], "auto_map": {"AutoModel": "acme.AcmeModel"}}
    (folder / "hub" / "config.json").write_text(json.dumps(own))
    return ["--hf", "hub"]


def other_architecture(folder):
    generating(folder)
    settings = json.loads((folder / "hub" / "config.json").read_text())
    named = {**settings, "architectures": ["BertForSequenceClassification"]}
    (folder / "hub" / "config.json").write_text(json.dumps(named))
    return ["--hf", "hub"]


def wrong_example(folder):
    relu(folder / "m.onnx")
    np.savez(folder / "rows.npz", z=matrix(2, 3))
    return ["--onnx", "m.onnx", "--example", "rows.npz"]


def an_input_too_many(folder):
    relu(folder / "m.onnx")
    np.savez(folder / "rows.npz", x=matrix(2, 3), token_type_ids=np.zeros((2, 3), np.int64))
    return ["--onnx", "m.onnx", "--example", "rows.npz"]


def objects_as_example(folder):
    relu(folder / "m.onnx")
    np.savez(folder / "rows.npz", x=np.array([{"a": 1}], object))
    return ["--onnx", "m.onnx", "--example", "rows.npz"]


def misshapen_example(folder):
    relu(folder / "m.onnx")
    np.savez(folder / "rows.npz", x=matrix(2, 5))
    return ["--onnx", "m.onnx", "--example", "rows.npz"]


REFUSED = {
    "a pickle": (a_pickle, RecipeError, ["model.pkl", "--torch", "--sklearn"]),
    "a joblib file": (a_joblib_file, RecipeError, ["model.joblib", "--sklearn"]),
    "a pickle by another name": (a_renamed_pickle, RecipeError, ["model.onnx", "pickle"]),
    "a torch checkpoint": (a_torch_checkpoint, RecipeError, ["weights", "safetensors"]),
    "pickled transformers weights": (
        pickled_weights,
        RecipeError,
        ["--hf hub", "pytorch_model.bin", "save_pretrained"],
    ),
    "a map": (map_as_input, ContractError, ["'words'", "map"]),
    "external data outside the folder": (data_outside, ContractError, ["'../secret.bin'"]),
    "external data through a link": (data_through_a_link, ContractError, ["'w.bin'"]),
    "external data by an absolute path": (
        lambda folder: data_outside(folder, str(folder / "here.bin")),
        ContractError,
        ["here.bin'"],
    ),
    "external data that is cut short": (data_cut_short, ContractError, ["8 bytes", "'w.bin'"]),
    "external data that is missing": (lambda f: data_outside(f, "gone.bin"), ContractError, ["'gone.bin'"]),
    "2 GB in one file": (two_gigabytes, RecipeError, ["2.1 GB", "save_as_external_data=True"]),
    "an opset newer than the container's": (
        lambda folder: [*one_of(RELU, ROW, [("y", F, ["n", 3])], opset=26)(folder), "--triton-tag", "26.05-py3"],
        ContractError,
        ["opset 26", "1.24.4", "26.05-py3", "25"],
    ),
    "an IR version newer than the container's": (
        lambda folder: [*one_of(RELU, ROW, [("y", F, ["n", 3])], ir_version=13)(folder), "--triton-tag", "25.12"],
        ContractError,
        ["13", "1.23.2", "25.12", "model.ir_version = 11"],
    ),
    "an opset that no ONNX Runtime here knows": (
        one_of(RELU, ROW, [("y", F, ["n", 3])], opset=99),
        ContractError,
        ["m.onnx", "opset 99"],
    ),
    "an opset older than any ONNX Runtime's": (
        one_of([node("Mul", ["x", "x"], ["y"])], ROW, [("y", F, ["n", 3])], opset=6, ir_version=3),
        ContractError,
        ["opset 6", "7", "convert_version"],
    ),
    "a source that answers some requests only": (
        one_of([node("Expand", ["x", "to"], ["y"])], [("x", F, [2, 1]), ("to", I64, [2])], [("y", F, None)]),
        ExportError,
        ["--example FILE.npz"],
    ),
    "a custom operator": (custom_operator, ContractError, ["com.acme.Fancy"]),
    "an operator that ONNX does not have": (unknown_operator, NotLoadedError, ["Fancy"]),
    "a file that is missing": (lambda folder: ["--onnx", "m.onnx"], RecipeError, ["m.onnx"]),
    "a folder": (lambda folder: ["--onnx", "."], RecipeError, ["--hf"]),
    "a pipe": (a_pipe, RecipeError, ["m.onnx", "regular"]),
    "a file that is not ONNX": (text("hello, world"), RecipeError, ["m.onnx", "ONNX"]),
    "an empty file": (text(""), RecipeError, ["m.onnx", "ONNX"]),
    "an empty graph": (one_of([], ROW, []), ContractError, ["operators"]),
    "no inputs": (
        one_of([node("Relu", ["w"], ["y"])], [], [("y", F, [3])], weights={"w": matrix(1, 3)}),
        ContractError,
        ["inputs"],
    ),
    "an axis of size 0": (one_of(RELU, [("x", F, ["n", 0])], [("y", F, ["n", 0])]), ContractError, ["size 0"]),
    "a request that gRPC could not carry": (
        one_of(RELU, [("x", F, ["n", 2**30])], [("y", F, ["n", 2**30])]),
        ContractError,
        ["4.3 GB", "'x' [1073741824]", "2 GB"],
    ),
    "whole numbers that are drawn": (
        one_of(
            [node("Multinomial", ["x"], ["y"], sample_size=64)], [("x", F, [2, 9])], [("y", TensorProto.INT32, None)]
        ),
        ExportError,
        ["'y'", "Multinomial"],
    ),
    "an output whose type nothing tells": (untyped_output, ContractError, ["'nowhere'", "make_tensor_value_info"]),
    "an input of unknown rank": (one_of(RELU, [("x", F, None)], [("y", F, None)]), ContractError, ["'x'", "shape"]),
    "two inputs of one name": (one_of(RELU, [*ROW, *ROW], [("y", F, ["n", 3])]), ContractError, ["'x'", "two"]),
    "a bfloat16 input": (
        one_of(RELU, [("x", TensorProto.BFLOAT16, ["n", 3])], [("y", TensorProto.BFLOAT16, ["n", 3])]),
        ContractError,
        ["'x'", "BFLOAT16"],
    ),
    "a type that Triton has not": (
        one_of(RELU, [("x", TensorProto.COMPLEX64, ["n"])], [("y", TensorProto.COMPLEX64, ["n"])]),
        ContractError,
        ["COMPLEX64"],
    ),
    "an open axis without a size": (
        one_of(RELU, [("x", F, ["n", "tokens"])], [("y", F, ["n", "tokens"])]),
        ContractError,
        ["axis 1", "'x'", "--dim tokens=16"],
    ),
    "several open axes without sizes": (
        one_of(RELU, [("x", F, ["n", "high", "wide"])], [("y", F, ["n", "high", "wide"])]),
        ContractError,
        ["axis 1", "'x'", "--dim high=16 --dim wide=16"],
    ),
    "an open first axis beside a scalar": (
        one_of([node("Mul", ["x", "s"], ["y"])], [*ROW, ("s", F, [])], [("y", F, ["n", 3])]),
        ContractError,
        ["axis 0", "'x'", "'s'", "--dim n=16"],
    ),
    "an unnamed open axis": (
        one_of(RELU, [("x", F, ["n", None])], [("y", F, ["n", None])]),
        ContractError,
        ["axis 1", "'x'", "--dim x:1=16"],
    ),
    "a size for an axis that is not open": (plain("--dim", "height=3"), ContractError, ["--dim height=3", "n, x:0"]),
    "a size that is none": (plain("--dim", "n=many"), UsageError, ["--dim n=many", "tokens=32"]),
    "an example without an input": (wrong_example, ContractError, ["'x'"]),
    "an example with an input too many": (an_input_too_many, ContractError, ["'token_type_ids'"]),
    "an example of objects": (objects_as_example, RecipeError, ["rows.npz"]),
    "answers that are no numbers": (
        one_of([node("Log", ["x"], ["y"])], ROW, [("y", F, ["n", 3])]),
        ExportError,
        ["'y'", "NaN", "--example"],
    ),
    "a function that is not named": (lambda folder: ["--torch", "model.py"], RecipeError, ["package.module:function"]),
    "a module that is not there": (lambda folder: ["--torch", "nowhere_at_all:make"], RecipeError, ["nowhere_at_all"]),
    "a function that is not there": (functions("absent"), RecipeError, ["'absent'", "broken, churn, clusters"]),
    "a function that fails": (functions("broken"), RecipeError, ["imported_functions.py:", "KeyError"]),
    "a module without an example": (functions("module_only"), RecipeError, ["(module, example)"]),
    "a function that makes no module": (functions("no_module"), RecipeError, ["dict"]),
    "a TorchScript module": (functions("scripted"), RecipeError, ["TorchScript", "nn.Module"]),
    "a module that its example does not fit": (functions("misfit"), RecipeError, ["Linear", "cannot be multiplied"]),
    "a function that exits": (functions("exits"), RecipeError, ["imported_functions.py:", "SystemExit: 3"]),
    "axes that are none": (functions("no_axes"), RecipeError, ["5", "{input: {axis: symbol}}"]),
    "axes of another input": (functions("other_axes"), RecipeError, ["'folder'", "file"]),
    "complex numbers": (functions("complex_valued"), ContractError, ["complex64"]),
    "an answer by the name of its input": (functions("own_name"), RecipeError, ["'x'"]),
    "two answers of one name": (functions("one_name"), RecipeError, ["'a.b'"]),
    "other answers to two rows than to one": (functions("row_by_row"), RecipeError, ["output_1.boxes"]),
    "an answer without tensors": (functions("no_tensors"), RecipeError, ["tensors"]),
    "an example of another shape": (
        misshapen_example,
        ContractError,
        ["'x'", "(2, 5)", "(rows, 3)"],
    ),
    "an estimator that is not fitted": (functions("unfitted"), RecipeError, ["fitted"]),
    "a CatBoost model": (boosted("catboost"), RecipeError, ["save_model('model.onnx', format='onnx')", "--onnx"]),
    "a LightGBM model": (boosted("lightgbm"), ExportError, ["onnxmltools.convert_lightgbm", "zipmap=False", "--onnx"]),
    "a LightGBM model in a pipeline": (
        boosted("lightgbm_in_a_pipeline"),
        ExportError,
        ["LGBMClassifier", "skl2onnx.update_registered_converter"],
    ),
    "a model that generates": (generating, RecipeError, ["GPT2LMHeadModel", "vLLM"]),
    "a model of its own code": (own_code, RecipeError, ["AcmeModel"]),
    "weights of another architecture": (other_architecture, RecipeError, ["classifier"]),
}


def listing(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a model repository of one model, as the current one."""
    (tmp_path / "model_repository" / "present").mkdir(parents=True)
    (tmp_path / "model_repository" / "present" / "config.pbtxt").write_text('backend: "python"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FATHOM_MODEL_REPOSITORY", raising=False)
    return tmp_path


@pytest.mark.parametrize(("make", "kind", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_leaves_nothing(make, kind, said, project):
    arguments = make(project)
    before = listing(project)
    words = ["add", "mine", *arguments, "--no-serve"]
    options = cli.parser("add").parse_args(words)
    with pytest.raises(kind) as refused:
        options.run(options)
    assert [part for part in said if part not in str(refused.value)] == []
    assert [path for path in listing(project) if "__pycache__" not in path.parts] == before


NAMES = {
    "a name that exists": ("present", ["present exists"]),
    "a bundled model's name": ("minilm", ["minilm"]),
    "a pipeline's name": ("image_classifier", ["image_classifier"]),
    "a name with a slash": ("a/b", ["'a/b'"]),
    "a hidden name": (".hidden", ["'.hidden'"]),
    "a name that climbs": ("..", ["'..'"]),
    "a name with a space": ("my model", ["'my model'"]),
    "no name": ("", ["''"]),
}


@pytest.mark.parametrize(("name", "said"), NAMES.values(), ids=NAMES.keys())
def test_a_name_that_cannot_be_is_refused_before_anything_is_read(name, said, project, capsys):
    assert cli.main(["add", name, "--onnx", "nowhere.onnx"]) == 2
    message = capsys.readouterr().err.strip()
    assert len(message.splitlines()) == 1
    for part in said:
        assert part in message


def test_a_repository_that_is_not_there_is_named(project, capsys):
    relu(project / "m.onnx")
    with pytest.raises(SystemExit) as ended:
        cli.main(["add", "mine", "--onnx", "m.onnx", "--model-repository", "nowhere"])
    assert ended.value.code == 2
    assert "'nowhere'" in capsys.readouterr().err
    assert not (project / "nowhere").exists()
