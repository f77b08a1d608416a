"""The label files of an imported model: one class name a line, by which Triton ranks an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from export.graph.signature import Signature

FILE = "labels.txt"
Labels = Mapping[str, Sequence[str]]
"""By output, the names of its classes in the order of its numbers."""


def files(labels: Labels) -> dict[str, str]:
    """The label file of each output: labels.txt, or labels_1.txt and so on where several outputs have labels."""
    if len(labels) == 1:
        return dict.fromkeys(labels, FILE)
    return {output: f"labels_{index}.txt" for index, output in enumerate(labels, 1)}


def contents(labels: Labels) -> dict[str, tuple[str, ...]]:
    """The labels by file, each on one line."""
    named = files(labels)
    return {named[output]: tuple(" ".join(str(name).split()) for name in names) for output, names in labels.items()}


def fitting(labels: Labels, signature: Signature, batched: bool) -> tuple[dict[str, str], tuple[str, ...]]:
    """The label files of the outputs that Triton can rank, and a sentence for each output that it cannot.

    Triton names the numbers of a flat output, so there must be one label for each of them.
    """
    found, notes = files(labels), []
    outputs = {spec.name: spec.dims[1:] if batched else spec.dims for spec in signature.outputs}
    for output, names in labels.items():
        dims = outputs.get(output)
        if dims and dims[-1] == prod(dims) == len(names):
            continue
        del found[output]
        shape = "is not served" if dims is None else f"has dims {list(dims)}"
        some = ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")
        notes.append(
            f"output '{output}' {shape}, and Triton names the numbers of a vector only: its {len(names)} labels "
            f"({some}) are not served"
        )
    return found, tuple(notes)
