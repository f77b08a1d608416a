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
            f"'{name}' is not a valid model name",
            remedy="use letters, digits, '_', '-' and '.', beginning with a letter or digit",
        )
    if name in recipes.reserved():
        raise RecipeError(f"'{name}' is the name of a model that comes with Fathom", remedy="choose another name")
    folder = model_repository / name
    if folder.exists():
        again = f" (`{fathom('export', name, repository=model_repository)}` exports the model again)"
        raise RecipeError(
            f"{folder} exists already",
            remedy=f"choose another name, or remove that folder{again if (folder / FILE).is_file() else ''}",
        )
