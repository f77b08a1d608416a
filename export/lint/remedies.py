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
    return export_again(folder.with_name(recipes.main_model(folder.name)), *options)
