"""What a server of this machine loads, by what is exported and what is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from export import recipes
from fathom.console.arguments import UsageError
from fathom.console.servers import not_loaded, served_models
from server import loading

COMMITTED = Path(__file__).parents[3] / "model_repository"
SYSTEMS = [
    (recipe.name, system.name, system.steps)
    for recipe in map(recipes.find, (*recipes.NAMES, *recipes.EXTRA))
    for system in recipe.systems
]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The committed model repository, of which only rain_forecast looks exported."""
    built = shutil.ignore_patterns("*.onnx", "*.data", "*.json", "*.npz", "*.plan", "__pycache__")
    repository = shutil.copytree(COMMITTED, tmp_path / "models", ignore=built)
    (repository / "rain_forecast" / "1" / "model.onnx").touch()
    return repository


@pytest.mark.parametrize(("recipe", "system", "steps"), SYSTEMS, ids=[row[1] for row in SYSTEMS])
def test_a_configuration_names_what_its_system_is_made_of(recipe: str, system: str, steps: tuple[str, ...]) -> None:
    assert set(loading.needed(COMMITTED, [system])) == {recipe, system, *steps}


def test_what_is_not_exported_is_not_loaded_and_named_with_its_command(repository: Path) -> None:
    loaded = {model.model for model in served_models(repository, None, None)}
    assert "rain_forecast" in loaded
    assert not loaded & {name for _, name, _ in SYSTEMS} - {"rain_forecast"}
    line = not_loaded(repository, None)
    assert all(name in line for name in ("image_classifier", "smollm2"))
    assert "rain_forecast" not in line
    assert "image_preprocess" not in line, "people ask for the system, not for its steps"


REFUSED = {"an unknown one, with the one that is meant": ("rain_forcast", "rain_forecast")}
REFUSED["one that waits for the export of a step"] = ("image_classifier", "fathom export mobilenet_v2")


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_cannot_be_served_is_refused_before_the_start(repository: Path, case: str) -> None:
    name, hint = REFUSED[case]
    with pytest.raises(UsageError) as caught:
        served_models(repository, None, None, ["rain_forecast", name])
    assert name in str(caught.value)
    assert hint in str(caught.value)


def test_only_what_is_asked_for_is_loaded(repository: Path) -> None:
    assert [model.model for model in served_models(repository, None, None, ["rain_forecast"])] == ["rain_forecast"]
