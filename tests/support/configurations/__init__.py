"""More than a hundred small model folders, by a sentence each: what Triton does with them and what `check` says."""

from __future__ import annotations

from configurations import ensembles, graphs, models, scheduling, versions
from configurations.case import Case

STRICTER = {
    "python-model": "a parameter that model.py does not read does nothing, most likely by a typing error",
    "twice": "Triton takes the last of two tensors of one name, which hides the first",
    "labels": "Triton answers with labels that are missing or that hold a carriage return",
    "instances": "Triton takes a negative count for one instance",
    "made-twice": "which of two steps a tensor comes from would be left to chance",
}
"""Rules by which check refuses what Triton serves, and why."""

CASES: list[Case] = [*models.CASES, *scheduling.CASES, *versions.CASES, *graphs.CASES, *ensembles.CASES]
