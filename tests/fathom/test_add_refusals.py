"""What `fathom add` refuses: one sentence that says why and what to do, exit status 2, nothing left behind."""

import json
import os
import pickle
import zipfile

import numpy as np
import onnx
import pytest
from brought_models import I64, F, matrix, node, save_encoder, write, write_functions
from onnx import TensorProto, helper

from fathom import cli

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
    "a pickle": (a_pickle, ["model.pkl is a pickle", "runs whatever code", "--torch or --sklearn"]),
    "a joblib file": (a_joblib_file, ["model.joblib is a pickle", "where you trust it"]),
    "a pickle by another name": (a_renamed_pickle, ["model.onnx is a pickle"]),
    "a torch checkpoint": (a_torch_checkpoint, ["weights is a pickle", "safetensors"]),
    "pickled transformers weights": (pickled_weights, ["--hf hub", "pytorch_model.bin, a pickle", "save_pretrained"]),
    "a map": (map_as_input, ["'words' is a map", "tensors"]),
    "external data outside the folder": (data_outside, ["'../secret.bin'", "outside its own folder"]),
    "external data through a link": (data_through_a_link, ["'w.bin'", "outside its own folder"]),
    "external data by an absolute path": (
        lambda folder: data_outside(folder, str(folder / "here.bin")),
        ["here.bin'", "outside its own folder"],
    ),
    "external data that is cut short": (data_cut_short, ["first 8 bytes of 'w.bin', which has 3", "whole"]),
    "external data that is missing": (lambda f: data_outside(f, "gone.bin"), ["'gone.bin'", "not beside it"]),
    "2 GB in one file": (two_gigabytes, ["2.1 GB", "save_as_external_data=True"]),
    "an opset newer than the container's": (
        lambda folder: [*one_of(RELU, ROW, [("y", F, ["n", 3])], opset=26)(folder), "--triton-tag", "26.05-py3"],
        ["opset 26", "ONNX Runtime 1.24.4 of Triton 26.05-py3 loads up to 25", "newer Triton"],
    ),
    "an IR version newer than the container's": (
        lambda folder: [*one_of(RELU, ROW, [("y", F, ["n", 3])], ir_version=13)(folder), "--triton-tag", "25.12"],
        ["IR version 13", "ONNX Runtime 1.23.2 of Triton 25.12 loads up to 11", "model.ir_version = 11"],
    ),
    "an opset that no ONNX Runtime here knows": (
        one_of(RELU, ROW, [("y", F, ["n", 3])], opset=99),
        ["m.onnx has opset 99, and the ONNX Runtime here loads up to"],
    ),
    "an opset older than any ONNX Runtime's": (
        one_of([node("Mul", ["x", "x"], ["y"])], ROW, [("y", F, ["n", 3])], opset=6, ir_version=3),
        ["opset 6", "operators from 7 on", "convert_version"],
    ),
    "a source that answers some requests only": (
        one_of([node("Expand", ["x", "to"], ["y"])], [("x", F, [2, 1]), ("to", I64, [2])], [("y", F, None)]),
        ["does not answer", "--example FILE.npz"],
    ),
    "a custom operator": (custom_operator, ["com.acme.Fancy", "does not have"]),
    "an operator that ONNX does not have": (unknown_operator, ["Fancy"]),
    "a file that is missing": (lambda folder: ["--onnx", "m.onnx"], ["there is no file m.onnx"]),
    "a folder": (lambda folder: ["--onnx", "."], ["is a folder", "--hf"]),
    "a pipe": (a_pipe, ["no regular file"]),
    "a file that is not ONNX": (text("hello, world"), ["m.onnx is not an ONNX file"]),
    "an empty file": (text(""), ["m.onnx is not an ONNX file"]),
    "an empty graph": (one_of([], ROW, []), ["no operators"]),
    "no inputs": (
        one_of([node("Relu", ["w"], ["y"])], [], [("y", F, [3])], weights={"w": matrix(1, 3)}),
        ["no inputs"],
    ),
    "an axis of size 0": (one_of(RELU, [("x", F, ["n", 0])], [("y", F, ["n", 0])]), ["axis of size 0", "open"]),
    "a request that gRPC could not carry": (
        one_of(RELU, [("x", F, ["n", 2**30])], [("y", F, ["n", 2**30])]),
        ["one request has 4.3 GB ('x' [1073741824])", "over 2 GB"],
    ),
    "whole numbers that are drawn": (
        one_of(
            [node("Multinomial", ["x"], ["y"], sample_size=64)], [("x", F, [2, 9])], [("y", TensorProto.INT32, None)]
        ),
        ["'y' differs each time", "(Multinomial)"],
    ),
    "an output whose type nothing tells": (untyped_output, ["output 'nowhere' has no type", "make_tensor_value_info"]),
    "an input of unknown rank": (one_of(RELU, [("x", F, None)], [("y", F, None)]), ["'x' has no shape"]),
    "two inputs of one name": (one_of(RELU, [*ROW, *ROW], [("y", F, ["n", 3])]), ["two inputs named 'x'"]),
    "a bfloat16 input": (
        one_of(RELU, [("x", TensorProto.BFLOAT16, ["n", 3])], [("y", TensorProto.BFLOAT16, ["n", 3])]),
        ["'x' is BFLOAT16", "cast it to FLOAT"],
    ),
    "a type that Triton has not": (
        one_of(RELU, [("x", TensorProto.COMPLEX64, ["n"])], [("y", TensorProto.COMPLEX64, ["n"])]),
        ["COMPLEX64", "Triton has no type"],
    ),
    "an open axis without a size": (
        one_of(RELU, [("x", F, ["n", "tokens"])], [("y", F, ["n", "tokens"])]),
        ["axis 1 of input 'x' is open", "--dim tokens=16"],
    ),
    "several open axes without sizes": (
        one_of(RELU, [("x", F, ["n", "high", "wide"])], [("y", F, ["n", "high", "wide"])]),
        ["axis 1 of input 'x' (and 1 more)", "--dim high=16 --dim wide=16"],
    ),
    "an open first axis beside a scalar": (
        one_of([node("Mul", ["x", "s"], ["y"])], [*ROW, ("s", F, [])], [("y", F, ["n", 3])]),
        ["axis 0 of input 'x' is open, and no batch: 's' is a scalar", "--dim n=16"],
    ),
    "an unnamed open axis": (
        one_of(RELU, [("x", F, ["n", None])], [("y", F, ["n", None])]),
        ["axis 1 of input 'x'", "--dim x:1=16"],
    ),
    "a size for an axis that is not open": (plain("--dim", "height=3"), ["--dim height=3", "open are: n, x:0"]),
    "a size that is none": (plain("--dim", "n=many"), ["--dim n=many", "tokens=32"]),
    "an example without an input": (wrong_example, ["nothing for input 'x'"]),
    "an example with an input too many": (an_input_too_many, ["'token_type_ids'", "it takes x"]),
    "an example of objects": (objects_as_example, ["rows.npz", "plain arrays"]),
    "a negative batch": (plain("--max-batch-size", "-1"), ["--max-batch-size -1"]),
    "answers that are no numbers": (
        one_of([node("Log", ["x"], ["y"])], ROW, [("y", F, ["n", 3])]),
        ["'y' holds NaN or infinity", "--example"],
    ),
    "a function that is not named": (lambda folder: ["--torch", "model.py"], ["package.module:function"]),
    "a module that is not there": (lambda folder: ["--torch", "nowhere_at_all:make"], ["nowhere_at_all"]),
    "a function that is not there": (functions("absent"), ["has no function 'absent': it has broken, churn, clusters"]),
    "a function that fails": (functions("broken"), ["failed at brought_functions.py:", "KeyError"]),
    "a module without an example": (functions("module_only"), ["without an example", "return (module, example)"]),
    "a function that makes no module": (functions("no_module"), ["returned a dict, not a torch module"]),
    "a TorchScript module": (functions("scripted"), ["TorchScript module", "nn.Module"]),
    "a module that its example does not fit": (functions("misfit"), ["Linear does not answer", "cannot be multiplied"]),
    "a function that exits": (functions("exits"), ["failed at brought_functions.py:", "SystemExit: 3"]),
    "axes that are none": (functions("no_axes"), ["returned 5 as the axes", "{input: {axis: symbol}}"]),
    "axes of another input": (functions("other_axes"), ["opens axes of 'folder', and the example has file"]),
    "complex numbers": (functions("complex_valued"), ["complex64"]),
    "an answer by the name of its input": (functions("own_name"), ["takes 'x' and returns a tensor of that name"]),
    "two answers of one name": (functions("one_name"), ["'a.b'"]),
    "other answers to two rows than to one": (functions("row_by_row"), ["output_1.boxes", "batch axis in front"]),
    "an answer without tensors": (functions("no_tensors"), ["without tensors"]),
    "an example of another shape": (
        misshapen_example,
        ["the example of 'x' has shape (2, 5)", "(rows, 3)"],
    ),
    "an estimator that is not fitted": (functions("unfitted"), ["not fitted"]),
    "a model that generates": (generating, ["GPT2LMHeadModel generates token by token", "vLLM"]),
    "a model of its own code": (own_code, ["has no AcmeModel", "its own code"]),
    "weights of another architecture": (other_architecture, ["no weights for classifier", "make them up"]),
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


@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_said_in_one_line_and_leaves_nothing(make, said, project, capsys):
    arguments = make(project)
    before = listing(project)
    assert cli.main(["add", "mine", *arguments, "--no-serve"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    print(f"$ fathom add mine {' '.join(arguments)}\n{message}")
    assert message.startswith("fathom add: ")
    for part in said:
        assert part in message
    assert [path for path in listing(project) if "__pycache__" not in path.parts] == before


NAMES = {
    "a name that exists": ("present", ["exists", "fathom export present"]),
    "a bundled model's name": ("minilm", ["comes with Fathom"]),
    "a pipeline's name": ("image_classifier", ["comes with Fathom"]),
    "a name with a slash": ("a/b", ["no name for a model"]),
    "a hidden name": (".hidden", ["no name for a model"]),
    "a name that climbs": ("..", ["no name for a model"]),
    "a name with a space": ("my model", ["no name for a model"]),
    "no name": ("", ["no name for a model"]),
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
    assert "--model-repository: no folder 'nowhere'" in capsys.readouterr().err
    assert not (project / "nowhere").exists()
