"""Name the tensors in what a torch module returns: of dictionaries, tuples, dataclasses and lists, nested too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from export.errors import RecipeError


def named(given: Any) -> dict[str, Any]:
    """The tensors, each named by its way through the answer: `output`, `logits`, `output_1`, `aux.prob`, `features.0`.

    Raises RecipeError where there is none, and for two of one name.
    """
    import torch

    tensors: dict[str, Any] = {}
    for name, value in _leaves(given):
        if not isinstance(value, torch.Tensor):
            continue
        if name in tensors:
            raise RecipeError(
                f"the module returned two tensors that are named '{name}'", remedy="give each its own name"
            )
        tensors[name] = value
    if not tensors:
        raise RecipeError(
            f"the module returned a {type(given).__name__} without tensors",
            remedy="let forward() return a tensor, a tuple or a dictionary of tensors",
        )
    return tensors


def others(given: Any) -> list[str]:
    """What else the answer holds, such as `'loss' (None)`."""
    import torch

    rest = [(name, value) for name, value in _leaves(given) if not isinstance(value, torch.Tensor)]
    return [f"'{name}' ({'None' if value is None else type(value).__name__})" for name, value in rest]


def _leaves(given: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """What the answer holds that holds nothing itself, by name."""
    entries = _entries(given)
    if entries is None:
        yield path or "output", given
        return
    unnamed = not path and isinstance(given, tuple | list) and not hasattr(given, "_asdict")
    for key, value in entries.items():
        name = str(key) if not path else f"{path}.{key}"
        if unnamed:
            name = "output" if len(entries) == 1 else f"output_{key}"
        yield from _leaves(value, name)


def _entries(given: Any) -> Mapping[Any, Any] | None:
    """What a container holds, by key, field or index; None for what is none."""
    if isinstance(given, Mapping):
        return dict(given.items())
    if hasattr(given, "_asdict"):
        return dict(given._asdict())
    if isinstance(given, tuple | list):
        return dict(enumerate(given))
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        return {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
    return None
