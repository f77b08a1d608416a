"""The recipes by name: those that come with Fathom, and those that `fathom add` put into a model repository."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from export.errors import RecipeError
from export.recipe.recipe import Recipe
from export.recipe.system import System

_CLASSES = {
    "minilm": ("export.models.text.minilm", "MiniLM"),
    "mobilenet_v2": ("export.models.pictures.mobilenet_v2", "MobileNetV2"),
    "rain_forecast": ("export.models.rain_forecast", "RainForecast"),
    "road_scene_detector": ("export.models.road.road_scene", "RoadScene"),
    "smollm2": ("export.models.language.smollm2", "SmolLM2"),
    "translator_decoder": ("export.models.translation.translator", "Translator"),
    "track_search": ("export.models.tracks.similar_tracks", "SimilarTracks"),
    "voice_command": ("export.models.voice.voice_command", "VoiceCommand"),
}
NAMES = ("minilm", "mobilenet_v2", "rain_forecast")
"""The bundled ones that `make demo` shows."""

EXTRA = tuple(name for name in _CLASSES if name not in NAMES)
"""The other bundled ones: exported where they are named, or all are asked for. Some need an extra's packages."""


def find(name: str, model_repository: Path | None = None) -> Recipe:
    """The recipe of that name, which may also be the name of one of its systems, a step of these or a companion, or
    that of a model added to the repository.

    Raises RecipeError naming the known ones.
    """
    if (recipe := bundled(name)) is not None:
        return recipe
    if model_repository is not None:
        from export.added import recipe as added

        found = added.find(model_repository / name)
        if found is not None:
            return found
    all_names = (*NAMES, *EXTRA, *(_added(model_repository) if model_repository is not None else ()))
    raise RecipeError(
        f"there is no recipe '{name}': the known ones are {', '.join(all_names)}", found=name, expected=all_names
    )


def bundled(name: str) -> Recipe | None:
    """The bundled recipe whose export makes a model, or what the model needs; None for any other model."""
    if name in _CLASSES:
        return _load(name)
    every = [_load(known) for known in _CLASSES]
    own = (recipe for recipe in every if name in (*recipe.companions, *(each.name for each in recipe.systems)))
    steps = (recipe for recipe in every for each in recipe.systems if name in each.steps)
    return next(own, None) or next(steps, None)


def system(name: str) -> System | None:
    """The bundled system of that name."""
    return next((each for known in _CLASSES for each in _load(known).systems if each.name == name), None)


def names(model_repository: Path, bundled: Iterable[str] = NAMES) -> tuple[str, ...]:
    """Those of the bundled recipes whose folder the repository has, then those of the models added to it."""
    present = (name for name in bundled if (model_repository / name / "config.pbtxt").is_file())
    return (*present, *_added(model_repository))


def _added(model_repository: Path) -> list[str]:
    from export.added import recipe as added

    return added.names(model_repository)


def allow_sources(chosen: Iterable[Recipe]) -> None:
    """Let this machine run the code or read the files outside their folders that the added models among these name."""
    from export.added.recipe import Added

    for recipe in chosen:
        if isinstance(recipe, Added):
            recipe.allow()


def reserved() -> tuple[str, ...]:
    """Names that an added model cannot have: those of the bundled models, their companions, systems and steps."""
    every = [_load(name) for name in _CLASSES]
    systems = [name for recipe in every for each in recipe.systems for name in (each.name, *each.steps)]
    return tuple(dict.fromkeys((*_CLASSES, *(name for recipe in every for name in recipe.companions), *systems)))


def _load(name: str) -> Recipe:
    module, cls = _CLASSES[name]
    recipe: Recipe = getattr(import_module(module), cls)()
    return recipe
