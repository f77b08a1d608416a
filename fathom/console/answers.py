"""A model's outputs as an answer for a person: labels, a recipe's own sentence, or the tensors in short."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clients import Classification, Client, Model
from export import recipes
from export.added.recipe import in_short, write_arrays
from fathom.console.arguments import UsageError

Outputs = Mapping[str, np.ndarray[Any, Any]]

_WHOLE = 1.01
"""Upper bound of the sum of some classes' probabilities, with room for rounding."""


def labelled_output(client: Client, model: Model) -> str | None:
    """The output that the server has labels for: the model's own, or that of the last step of an ensemble."""
    for spec in (model.spec, *(client.model(step).spec for step in reversed(model.spec.steps))):
        for name, tensor in spec.outputs.items():
            if tensor.labelled and name in model.spec.outputs:
                return name
    return None


def ranked(labels: list[Classification]) -> str:
    """`this is a 7 (99.2 %), or a 1 (0.5 %)`: the best label, and those behind it that are worth a word.

    Scores that are no probabilities stay numbers: `this is a 7 (3.12), or a 1 (-0.4)`.
    """
    first, *rest = labels
    shares = _are_shares(labels)
    others = [entry for entry in rest[:2] if not shares or entry.value >= 0.01]
    shown = [f"{entry.value:.1%}".replace("%", " %") if shares else f"{entry.value:.4g}" for entry in (first, *others)]
    named = [f"{_article(entry)} ({value})" for entry, value in zip((first, *others), shown, strict=True)]
    return f"this is {', or '.join(named)}"


def ranked_as_json(labels: list[Classification]) -> list[dict[str, Any]]:
    """Labels with their probabilities, or with scores where these are none."""
    key = "probability" if _are_shares(labels) else "score"
    return [{"label": entry.label, key: entry.value} for entry in labels]


def sentences(model: str, outputs: Outputs) -> list[str]:
    """One sentence per batch entry: the system's or recipe's, where the model has one, else the tensors in short."""
    system, recipe = recipes.system(model), recipes.bundled(model)
    with contextlib.suppress(KeyError):  # of another model of that name, which has other outputs
        if system is not None and system.interpret is not None:
            return system.interpret(outputs)
        if recipe is not None and (system is not None or model == recipe.name):
            return recipe.interpret(outputs)
    return [in_short(name, array) for name, array in outputs.items()]


def as_json(outputs: Outputs) -> dict[str, Any]:
    """Tensors as plain lists; bytes as text, with those that are none as `\\xff`."""
    return {
        name: {
            "shape": list(array.shape),
            "data": [item.decode(errors="backslashreplace") for item in array.ravel()]
            if array.dtype == object
            else array.astype(np.float64 if array.dtype.kind in "fV" else array.dtype).ravel().tolist(),
        }
        for name, array in outputs.items()
    }


def shapes(outputs: Outputs) -> str:
    """`y: float32 [1, 2], said: BYTES [1, 1]`."""
    return ", ".join(
        f"{name}: {'BYTES' if array.dtype == object else array.dtype} {list(array.shape)}"
        for name, array in outputs.items()
    )


def write(path: Path, outputs: Outputs) -> None:
    """One tensor to a .npy file, or any number to an .npz; bytes as fixed-length strings. Raises UsageError."""
    arrays = {name: _writable(name, array) for name, array in outputs.items()}
    if path.suffix == ".npy" and len(arrays) != 1:
        raise UsageError(f"a .npy file has one tensor, and there are {', '.join(arrays)}: use an .npz file")
    try:
        if path.suffix == ".npy":
            np.save(path, next(iter(arrays.values())))
        else:
            write_arrays(path, arrays)
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror}") from error


def _writable(name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind == "V":  # bfloat16: .npy has no such type
        return array.astype(np.float32)
    if array.dtype != object:
        return array
    fixed = array.astype(np.bytes_)
    if any(len(kept) != len(item) for kept, item in zip(fixed.flat, array.flat, strict=True)):
        raise UsageError(f"output '{name}' has bytes that end in NUL, which .npy would drop: use --json")
    return fixed


def _are_shares(labels: list[Classification]) -> bool:
    values = [entry.value for entry in labels]
    return min(values) >= 0 and sum(values) <= _WHOLE


def _article(entry: Classification) -> str:
    label = entry.label or f"class {entry.class_index}"
    return f"{'an' if label[0].lower() in 'aeiou8' else 'a'} {label}" if entry.label else label
