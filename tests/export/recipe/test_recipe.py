"""Evaluations, figures and what every recipe gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scale_model import Scale

from export import recipes
from export.errors import RecipeError
from export.recipe.limits import Figure
from export.recipe.recipe import Evaluation


def test_batches_keep_the_order_and_end_with_what_is_left() -> None:
    batches = list(Evaluation({"x": np.arange(7)}).batches(3))

    assert [batch["x"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]


def test_ragged_batches_are_cut_to_their_longest_row() -> None:
    mask = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    ragged = Evaluation({"ids": mask * 7, "mask": mask, "other": np.zeros((3, 2))}, mask="mask")

    first, second = ragged.batches(2)

    assert first["ids"].tolist() == [[7, 0], [7, 7]]
    assert (first["mask"].shape, second["mask"].shape, first["other"].shape) == ((2, 2), (1, 4), (2, 2))


FIGURES = [
    (True, 0.9, 0.8, 0.1, "a lower score where higher is better is a loss"),
    (True, 0.8, 0.9, -0.1, "a higher one is a gain"),
    (False, 0.1, 0.3, 0.2, "a higher error is a loss"),
]


@pytest.mark.parametrize(("higher", "source", "measured", "loss", "why"), FIGURES, ids=[row[-1] for row in FIGURES])
def test_loss_of_a_figure(higher: bool, source: float, measured: float, loss: float, why: str) -> None:
    assert Figure("f", "", 0.0, higher).loss(source, measured) == pytest.approx(loss)


def test_example_repeats_rows_when_they_run_out(scale: Scale) -> None:
    rows = scale.example(12)["x"]

    assert rows.shape == (12, 3)
    assert (rows[10:] == rows[:2]).all()


def test_accuracy_of_any_callable(scale: Scale) -> None:
    assert scale.accuracy(lambda arrays: {"y": arrays["x"] * 2}) == {"hit_rate": 1.0}
    assert scale.accuracy(lambda arrays: {"y": arrays["x"] * 3}, batch=1) == {"hit_rate": 0.0}


FOUND = [
    ("minilm", "minilm", "its own name"),
    ("image_classifier", "mobilenet_v2", "its system"),
    ("image_preprocess", "mobilenet_v2", "a companion, whose files it makes"),
    ("recipe_writer", "smollm2", "one of its two systems"),
    ("next_word_search", "smollm2", "a step that opens its files"),
]


@pytest.mark.parametrize(("name", "recipe", "why"), FOUND, ids=[row[-1] for row in FOUND])
def test_a_recipe_is_found_by_what_its_export_is_for(name: str, recipe: str, why: str) -> None:
    assert recipes.find(name).name == recipe
    assert name in recipes.reserved()


@pytest.mark.parametrize("name", [*recipes.NAMES, *recipes.EXTRA])
def test_a_recipes_systems_can_be_told_apart(name: str) -> None:
    """By a name that none other has; the station `pipeline` is one of them at most."""
    systems = recipes.find(name).systems
    assert all(recipes.bundled(system.name).name == name for system in systems)
    assert all(recipes.system(system.name).steps == system.steps for system in systems)
    assert sum(system.judged for system in systems) <= 1


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.find("resnet")
    assert (caught.value.found, caught.value.expected) == ("resnet", (*recipes.NAMES, *recipes.EXTRA))
    assert all(name in str(caught.value) for name in ("resnet", "minilm", "mobilenet_v2", "rain_forecast"))


def test_a_repository_names_the_bundled_recipes_whose_folders_it_has(tmp_path: Path) -> None:
    for name in ("minilm", "smollm2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").touch()
    assert recipes.names(tmp_path) == ("minilm",)
    assert recipes.names(tmp_path, (*recipes.NAMES, *recipes.EXTRA)) == ("minilm", "smollm2")
    assert recipes.find("rain_forecast", tmp_path).name == "rain_forecast"
    with pytest.raises(RecipeError) as caught:
        recipes.find("resnet", tmp_path)
    assert caught.value.expected == (*recipes.NAMES, *recipes.EXTRA)


def test_recipes_evaluations_and_scores_need_no_torch() -> None:
    """A process that measures a served model must not pay for, or have, what loads the source."""
    program = """
import sys
import numpy as np
from export import recipes
answers = {
    "mobilenet_v2": ("probabilities", 10),
    "minilm": ("sentence_embedding", 384),
    "rain_forecast": ("rain_probability", 1),
}
for name in recipes.NAMES:
    recipe = recipes.find(name)
    output, width = answers[name]
    def station(arrays):
        rows = len(next(iter(arrays.values())))
        return {output: np.full((rows, width), 0.25, np.float32)}
    figures = recipe.accuracy(station)
    assert figures and all(np.isfinite(value) for value in figures.values()), figures
    assert recipe.interpret(station(recipe.example(2)))
    for figure in figures:
        assert recipe.figure(figure).meaning
print("heavy" if {"torch", "transformers", "onnx", "onnxruntime"} & set(sys.modules) else "light")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stdout.strip()) == (0, "light"), done.stderr
