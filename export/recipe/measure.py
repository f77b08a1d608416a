"""Measure a station: accuracy by the recipe's figures, parity as the distance from the source's answers.

The same `measure` is used for the trained source, the ONNX file, an engine, the served model and the pipeline in
front of it, so that two figures differ only because the stations do.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export import files
from export.command import export_again
from export.errors import ExportError, FileError, RecipeError
from export.recipe.recipe import Array, Arrays, Evaluation, Predict, Progress, Recipe, answers, no_progress


@dataclass(frozen=True)
class Parity:
    """The distance of a station's raw outputs from the source's, the worst over all rows and outputs.

    `max_relative` is the largest difference divided by the largest absolute value of that output. `min_cosine` is the
    smallest cosine of a row's output with the source's (for outputs of one number a row: of the whole column).
    """

    max_abs: float
    max_relative: float
    min_cosine: float


@dataclass(frozen=True)
class Measurement:
    """A station's measurement: the recipe's figures, and parity where there is a source to compare with."""

    accuracy: Mapping[str, float]
    parity: Parity | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, for the manifest and `--json`."""
        return {"accuracy": dict(self.accuracy), "parity": asdict(self.parity) if self.parity else None}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Measurement:
        """The inverse of `to_json`."""
        parity = record.get("parity")
        accuracy = {str(name): float(figure) for name, figure in record["accuracy"].items()}
        return Measurement(
            accuracy, Parity(**{name: float(figure) for name, figure in parity.items()}) if parity else None
        )


@dataclass(frozen=True)
class Reference:
    """The source's answers to an evaluation, kept beside the artefact as reference.npz.

    It holds the inputs and the truth too, so that any station can be judged on a machine that has neither the source
    nor the library that loads it.
    """

    evaluation: Evaluation
    outputs: Arrays

    def write(self, path: Path) -> None:
        """Write the reference as one compressed npz file without pickles."""
        arrays = {f"input/{name}": values for name, values in self.evaluation.inputs.items()}
        arrays |= {f"truth/{name}": values for name, values in self.evaluation.truth.items()}
        arrays |= {f"output/{name}": values for name, values in self.outputs.items()}
        arrays = {key: values.astype(np.str_) if values.dtype == object else values for key, values in arrays.items()}
        arrays |= {f"request/{name}": _written(values) for name, values in self.evaluation.requests.items()}
        arrays["mask"] = np.array(self.evaluation.mask or "")
        arrays["batched"] = np.array(self.evaluation.batched)
        written = io.BytesIO()  # where a disk is full, numpy would leave an archive that complains at its end
        np.savez_compressed(written, **arrays)
        path.write_bytes(written.getbuffer())

    @staticmethod
    def read(path: Path) -> Reference:
        """Read a reference. Raises RecipeError when the file is missing or is not one."""
        try:
            arrays = files.read_npz(path)
            parts: dict[str, dict[str, Array]] = {"input": {}, "truth": {}, "output": {}, "request": {}}
            for key in arrays:
                if "/" in key:
                    part, name = key.split("/", 1)
                    parts[part][name] = arrays[key]
            mask = str(arrays["mask"]) or None
            batched = bool(arrays["batched"]) if "batched" in arrays else True
            requests = {name: _read(values) for name, values in parts["request"].items()}
        except FileNotFoundError:
            raise RecipeError(f"{path} is missing", remedy=export_again(path.parent.parent), file=path) from None
        except (ValueError, KeyError, OSError, FileError) as error:
            raise RecipeError(
                f"{path} cannot be read ({error})", remedy=export_again(path.parent.parent, "--force"), file=path
            ) from error
        return Reference(Evaluation(parts["input"], parts["truth"], mask, batched, requests), parts["output"])


def _written(values: Array) -> Array:
    """Raw requests as numpy stores them without pickles: texts and files, BYTES, in base64."""
    if values.dtype != object:
        return values
    return np.array([base64.b64encode(value) for value in values.ravel()]).reshape(values.shape)


def _read(values: Array) -> Array:
    """The inverse of `_written`."""
    if values.dtype.kind != "S":
        return values
    return np.array([base64.b64decode(value) for value in values.ravel()], object).reshape(values.shape)


def parity(outputs: Arrays, source: Arrays, without: Collection[str] = ()) -> Parity:
    """How far `outputs` are from the source's, over every output that the source has but those in `without`.

    A text that differs counts as 1, one that is the same as 0.
    Raises ExportError when an output is missing or shaped differently, or when either side holds NaN or infinity.
    """
    worst_abs, worst_relative, worst_cosine = 0.0, 0.0, 1.0
    for name, wanted in source.items():
        if name in without:
            continue
        if name not in outputs:
            raise ExportError(
                f"output '{name}' is missing: the station gives {sorted(outputs)}", tensor=name, found=sorted(outputs)
            )
        given = np.asarray(outputs[name])
        if given.shape != wanted.shape:
            raise ExportError(
                f"output '{name}' has shape {given.shape}, the source's has {wanted.shape}",
                tensor=name,
                found=given.shape,
                expected=wanted.shape,
            )
        given, expected = _numbers(given, np.asarray(wanted))
        if given.size == 0:
            continue
        if not (np.isfinite(given).all() and np.isfinite(expected).all()):
            raise ExportError(f"output '{name}' holds NaN or infinity", tensor=name, found=float("nan"))
        difference = float(np.abs(given - expected).max())
        worst_abs = max(worst_abs, difference)
        worst_relative = max(worst_relative, difference / (float(np.abs(expected).max()) or 1.0))
        worst_cosine = min(worst_cosine, float(_cosines(given, expected).min()))
    return Parity(worst_abs, worst_relative, worst_cosine)


def measure(
    recipe: Recipe,
    predict: Predict,
    reference: Reference,
    *,
    batch: int = 8,
    requests: Evaluation | None = None,
    on_progress: Progress = no_progress,
    station: str = "station",
) -> Measurement:
    """Measure one station against the reference.

    `requests` are the reference's rows in the raw form that the station takes, where these are not the model's tensors.
    `batch` must not exceed the served model's max_batch_size.
    """
    outputs = answers(
        recipe.judged(predict),
        requests or reference.evaluation,
        batch=batch,
        on_progress=on_progress,
        step=f"measure {station}",
    )
    return evaluate(recipe, outputs, reference)


def evaluate(recipe: Recipe, outputs: Arrays, reference: Reference, against: Arrays | None = None) -> Measurement:
    """The figures of a station's answers to the whole evaluation, and their parity with `against`, by default the
    source's answers."""
    figures = recipe.score(outputs, reference.evaluation, reference.outputs)
    against = reference.outputs if against is None else against
    return Measurement(figures, parity(outputs, against, recipe.not_compared))


def _numbers(given: Array, wanted: Array) -> tuple[Array, Array]:
    """Both as FP64; of texts, whether each is the same (1) or not (0), against ones."""
    if wanted.dtype.kind not in "OUS":
        return given.astype(np.float64), wanted.astype(np.float64)
    same = np.array([text(one) == text(other) for one, other in zip(given.ravel(), wanted.ravel(), strict=True)], bool)
    return same.astype(np.float64).reshape(wanted.shape), np.ones(wanted.shape)


def text(value: Any) -> str:
    """A text as a server (bytes) or ONNX Runtime (str) gives it; bytes that are none stay what they are."""
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)


def _cosines(given: Array, expected: Array) -> Array:
    """Cosine per row, or of the whole column where a row has one number. Two zero vectors count as equal."""
    given, expected = given.reshape(len(given), -1), expected.reshape(len(expected), -1)
    if given.shape[1] == 1:
        given, expected = given.T, expected.T
    norms = np.linalg.norm(given, axis=1) * np.linalg.norm(expected, axis=1)
    both_zero = ~given.any(axis=1) & ~expected.any(axis=1)
    cosines = (given * expected).sum(axis=1) / np.where(norms == 0, 1.0, norms)
    return np.asarray(np.where(both_zero, 1.0, cosines))
