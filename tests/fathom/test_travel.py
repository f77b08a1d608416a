"""A model from a laptop to another machine, as the tutorial shows it; and exports that go on after a failure."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from haste import haste
from imported_models import F, matrix, node, write

from export.errors import AccuracyError, ContractError, RecipeError
from fathom import cli
from fathom.commands import export
from server import TritonServer

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "tutorials" / "laptop-to-gpu-host.md").read_text()
DENSE = [node("MatMul", ["x", "w"], ["y"])]
SHAPES = [("x", F, ["rows", 3])], [("y", F, ["rows", 2])]
WHO = ["-c", "user.name=a", "-c", "user.email=a@example.com"]


def scorer(path):
    return write(path, DENSE, *SHAPES, {"w": matrix(3, 2)})


def commands(name):
    """Those of the document behind the comment of that name."""
    block = re.search(rf"<!-- {name}: [^\n]* -->\n((?:    .*\n)+)", DOCUMENT)
    return [shlex.split(line) for line in block[1].splitlines()]


def run(words, *more):
    """A command of the document; `fathom` in this process."""
    if words[0] == "fathom":
        return cli.main([*words[1:], *more])
    assert words[0] == "git"
    return subprocess.run(["git", *WHO, *words[1:], *more], check=True).returncode


def test_the_tutorial_takes_a_model_to_another_machine(tmp_path, monkeypatch, capsys):
    laptop, host = tmp_path / "laptop", tmp_path / "host"
    (laptop / "model_repository").mkdir(parents=True)
    shutil.copy(ROOT / ".gitignore", laptop)
    scorer(laptop / "scorer.onnx")
    monkeypatch.delenv("FATHOM_MODEL_REPOSITORY", raising=False)
    monkeypatch.chdir(laptop)
    subprocess.run(["git", "init", "--quiet"], check=True)
    assert [run(words) for words in commands("laptop")] == [0, 0, 0]
    subprocess.run(["git", "clone", "--quiet", laptop, host], check=True)
    shutil.rmtree(laptop)
    monkeypatch.chdir(host)
    assert not (host / "model_repository" / "scorer" / "1").exists()
    *build, serve = commands("host")
    assert serve == ["fathom", "serve"]
    assert [run(words) for words in build] == [0, 0]
    ask, measure = commands("measure")
    with TritonServer(Path("model_repository"), stop_timeout_s=0) as server, haste():
        where = ["--server", server.grpc_url]
        assert run(ask, *where) == 0
        capsys.readouterr()
        assert run(measure, *where, "--budget", "1", "--json") in (0, 1)
    assert json.loads(capsys.readouterr().out)["model"] == "scorer"
    left = subprocess.run(["git", "status", "--short"], cwd=host, check=True, capture_output=True, text=True).stdout
    assert [line for line in left.splitlines() if "results" not in line] == []


@pytest.fixture
def repository(tmp_path):
    """Two added models, `good` and `lost`, without the bundled ones; the source of `lost` is gone."""
    made = tmp_path / "model_repository"
    made.mkdir()
    for name in ("good", "lost"):
        path = scorer(tmp_path / f"{name}.onnx")
        assert cli.main(["add", name, "--onnx", str(path), "--no-serve", "--model-repository", str(made)]) == 0
        shutil.rmtree(made / name / "1")
    shutil.rmtree(made / "lost" / "source")
    return made


@pytest.mark.parametrize("named", [["lost", "good"], [], ["--all"]], ids=["named", "by default", "all"])
def test_a_model_that_fails_does_not_keep_the_others_from_being_exported(named, repository, capsys):
    capsys.readouterr()
    assert cli.main(["export", *named, "--json", "--no-engine", "--model-repository", str(repository)]) == 2
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert [model["model"] for model in document["models"]] == ["good"]
    assert list(document["failed"]) == ["lost"]
    place = str(repository / "lost" / "source" / "lost.onnx")
    assert place in document["failed"]["lost"]
    last = shown.err.splitlines()[-1]
    assert last.startswith("fathom export: lost: ")
    assert place in last
    assert (repository / "good" / "1" / "model.onnx").is_file()
    assert not (repository / "lost" / "1").exists()


@pytest.mark.parametrize(("words", "named"), [([], "rain_forecast"), (["--all"], "voice_command")])
def test_a_repository_without_a_model_to_export_is_a_mistake(words, named, tmp_path, capsys):
    assert cli.main(["export", *words, "--no-engine", "--model-repository", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in (str(tmp_path), named, "fathom add"))


def test_a_recipe_that_cannot_be_read_is_one_of_the_failures(repository, capsys):
    (repository / "lost" / "recipe.toml").write_text("[source")
    assert cli.main(["export", "--no-engine", "--model-repository", str(repository)]) == 2
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("fathom export: lost: ")]
    assert (repository / "good" / "1" / "model.onnx").is_file()


def test_a_name_without_a_recipe_is_a_mistake_before_anything_is_done(repository, capsys):
    capsys.readouterr()
    assert cli.main(["export", "good", "god", "--json", "--no-engine", "--model-repository", str(repository)]) == 2
    assert capsys.readouterr().out == ""
    assert not (repository / "good" / "1").exists()


@pytest.mark.parametrize(
    ("failures", "status"),
    [
        ([], 0),
        ([AccuracyError("gate")], 1),
        ([RecipeError("source")], 2),
        ([AccuracyError("gate"), ContractError("dims")], 2),
    ],
    ids=["nothing failed", "a gate", "a source", "a gate and another"],
)
def test_the_exit_status_is_that_of_the_worst(failures, status):
    assert export.status(failures) == status
