"""`fathom add` on models that were not written here: all are served by one Triton and answer like their sources."""

import json
import re
import shlex
import shutil
import sys

import numpy as np
import pytest
from complete_server import complete_server
from haste import haste
from prepared import LIGHT

from benchmarks import added as light
from clients import Client
from export import recipes
from export.config import config as configs
from export.exporter import export_model
from export.lint.lint import lint
from export.recipe.gate import gate
from export.repository.manifest import Manifest
from fathom import cli
from fathom.recipes import measure_served, measured_at_export
from fathom.workload import with_evaluation_data
from loadtests.workload.workload import ModelWeight
from server import TritonServer

pytestmark = pytest.mark.process

SOURCES = ("churn", "strict", "line", "clusters", "margin", "comments", "words", "fixed", "encoder", "vision")


@pytest.fixture(scope="module")
def repository(imported_project):
    """Everything added, without a server for each."""
    return imported_project / "model_repository"


@pytest.fixture(scope="module")
def server(repository):
    with complete_server(repository) as running:
        yield running


@pytest.mark.parametrize("name", [*SOURCES, *LIGHT, "scores", "rate"])
def test_it_is_served_and_answers_like_its_source(name, repository, server):
    recipe = recipes.find(name, repository)
    with Client(server.grpc_url, timeout_s=60) as client:
        served = measure_served(recipe, client, repository)["served"]
        share = with_evaluation_data(client, ModelWeight(name), repository)
    gate(recipe, "served", measured_at_export(recipe, repository)["source"], served)
    assert served.accuracy == {"matching_rows": 1.0}
    assert share.payloads, "fathom capacity would make up its own requests"
    assert share.source == "example requests of the added model"


def test_every_tensor_of_a_nested_answer_is_served(repository, server):
    with Client(server.grpc_url, timeout_s=60) as client:
        spec = client.model("words").spec
        assert list(spec.outputs) == ["logits", "total", "aux.parts.0", "aux.parts.1.double"]
        answer = client.model("words")(recipes.find("words", repository).example(2))
    np.testing.assert_allclose(answer["aux.parts.0"].sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(answer["aux.parts.1.double"], 2 * answer["logits"], atol=1e-6)


def test_a_transformers_classifier_names_its_classes(repository, server):
    with Client(server.grpc_url, timeout_s=60) as client:
        vision = client.model("vision")
        example = recipes.find("vision", repository).example(2)
        ranked = vision.classify(example, top=3)
        logits = vision(example)["logits"]
    assert [row[0].label for row in ranked] == ["abc"[best] for best in logits.argmax(1)]


def test_made_up_texts_tell_a_lost_input_by_padding_and_both_types(repository):
    inputs = recipes.find("encoder", repository).evaluation().inputs
    lengths = inputs["attention_mask"].sum(1)
    assert lengths[0] == inputs["attention_mask"].shape[1], "the first request, which warms up, is whole"
    assert 0 < lengths.min() < lengths.max()
    assert set(np.unique(inputs["token_type_ids"])) == {0, 1}


def test_a_graph_of_one_row_with_constants_and_repeated_tensors_is_asked_row_by_row(repository):
    recipe = recipes.find("fixed", repository)
    message = configs.load(repository / "fixed" / "config.pbtxt").message
    assert message.max_batch_size == 0
    shapes = {output.name: list(output.dims) for output in message.output}
    assert shapes == {"output_0": [3], "output_1": [3], "output_2": [1, 3], "output_3": [3]}
    assert recipe.evaluation().inputs["x"].shape == (4, 1, 3)


def test_the_added_models_lint_clean(repository):
    assert lint(repository) == []


def test_they_are_left_alone_by_an_export_from_another_folder(repository, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("churn", "encoder", "squeezenet"):
        assert cli.main(["export", name, "--json", "--no-engine", "--model-repository", str(repository)]) == 0
        assert json.loads(capsys.readouterr().out)["models"][0]["unchanged"] is True, name


def test_they_are_built_again_from_another_folder(repository, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("their_models", "torch_not_imported"):
        sys.modules.pop(name, None)
    before = Manifest.read(repository / "churn")
    assert cli.main(["export", "churn", "--force", "--no-engine", "--model-repository", str(repository)]) == 0
    after = Manifest.read(repository / "churn")
    assert before is not None
    assert after is not None
    assert after.files["1/model.onnx"] == before.files["1/model.onnx"]
    assert "matching_rows" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["churn", "words", "encoder", "squeezenet"])
def test_its_folder_is_all_that_another_repository_needs(name, repository, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(repository / name, tmp_path / "models" / name)
    recipe = recipes.find(name, tmp_path / "models")
    files = recipe.resolve(None).files
    assert files
    assert all(path.is_relative_to(tmp_path / "models" / name / "source") for path in files.values())
    assert export_model(recipe, tmp_path / "models").skipped, "from the same files"


def test_it_is_asked_by_its_example_and_by_its_columns(repository, server, capsys):
    where = ["--server", server.grpc_url, "--model-repository", str(repository)]
    assert cli.main(["infer", "churn", "plan=basic", "monthly_fee=45", "months=3", *where]) == 0
    said = capsys.readouterr().out
    assert "leaves (73.1 %)" in said
    assert "label: BYTES [1, 1] = 'leaves'" in said
    assert cli.main(["infer", "vision", "--example", *where]) == 0
    assert re.search(r"\b[abc] \(", capsys.readouterr().out), "its classes have names"
    assert cli.main(["infer", "vision", "pixel_values=1", "--example", *where]) == 2
    assert "--example" in capsys.readouterr().err


def test_the_three_commands_that_it_ends_with_work(imported_project, monkeypatch, capsys):
    """Added with the server's own check into a fresh repository; the commands are then run as shown."""
    monkeypatch.chdir(imported_project)
    mine = imported_project / "fresh" / "model_repository"
    mine.mkdir(parents=True)
    assert cli.main(["add", "line", "--sklearn", "their_models:line", "--model-repository", str(mine)]) == 0
    shown = capsys.readouterr().out
    assert "served" in shown
    serve, call, measure = (shlex.split(line)[1:] for line in shown.splitlines()[-3:])
    assert serve == ["serve", "fathom", "serve", "--model-repository", str(mine)][1:]
    with TritonServer(mine, stop_timeout_s=0) as server:
        where = ["--server", server.grpc_url]
        assert cli.main([*call[1:], *where]) == 0
        assert "prediction: float32 [1, 1]" in capsys.readouterr().out
        results = ["--report", str(imported_project / "results")]
        with haste():
            assert cli.main([*measure[1:], *where, "--budget", "1", *results, "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["model"] == "line"


@pytest.mark.slow
def test_every_light_model_is_served_and_answers_like_onnx_runtime(tmp_path):
    repository = tmp_path / "model_repository"
    repository.mkdir()
    files = sorted(light.light_models().glob("*.onnx"))
    rows = light.measure(files, repository)
    assert len(rows) == len(files) >= 8
    assert {row.served.accuracy["matching_rows"] for row in rows} == {1.0}
    assert {row.max_batch_size for row in rows} == {4}
