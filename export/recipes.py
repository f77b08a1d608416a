"""The recipes by name: those that come with Fathom, and those that `fathom add` put into a model repository."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from export.errors import RecipeError
from export.recipe.recipe import Borrower, Recipe

_CLASSES = {
    "minilm": ("export.models.minilm", "MiniLM"),
    "mobilenet_v2": ("export.models.mobilenet_v2", "MobileNetV2"),
    "rain_forecast": ("export.models.rain_forecast", "RainForecast"),
    "smollm2": ("export.models.smollm2", "SmolLM2"),
    "voice_command": ("export.models.voice_command", "VoiceCommand"),
}
NAMES = ("minilm", "mobilenet_v2", "rain_forecast")
"""The bundled ones."""

EXTRA = ("smollm2", "voice_command")
"""Those whose weights come with an extra, fathom-serving[llm] or [systems]: exported where they are named, and only
there."""

_BORROWERS = {"next_word": "export.models.next_word", "recipe_writer": "export.models.recipe_writer"}


def borrower(name: str) -> Borrower | None:
    """The bundled model of that name that opens another's files; None for any other model."""
    if name not in _BORROWERS:
        return None
    found: Borrower = import_module(_BORROWERS[name]).BORROWER
    return found


def find(name: str, model_repository: Path | None = None) -> Recipe:
    """The recipe of that name, which may also be the name of its pipeline, of a model that borrows its files, or that
    of a model added to the repository.

    Raises RecipeError naming the known ones.
    """
    if (borrows := borrower(name)) is not None:
        name = borrows.of
    if name in _CLASSES:
        module, cls = _CLASSES[name]
        recipe: Recipe = getattr(import_module(module), cls)()
        return recipe
    for known in NAMES:
        recipe = find(known)
        if recipe.pipeline is not None and name == recipe.pipeline.name:
            return recipe
    if model_repository is not None:
        from export.added import recipe as added

        found = added.find(model_repository / name)
        if found is not None:
            return found
    all_names = (*NAMES, *EXTRA) if model_repository is None else (*names(model_repository), *EXTRA)
    raise RecipeError(
        f"there is no recipe '{name}': the known ones are {', '.join(all_names)}", found=name, expected=all_names
    )


def names(model_repository: Path) -> tuple[str, ...]:
    """The bundled recipes, then those of the models added to the repository."""
    from export.added import recipe as added

    return (*NAMES, *added.names(model_repository))


def main_model(name: str) -> str:
    """The model whose export writes a companion's files; the name itself for any other model."""
    for known in NAMES:
        pipeline = find(known).pipeline
        if pipeline is not None and name in pipeline.companions:
            return known
    return name


def allow_sources(chosen: Iterable[Recipe]) -> None:
    """Let this machine run the code or read the files outside their folders that the added models among these name."""
    from export.added.recipe import Added

    for recipe in chosen:
        if isinstance(recipe, Added):
            recipe.allow()


def reserved() -> tuple[str, ...]:
    """Names that an added model cannot have: those of the bundled models, their pipelines and companions."""
    borrowers = [name for each in map(borrower, _BORROWERS) if each is not None for name in (each.name, *each.steps)]
    pipelines = [recipe.pipeline for recipe in map(find, NAMES) if recipe.pipeline is not None]
    return (*NAMES, *EXTRA, *borrowers, *(name for each in pipelines for name in (each.name, *each.companions)))
