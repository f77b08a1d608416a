"""Commands that messages suggest are pasted: the shell splits them into words, and this process runs them."""

import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from imported_models import I64, F, node, write

from clients import ModelSpec, TensorSpec
from clients.datatypes import NUMPY_TYPE
from export import recipes
from export.command import fathom, quote
from export.errors import ExportError, RecipeError
from export.lint.lint import lint
from export.precision.convert import Judged
from export.precision.sensitivity import Cost
from export.recipe.measure import Measurement
from export.recipe.recipe import Evaluation
from export.sources.sklearn import converters
from fathom import cli
from fathom.commands import add as add_command
from fathom.console import inputs
from fathom.console.servers import same_server
from fathom.latencies import generous_slo
from loadtests import report
from loadtests.slo import Slo

SHELL = """fathom() { printf '%s\\0' fathom "$@"; }; """
RELU = [node("Relu", ["x"], ["y"])]


def pasted(command):
    """The words that bash makes of a command line."""
    done = subprocess.run(["bash", "-c", SHELL + command], capture_output=True, check=True, text=True)
    assert not done.stderr
    return done.stdout.split("\0")[:-1]


def run(words):
    program, *rest = words
    assert program == "fathom"
    return cli.main(rest)


def commands(message):
    """The commands in a message: between backquotes."""
    return [each for each in re.findall(r"`([^`]+)`", " ".join(message.split())) if each.startswith("fathom ")]


def raised(words):
    """The error that a command ends with."""
    options = cli.parser(words[0]).parse_args(words)
    with pytest.raises(ExportError) as caught:
        options.run(options)
    return caught.value


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The current folder: an ONNX file, and a model repository that is not the one Fathom takes by default."""
    (tmp_path / "my models").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FATHOM_MODEL_REPOSITORY", raising=False)
    write(tmp_path / "relu.onnx", RELU, [("x", F, ["n", 3])], [("y", F, ["n", 3])])
    return tmp_path


ADD = ["add", "mine", "--onnx", "relu.onnx", "--no-serve", "--model-repository", "my models"]


@pytest.fixture
def added(project, capsys):
    assert cli.main([*ADD, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    return project / "my models" / "mine", document


WORDS = ["plain", "two words", "two  blanks", "a\ttab", "$HOME", "`id`", "it's", 'a "b"', "-x", "a;b", "é", "*", "#",
         "\x1b[31m;", "'\\\t`"]  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_a_word_stays_a_word_in_a_message_of_one_line(word):
    assert pasted(f"fathom {' '.join(quote(word).split())}") == ["fathom", word]


def test_only_what_a_terminal_does_not_show_is_spelled_out():
    assert quote("\x1b[31mred=1;") == "$'\\U0000001b[31mred=1;'"


NAMES = ["past_length + length", "2*length", "tokens (at most $N)", "two  blanks", "-x", "a=b"]


@pytest.mark.parametrize("name", NAMES)
def test_sizes_for_axes(project, name):
    """Pasted behind the command that was refused; of a formula, its parts."""
    shapes = [("ids", F, ["n", "length"]), ("past", F, ["n", "past_length"]), ("mask", F, ["n", name])]
    nodes = [node("Relu", [each], [f"{each}_out"]) for each, *_ in shapes]
    write(project / "relu.onnx", nodes, shapes, [(f"{each}_out", kind, shape) for each, kind, shape in shapes])

    error = raised(ADD)

    assert error.field == "dim"
    assert error.expected in str(error)
    assert run(pasted(f"fathom {' '.join(map(quote, ADD))} {error.expected}")) == 0


def test_what_add_ends_with_names_the_repository(added):
    folder, document = added
    for command in document["commands"]:
        words = pasted(command)
        options = cli.parser(words[1]).parse_args(words[1:])
        assert options.model_repository.resolve() == folder.parent
    (kept,) = (command for note in document["notes"] for command in commands(note))
    shutil.rmtree(folder / "1")
    assert run(pasted(kept)) == 0
    assert (folder / "1" / "model.onnx").is_file()


def test_models_that_cannot_be_served_yet_are_named(added, project, capsys):
    """Beside one that is built, only the others need an export."""
    folder, _ = added
    shutil.copytree(folder, folder.with_name("other"))
    shutil.rmtree(folder.with_name("other") / "1")
    assert cli.main([*ADD[:1], "third", *ADD[2:]]) == 0
    (command,) = (each for each in commands(capsys.readouterr().err) if "other" in each)
    assert run(pasted(command)) == 0
    assert (folder.with_name("other") / "1" / "model.onnx").is_file()


def test_a_name_that_is_taken(added):
    folder, _ = added
    (again,) = commands(str(raised(ADD)))
    assert run(pasted(again)) == 0
    (folder / "recipe.toml").unlink()
    assert commands(str(raised(ADD))) == [], "without a recipe nothing exports it again"


def lose(name):
    return lambda folder: (folder / name).unlink()


def spoil(name):
    return lambda folder: (folder / name).write_bytes(b"spoilt")


DAMAGES = {
    "an artefact that is missing": lose("1/model.onnx"),
    "an artefact that is none": spoil("1/model.onnx"),
    "a manifest that is none": spoil("1/manifest.json"),
    "a manifest that is missing": lose("1/manifest.json"),
    "answers of the source that are missing": lose("1/reference.npz"),
    "an artefact without all its bytes": lambda folder: (folder / "1" / "reference.npz").write_bytes(b"PK\3\4"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_finding_of_check_is_mended_by_what_it_says(damage, added):
    folder, _ = added
    before = [finding for finding in lint(folder.parent) if finding.remedy.startswith("run ")]
    assert before == []
    damage(folder)
    found = [finding for finding in lint(folder.parent) if finding.remedy.startswith("run ")]
    assert found
    for command in dict.fromkeys(command for finding in found for command in commands(finding.remedy)):
        assert run(pasted(command)) == 0
    assert [finding for finding in lint(folder.parent) if finding.remedy.startswith("run ")] == []


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_check_suggests_no_export_of_a_model_without_a_recipe(damage, added):
    folder, _ = added
    (folder / "recipe.toml").unlink()
    damage(folder)
    assert not [finding for finding in lint(folder.parent) if commands(finding.remedy)]


def test_a_companion_is_exported_by_its_model(project, monkeypatch):
    """Its name is accepted as well, since messages about its files have no other."""
    exported = []
    monkeypatch.setattr("fathom.commands.export.export_model", lambda recipe, *_, **__: exported.append(recipe.name))
    monkeypatch.setattr("fathom.commands.export.table", lambda *_: "")
    with pytest.raises(AttributeError):  # the double returns no result
        run(pasted(fathom("export", "text_tokenizer", "--no-engine", repository=project / "my models")))
    assert exported == ["minilm"]


def log_of(project, **example):
    """A model that has no answer to negative numbers."""
    write(project / "relu.onnx", [node("Log", ["x"], ["y"])], [("x", F, ["n", 3])], [("y", F, ["n", 3])])
    if example:
        np.savez(project / "FILE.npz", **example)


def test_real_requests_are_suggested_where_made_up_ones_are_not_answered(project):
    log_of(project, x=np.full((4, 3), 2.0, np.float32))
    remedy = raised(ADD).remedy
    (option,) = re.findall(r"--example \S+", remedy)
    assert run([*pasted(f"fathom {' '.join(map(quote, ADD))}"), *option.split()]) == 0


def expanding(project):
    """A model that takes some shapes only, whose input without open axes no --dim could size."""
    write(
        project / "relu.onnx",
        [node("Expand", ["x", "to"], ["y"])],
        [("x", F, [2, 1]), ("to", I64, [2])],
        [("y", F, None)],
    )


def test_sizes_are_suggested_only_where_an_axis_is_open(project):
    expanding(project)
    remedy = raised(ADD).remedy
    assert "--example" in remedy
    assert "--dim" not in remedy


def test_no_example_is_suggested_where_one_was_given(project):
    log_of(project, x=np.full((4, 3), -2.0, np.float32))
    assert "--example" not in raised([*ADD, "--example", "FILE.npz"]).remedy
    expanding(project)
    np.savez(project / "FILE.npz", x=np.ones((3, 2, 1), np.float32), to=np.full((3, 2), -7))
    assert "--example" not in raised([*ADD, "--example", "FILE.npz"]).remedy


def test_export_suggests_no_option_that_only_add_has(added):
    """What the source does not answer comes from recipe.toml then, or from example.npz."""
    folder, _ = added
    recipe = recipes.find("mine", folder.parent)
    source = recipe.load(recipe.resolve(None))
    with pytest.raises(ExportError) as caught:
        source.predict({"x": np.ones((1, 7), np.float32)})
    assert "mine/example.npz" in caught.value.remedy
    assert "--example" not in caught.value.remedy


def test_a_model_without_a_recipe_has_no_example_to_ask(project):
    from fathom.recipes import question

    with pytest.raises(RecipeError) as caught:
        question(ModelSpec("foreign", "1", 0, {}, {}), project / "my models")
    assert commands(str(caught.value)) == []


def test_an_operator_that_is_to_be_excluded():
    costs = [Cost("block 1/Mat Mul", "MatMul", 0.5)]
    remedy = Judged(None, Measurement({}), {}, costs=lambda: costs).remedy()
    assert pasted(f"fathom {re.search(r'--exclude .* of ', remedy)[0].removesuffix(' of ')}")[1:] == [
        "--exclude",
        costs[0].name,
    ]


def of(library, name):
    return type(name, (), {"__module__": f"{library}.sklearn"})()


CONVERTERS = {
    "LightGBM by itself": ([of("lightgbm", "LGBMClassifier")], "onnxmltools.convert_lightgbm"),
    "XGBoost by itself": ([of("xgboost", "XGBClassifier")], "onnxmltools.convert_xgboost"),
    "CatBoost": ([of("catboost", "CatBoostClassifier")], "save_model('model.onnx', format='onnx')"),
    "LightGBM in a pipeline": ([of("sklearn", "Pipeline"), of("lightgbm", "LGBMClassifier")], "update_registered_conv"),
    "scikit-learn's own": ([of("sklearn", "Pipeline")], None),
}


@pytest.mark.parametrize(("steps", "named"), CONVERTERS.values(), ids=CONVERTERS.keys())
def test_each_boosting_library_has_its_own_converter(steps, named):
    remedy = converters.remedy(steps)
    assert remedy is None if named is None else named in remedy


@pytest.mark.parametrize("latency_ms", [0.0, 0.3, 5.0, 5.1, 80.0, 700.0, 12_345.0])
def test_the_slo_that_is_suggested_is_one(latency_ms):
    slo = Slo.parse(generous_slo(latency_ms))
    assert max(50.0, 10 * latency_ms) <= slo.limit_ms <= 2.5 * max(50.0, 10 * latency_ms)


def test_the_same_server_for_another_command():
    given = ["infer", "m", "x=1", "--server", "host:8001", "--tls-ca", "my ca.pem", "--header-command", "a=cat 'b c'"]
    options = cli.parser("infer").parse_args(given)
    again = cli.parser("capacity").parse_args(pasted(f"fathom capacity m --slo p99=9ms{same_server(options)}")[1:])
    assert all(getattr(options, name) == getattr(again, name) for name in ("server", "tls_ca", "header_command"))


TYPE_OF = {kind: name for name, kind in NUMPY_TYPE.items() if kind.kind in "iufb"}
ROWS = {
    "fractions": np.array([[0.1, -2.5e-7, 3e30]], np.float32),
    "halves": np.array([[0.1, 65504.0]], np.float16),
    "no numbers": np.array([[np.nan, np.inf, -np.inf]], np.float32),
    "the largest whole number": np.array([[2**64 - 1]], np.uint64),
    "truth values": np.array([[True, False]]),
    "a matrix": np.arange(4).reshape(1, 2, 2),
    "a text for a shell to stumble over": np.array([['it\'s $HOME; `id` "#" *']]),
    "a text with white space of its own": np.array([[" two  blanks\tand a line\n"]]),
    "a text like JSON": np.array([["[1, 2]"]]),
    "an empty text": np.array([[""]]),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_a_request_that_is_written_out_is_the_example(row, project):
    datatype = "BYTES" if row.dtype.kind == "U" else TYPE_OF[row.dtype]
    spec = ModelSpec("m", "", 8, {"x": TensorSpec("x", datatype, row.shape[1:])}, {})
    words = add_command._inputs(SimpleNamespace(evaluation=lambda: Evaluation({"x": row})))
    command = " ".join(fathom("infer", "m", *words, repository=project / "my models").split())
    options = cli.parser("infer").parse_args(pasted(command)[1:])
    sent = inputs.parse(spec, options.inputs)["x"]
    if row.dtype.kind == "U":
        assert sent.ravel().tolist() == np.char.encode(row).ravel().tolist()
    else:
        assert sent.dtype == row.dtype
        assert np.allclose(sent, row, rtol=1e-3 if row.dtype == np.float16 else 1e-6, equal_nan=True)


def test_the_command_that_a_report_shows():
    settings = {"mix": {"my model": 0.75, "other": 0.25}, "headers": ["a b"], "tls": True, "workers": 2}
    run = SimpleNamespace(model="mix", slos=[Slo.parse("p99=9ms")], server="host:8001", seed=3, settings=settings)
    options = cli.parser("capacity").parse_args(pasted(report._repeat(SimpleNamespace(run=run)))[1:])
    assert options.models == ["my model=0.75", "other=0.25"]
    assert (options.slo, options.seed, options.workers, options.header) == (["p99=9ms"], 3, 2, ["a b=..."])
