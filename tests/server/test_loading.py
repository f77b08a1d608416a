"""Which models a server is started with: by the files in their folders, and by what their configurations name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from server import loading

ENSEMBLE = """
platform: "ensemble"
ensemble_scheduling { step [ { model_name: "prepare" }, { model_name: 'score' } ] }  # 'both kinds of quotes'
"""
CALLS = """
backend: "python"      # it calls another: "score"
parameters { key: "scorer" value: { string_value: "chain" } }
parameters { key: "chance" value { string_value: "0.5" } }
"""
NAMES_NOBODY = """
backend: "python"
parameters { key: "decoder" value { string_value: "elsewhere" } }
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """`caller` calls the ensemble `chain` of `prepare` and `score`; an export fills the last two."""
    for name, config in {
        "prepare": 'backend: "python"',
        "score": 'backend: "onnxruntime"',
        "chain": ENSEMBLE,
        "caller": CALLS,
        "mine": NAMES_NOBODY,
    }.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "config.pbtxt").write_text(config)
    for name in ("prepare", "score", "chain"):
        (tmp_path / name / "1" / ".gitkeep").touch()
    for name in ("prepare", "caller", "mine"):
        (tmp_path / name / "1" / "model.py").touch()
    (tmp_path / "score" / "1" / "labels.txt").touch()  # an earlier export left them
    (tmp_path / ".scratch").mkdir()
    return tmp_path


def export(repository: Path, *names: str) -> None:
    for name in names:
        (repository / name / "1" / "artefact").touch()


STATES = [
    ((), {"prepare", "score", "chain", "caller"}, "a fresh clone: what an export fills, and all who need that"),
    (("score",), {"prepare", "chain", "caller"}, "python without its files is not enough"),
    (("prepare", "score"), set(), "the ensemble's own empty folder waits for nothing"),
]


@pytest.mark.parametrize(("exported", "left", "why"), STATES, ids=[row[-1] for row in STATES])
def test_a_model_waits_for_its_files_and_for_those_of_all_that_it_names(
    repository: Path, exported: tuple[str, ...], left: set[str], why: str
) -> None:
    export(repository, *exported)
    found = loading.waiting(repository)
    assert found.keys() == left
    assert {name for names in found.values() for name in names} <= {"prepare", "score"} - {*exported}


def test_a_step_of_python_alone_waits_with_the_models_that_name_it(repository: Path) -> None:
    (repository / "prepare" / "1" / ".gitkeep").unlink()
    assert loading.waiting(repository)["prepare"] == ["score"]
    export(repository, "score")
    assert not loading.waiting(repository)


CLONES = [
    ((), True, "a fresh clone has no version folder"),
    (("1/",), True, "its version folder is empty"),
    (("1/labels.txt",), True, "an earlier export left labels"),
    (("1/manifest.json",), False, "a published file was lost, which the server reports"),
    (("1/model.onnx", "1/manifest.json"), False, "it is exported"),
    (("1/", "2/model.onnx"), False, "another version has its file"),
]


@pytest.mark.parametrize(("present", "waits", "why"), CLONES, ids=[row[-1] for row in CLONES])
def test_an_added_model_waits_while_only_its_recipe_is_there(
    repository: Path, present: tuple[str, ...], waits: bool, why: str
) -> None:
    added = repository / "added"
    for path in present:
        (added / path).parent.mkdir(parents=True, exist_ok=True)
        (added / path).mkdir(parents=True) if path.endswith("/") else (added / path).touch()
    added.mkdir(exist_ok=True)
    (added / "config.pbtxt").touch()
    assert "added" not in loading.waiting(repository)
    (added / "recipe.toml").touch()
    assert loading.waiting(repository).get("added") == (["added"] if waits else None)


def test_a_named_configuration_says_what_is_needed(repository: Path) -> None:
    (repository / "caller" / "configs").mkdir()
    (repository / "caller" / "configs" / "gpu.pbtxt").write_text(CALLS.replace('"chain"', '"mine"'))
    assert loading.needed(repository, ["caller"], "gpu") == ["mine", "caller"]
    assert loading.needed(repository, ["caller"], "cpu") == ["prepare", "score", "chain", "caller"]


def test_models_that_name_each_other_are_loaded_once(repository: Path) -> None:
    (repository / "mine" / "config.pbtxt").write_text(NAMES_NOBODY.replace("elsewhere", "caller"))
    (repository / "caller" / "config.pbtxt").write_text(CALLS.replace("chain", "mine"))
    assert sorted(loading.needed(repository, ["mine"])) == ["caller", "mine"]


ECHO = [sys.executable, "-c", "import sys; print(*sys.argv[1:])"]
COMMANDS = [
    (["--model-control-mode=explicit"], ["--load-model=mine", "--load-model=score"], "it names what is exported"),
    (["--model-control-mode=explicit", "--load-model=*"], [], "who names models gets these"),
    ([], [], "a server that loads all is left alone"),
]


@pytest.mark.parametrize(("given", "added", "why"), COMMANDS, ids=[row[-1] for row in COMMANDS])
def test_in_front_of_a_command_it_adds_what_is_exported(
    repository: Path, given: list[str], added: list[str], why: str
) -> None:
    export(repository, "score")
    options = [f"--model-repository={repository}", *given]
    command = [sys.executable, loading.__file__, *ECHO, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*options, *added]
    assert ("caller" in done.stderr) is bool(added)


def test_in_front_of_a_command_it_ends_where_nothing_is_exported(tmp_path: Path) -> None:
    (tmp_path / "score" / "1").mkdir(parents=True)
    (tmp_path / "score" / "1" / ".gitkeep").touch()
    with pytest.raises(SystemExit):
        loading.completed(["tritonserver", f"--model-repository={tmp_path}", loading.EXPLICIT])
