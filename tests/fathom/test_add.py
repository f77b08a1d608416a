"""`fathom add` on models that were not written here: all are served by one Triton and answer like their sources."""

import json
import shlex
import sys

import pytest
from brought_models import F, node, save_encoder, save_vision, write, write_functions

from clients import Client
from export import recipes
from export.add import Wish, add
from export.lint import lint
from export.manifest import Manifest
from export.measure import gate
from fathom import cli, payloads, stations
from fathom.bench import added as light
from server import TritonServer

LIGHT = ("squeezenet",)
"""The one whose constants are folded in a second or so; the rest of the folder is for the slow run."""

SOURCES = ("churn", "strict", "line", "clusters", "margin", "comments", "words", "encoder", "vision")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with somebody's own module, two transformers folders and an empty model repository."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "model_repository").mkdir()
    write_functions(folder, "their_models")
    save_encoder(folder / "encoder")
    save_vision(folder / "vision")
    return folder


@pytest.fixture(scope="module")
def repository(project):
    """Everything added, without a server for each."""
    made = project / "model_repository"
    wishes = {
        "churn": Wish("sklearn", "their_models:churn"),
        "strict": Wish("sklearn", "their_models:strict"),
        **{name: Wish("sklearn", f"their_models:{name}") for name in ("line", "clusters", "margin", "comments")},
        "words": Wish("torch", "their_models:words"),
        "encoder": Wish("hf", str(project / "encoder")),
        "vision": Wish("hf", str(project / "vision")),
        **{name: Wish("onnx", str(light.light_models() / f"light_{name}.onnx"), max_batch_size=4) for name in LIGHT},
    }
    path = write(
        project / "scores.onnx", [node("Softmax", ["x/0"], ["y:0"], axis=0)], [("x/0", F, [4, 2])], [("y:0", F, [4, 2])]
    )
    wishes["scores"] = Wish("onnx", str(path))
    scaled = [node("Mul", ["x", "rate"], ["y"])]
    path = write(project / "rate.onnx", scaled, [("x", F, [2, 3]), ("rate", F, [])], [("y", F, [2, 3])])
    wishes["rate"] = Wish("onnx", str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        for name, wish in wishes.items():
            add(name, wish, made)
    return made


@pytest.fixture(scope="module")
def server(repository):
    with TritonServer(repository, stop_timeout_s=0) as running:
        yield running


@pytest.mark.parametrize("name", [*SOURCES, *LIGHT, "scores", "rate"])
def test_it_is_served_and_answers_like_its_source(name, repository, server):
    recipe = recipes.find(name, repository)
    with Client(server.grpc_url, timeout_s=60) as client:
        served = stations.measure_served(recipe, client, repository)["served"]
        requests = payloads.from_recipe(client, name, repository)
    gate(recipe, "served", stations.measured_at_export(recipe, repository)["source"], served)
    assert served.accuracy == {"matching_rows": 1.0}
    assert requests, "fathom capacity would make up its own requests"


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


def test_it_is_asked_by_its_example_and_by_its_columns(repository, server, capsys):
    where = ["--server", server.grpc_url, "--model-repository", str(repository)]
    assert cli.main(["infer", "churn", "plan=basic", "monthly_fee=45", "months=3", *where]) == 0
    assert "label: BYTES [1, 1] = 'leaves'" in capsys.readouterr().out
    assert cli.main(["infer", "vision", "--example", *where]) == 0
    assert "logits: float32 [1, 3]" in capsys.readouterr().out
    assert cli.main(["infer", "vision", "pixel_values=1", "--example", *where]) == 2
    assert "--example asks its own inputs" in capsys.readouterr().err


def test_the_three_commands_that_it_ends_with_work(project, monkeypatch, capsys):
    """Added with the server's own check into a fresh repository; the commands are then run as shown."""
    monkeypatch.chdir(project)
    mine = project / "fresh" / "model_repository"
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
        results = ["--report", str(project / "results")]
        assert cli.main([*measure[1:], *where, "--budget", "3", *results, "--json"]) in (0, 1)
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
