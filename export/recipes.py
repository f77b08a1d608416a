"""The recipes by name."""

from __future__ import annotations

from importlib import import_module

from export.errors import RecipeError
from export.recipe import Recipe

_CLASSES = {
    "minilm": ("export.models.minilm", "MiniLM"),
    "mobilenet_v2": ("export.models.mobilenet_v2", "MobileNetV2"),
    "rain_forecast": ("export.models.rain_forecast", "RainForecast"),
}
NAMES = tuple(_CLASSES)


def find(name: str) -> Recipe:
    """The recipe of that name, which may also be the name of its pipeline. Raises RecipeError naming the known ones."""
    if name in _CLASSES:
        module, cls = _CLASSES[name]
        recipe: Recipe = getattr(import_module(module), cls)()
        return recipe
    for known in NAMES:
        recipe = find(known)
        if recipe.pipeline is not None and name == recipe.pipeline.name:
            return recipe
    raise RecipeError(f"there is no recipe '{name}': the known ones are {', '.join(NAMES)}")
