"""Which names a new model may have."""

from __future__ import annotations

import re
from pathlib import Path

from export import recipes
from export.added.recipe_file import FILE
from export.command import fathom
from export.errors import RecipeError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def check(name: str, model_repository: Path) -> None:
    """Raise RecipeError for a name that is taken, or that no folder, URL and metric label could all carry."""
    if not NAME.fullmatch(name):
        raise RecipeError(
            f"'{name}' is no name for a model",
            remedy="write letters, digits, '_', '-' and '.', a letter or digit first, "
            "since it becomes a folder and a part of URLs",
        )
    if name in recipes.reserved():
        raise RecipeError(f"'{name}' is the name of a model that comes with Fathom", remedy="choose another name")
    folder = model_repository / name
    if folder.exists():
        again = f" (`{fathom('export', name, repository=model_repository)}` exports the model again)"
        raise RecipeError(
            f"{folder} exists",
            remedy=f"choose another name, or remove that folder first{again if (folder / FILE).is_file() else ''}",
        )
