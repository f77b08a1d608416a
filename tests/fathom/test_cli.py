"""The command line: exit statuses, one-line errors, JSON on stdout."""

import json
import subprocess
import sys

import pytest

from export.errors import ExportError, NotOfferedError
from export.models.pictures import digits
from export.precision.compare import PrecisionRow
from fathom import cli

pytestmark = pytest.mark.process


def fathom(*arguments: object, capsys: pytest.CaptureFixture) -> tuple[int, str, str]:
    """Run the command in this process: (status, stdout, stderr)."""
    status = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    data, truth = digits.held_out_png(0)
    path = tmp_path_factory.mktemp("digit") / "digit.png"
    path.write_bytes(data)
    return path, truth


def test_infer_as_json_is_one_document(served, digit, capsys):
    path, truth = digit
    status, out, _ = fathom(
        "infer",
        "image_classifier",
        f"image=@{path}",
        f"image=@{path}",
        "--server",
        served.grpc_url,
        "--json",
        capsys=capsys,
    )
    document = json.loads(out)
    assert status == 0
    assert [entry[0]["label"] for entry in document["labels"]] == [str(truth)] * 2
    assert document["latency_ms"] > 0


MISTAKES = {
    "an unknown model offers the known ones": (
        ["infer", "image_clasifier", "image=@x"],
        ["'image_clasifier'", "image_classifier"],
    ),
    "an unknown input offers the known ones": (
        ["infer", "text_embedding", "txt=hi"],
        ["'txt'", "text (BYTES"],
    ),
    "an input without a value": (["infer", "text_embedding", "text"], ["'text'", "text=value"]),
    "a missing input": (["infer", "rain_forecast", "temperature_c=9"], ["'humidity_pct'"]),
    "a missing file": (["infer", "image_classifier", "image=@nowhere.png"], ["'nowhere.png'"]),
    "a file that is not an image": (["infer", "image_classifier", "image=@{here}"], ["image"]),
    "a word for a number": (["infer", "rain_forecast", "temperature_c=warm"], ["'warm'"]),
    "empty text": (["infer", "text_embedding", "text="], ["text 0"]),
    "an unknown recipe": (["export", "resnet"], ["'resnet'", "minilm, mobilenet_v2, rain_forecast"]),
    "a precision the model cannot have": (
        ["export", "rain_forecast", "--precision", "int8"],
        ["rain_forecast", "int8"],
    ),
    "an exclusion at full precision": (
        ["export", "minilm", "--exclude", "Gather"],
        ["--exclude", "--precision int8"],
    ),
    "weights for several models": (["export", "--weights", "x"], ["--weights"]),
    "an unreadable SLO": (["capacity", "rain_forecast", "--slo", "fast"], ["'fast'", "p99=50ms"]),
    "a report folder that is none": (["report", "nowhere"], ["nowhere", "fathom capacity MODEL --slo"]),
    "a file where a folder is due": (["report", __file__], ["test_cli.py"]),
    "a comparison of no results": (["report", "--compare", ".", "."], ["run.json"]),
    "a plan without a measurement": (
        ["plan", "--rate", "9", "--report", "no"],
        ["no ", "fathom capacity MODEL"],
    ),
    "an SLO without a latency": (["capacity", "rain_forecast", "--slo", "errors=1%"], ["errors=1%", "p99=50ms"]),
    "a misspelt model of a search": (["capacity", "rain_forcast", "--slo", "p99=9ms"], ["rain_forecast?"]),
    "a misspelt input": (["infer", "rain_forecast", "humidity=9"], ["humidity_pct?"]),
    "a file without its @": (["infer", "image_classifier", "image={here}"], ["image=@"]),
    "a file without its input": (["infer", "image_classifier", "@{here}"], ["image=@"]),
    # Ten times less than it takes: gRPC now and then answers within a deadline that is only a little too short.
    "too little time": (["infer", "image_classifier", "--example", "--timeout", "0.0005"], ["--timeout"]),
    "an address of no machine": (["serve", "--address", "nowhere.invalid"], ["8001", "nowhere.invalid"]),
    "a folder of results that is a file": (["demo", "--report", __file__], ["test_cli.py", "File exists"]),
    "an unknown configuration name": (["serve", "--config-name", "h9000"], ["'h9000'"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_and_exit_status_2(case, served, exported_repository, capsys):
    arguments, words = MISTAKES[case]
    arguments = [argument.format(here=__file__) for argument in arguments]
    if arguments[0] in ("infer", "capacity"):
        arguments += ["--server", served.grpc_url]
    if arguments[0] in ("demo", "export", "serve") or "--example" in arguments:
        arguments += ["--model-repository", str(exported_repository)]
    status, out, err = fathom(*arguments, capsys=capsys)
    assert status == 2
    assert out == ""
    assert err.startswith(f"fathom {arguments[0]}: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err


def test_a_fresh_process_explains_itself_and_all_its_subcommands():
    done = subprocess.run([sys.executable, "-m", "fathom.cli", "--help"], capture_output=True, text=True, check=True)
    assert all(command in done.stdout for command in cli.COMMANDS)
    assert done.stderr == ""


def test_precisions_are_compared_and_nothing_is_published(exported_repository, capsys, monkeypatch):
    monkeypatch.setenv("FATHOM_MODEL_REPOSITORY", str(exported_repository))
    before = (exported_repository / "rain_forecast" / "1" / "manifest.json").read_bytes()
    status, out, _ = fathom("precision", "rain_forecast", "--json", capsys=capsys)
    rows = json.loads(out)["precisions"]
    assert status == 0
    assert [(row["precision"], row["passed"]) for row in rows] == [("fp32", True), ("fp16", None), ("int8", None)]
    assert rows[0]["batch_1_latency_ms"] > 0
    assert rows[2]["gate"]
    assert (exported_repository / "rain_forecast" / "1" / "manifest.json").read_bytes() == before


def test_precisions_that_ctrl_c_cut_short_are_shown_until_then(exported_repository, capsys, monkeypatch):
    done = []

    def compare(recipe, **_):
        if done:
            raise KeyboardInterrupt
        done.append(PrecisionRow(recipe.name, "fp32", "", True))
        return done

    monkeypatch.setattr("fathom.commands.precision.compare", compare)
    options = ("--model-repository", exported_repository, "--json")
    status, out, _ = fathom("precision", "rain_forecast", "minilm", *options, capsys=capsys)
    assert status == 130
    assert [row["model"] for row in json.loads(out)["precisions"]] == ["rain_forecast"]


def failing_compare(recipe, **_):
    if recipe.name == "minilm":
        raise ExportError("minilm is broken")
    rows = [("fp32", "passed", True), ("fp16", "fp16 is\nbroken", False), ("int8", "no reason", None)]
    return [PrecisionRow(recipe.name, *row) for row in rows]


def test_a_failed_conversion_is_a_line_and_the_other_rows_are_printed(exported_repository, capsys, monkeypatch):
    monkeypatch.setattr("fathom.commands.precision.compare", failing_compare)
    options = ("--model-repository", exported_repository)

    status, out, err = fathom("precision", "minilm", "rain_forecast", *options, "--json", capsys=capsys)

    assert status == 2
    assert [(row["model"], row["precision"], row["passed"]) for row in json.loads(out)["precisions"]] == [
        *(("minilm", "fp32", False), ("rain_forecast", "fp32", True)),
        *(("rain_forecast", "fp16", False), ("rain_forecast", "int8", None)),
    ]
    assert "fathom precision: minilm at fp32: minilm is broken\n" in err
    assert "fathom precision: rain_forecast at fp16: fp16 is broken\n" in err
    status, out, _ = fathom("precision", "minilm", "rain_forecast", *options, capsys=capsys)
    assert status == 2
    assert out.count("not converted") == 2


def test_one_model_that_cannot_be_compared_is_one_line(exported_repository, capsys, monkeypatch):
    monkeypatch.setattr("fathom.commands.precision.compare", failing_compare)
    status, out, err = fathom("precision", "minilm", "--model-repository", exported_repository, capsys=capsys)
    assert (status, out) == (2, "")
    assert err.endswith("fathom precision: minilm is broken\n")


@pytest.mark.parametrize(("names", "expected"), [((), 0), (("minilm",), 2)], ids=["all models", "a named model"])
def test_a_graph_without_the_precision_is_left_as_it_is_unless_it_is_named(
    names, expected, exported_repository, capsys, monkeypatch
):
    def export_model(recipe, *_, **__):
        raise NotOfferedError(recipe.name, "fp16", "it is of trees", ("fp32",))

    monkeypatch.setattr("fathom.commands.export.export_model", export_model)
    options = ("--precision", "fp16", "--model-repository", exported_repository)

    status, _, err = fathom("export", *names, *options, capsys=capsys)

    assert status == expected
    assert ("minilm is left as it is: it is of trees" in err) is (not names)


def test_export_of_what_is_there_changes_nothing(exported_repository, capsys):
    status, out, _ = fathom("export", "--model-repository", exported_repository, "--json", capsys=capsys)
    models = json.loads(out)["models"]
    assert status == 0
    assert [model["unchanged"] for model in models] == [True] * 3
