"""An imported model: an ONNX file, a transformers folder, or a function that returns a torch module or a scikit-learn
estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from export.graph.labels import Labels
from export.recipe.recipe import Arrays, Predict

ONNX, TORCH, HF, SKLEARN = KINDS = ("onnx", "torch", "hf", "sklearn")


@dataclass(frozen=True)
class ImportedModel:
    """A loaded source.

    `predict` takes whole tensors, as the source itself does. `raw(room)` gives the ONNX file of it, written into
    `room` where it does not exist yet; its open axes and outputs are the source's. `example` are real requests, named
    arrays of equal first axis. `sizes` and `longest` are, by symbol, the size that an open axis is asked at and the
    largest it may have. `labels` are, by output, the names of its classes.
    """

    description: str
    predict: Predict
    raw: Callable[[Path], Path]
    example: Arrays | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    longest: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    labels: Labels = field(default_factory=dict)
