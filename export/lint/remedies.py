"""The command to run when a model's file is missing or is not the published one."""

from __future__ import annotations

from pathlib import Path

from export import recipes
from export.added.recipe_file import FILE as RECIPE
from export.command import export_again


def has_recipe(folder: Path) -> bool:
    """Whether `fathom export` makes this model: one that comes with Fathom, or an added one with its recipe in the
    folder."""
    return folder.name in recipes.reserved() or (folder / RECIPE).is_file()


def export(folder: Path, *options: str, otherwise: str = "put the file there") -> str:
    """The export command that makes a model's folder; what else to do for a model without a recipe."""
    if not has_recipe(folder):
        return otherwise
    recipe = recipes.bundled(folder.name)
    return export_again(folder if recipe is None else folder.with_name(recipe.name), *options)
