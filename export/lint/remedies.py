"""What to run where a model's file is missing or is not what was published."""

from __future__ import annotations

from pathlib import Path

from export import recipes
from export.added.recipe_file import FILE as RECIPE


def main_model(name: str) -> str:
    """The model whose export provides a companion's files; the name itself for any other model."""
    for known in recipes.NAMES:
        pipeline = recipes.find(known).pipeline
        if pipeline is not None and name in pipeline.companions:
            return known
    return name


def has_recipe(name: str, folder: Path | None = None) -> bool:
    """Whether `fathom export` makes this model: a bundled one, or an added one with its recipe in the folder."""
    return name in recipes.NAMES or (folder is not None and (folder / RECIPE).is_file())


def export(name: str, *, force: bool = False, folder: Path | None = None) -> str:
    """The export command of a model that has a recipe."""
    if not has_recipe(name, folder):
        return "put the model's file there"
    return f"run `fathom export {name}{' --force' if force else ''}`"
