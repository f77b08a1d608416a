"""The labels of a classifier, which the server ranks and names."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .codec import invalid
from .datatypes import Array
from .spec import ModelSpec


class Classification(NamedTuple):
    """One label of a classification answer; `label` is "" where the server has no label file."""

    label: str
    value: float
    class_index: int


Labels = list[list[Classification]]


def scores(spec: ModelSpec, output: str | None, top: int) -> str:
    """The output to rank: the requested one, or the only one. Raises InvalidInputError."""
    if top < 1:
        raise invalid(spec, f"top is {top}: ask '{spec.name}' for at least one label")
    if output is None and len(spec.outputs) != 1:
        raise invalid(spec, f"'{spec.name}' has several outputs: name one of {', '.join(spec.outputs)} as output")
    return output or next(iter(spec.outputs))


def decode_classes(answers: Array) -> Labels:
    """Ranked labels per batch entry from the `value:index:label` strings of a classification answer."""

    def parse(text: bytes) -> Classification:
        value, index, *label = text.decode().split(":", 2)
        return Classification(label[0] if label else "", float(value), int(index))

    return [[parse(text) for text in row] for row in np.atleast_2d(answers)]
