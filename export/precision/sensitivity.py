"""Find the operators that cost most when a graph is reduced: reduce each alone, and compare the outputs with FP32's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.errors import LimitError
from export.graph import onnx_file
from export.recipe.recipe import Evaluation, Progress, answers, no_progress

ROWS, BATCH = 16, 8


@dataclass(frozen=True)
class Cost:
    """The change of the outputs when one node, or every node of one operator type, is reduced alone.

    `error` is relative: the L2 norm of the outputs' difference over that of the outputs.
    """

    name: str
    op_type: str
    error: float

    def __str__(self) -> str:
        named = self.op_type if self.name == self.op_type else f"{self.op_type} '{self.name}'"
        return f"{named} ({100 * self.error:.2g} % alone)"


def costs(
    full: Path,
    rows: Evaluation,
    candidates: Mapping[str, str],
    reduce_only: Callable[[Path, str], None],
    room: Path,
    on_progress: Progress = no_progress,
) -> list[Cost]:
    """The cost of each candidate, the highest first, over up to ROWS rows.

    `candidates` maps names to operator types; `reduce_only(target, name)` writes the graph with only that one reduced.
    """
    kept = np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).astype(int)
    inputs = {name: values[kept] for name, values in rows.inputs.items()}
    chosen = Evaluation(inputs, mask=rows.mask, batched=rows.batched)
    expected = answers(onnx_file.session(full), chosen, batch=BATCH)
    found = []
    for done, (name, op_type) in enumerate(candidates.items()):
        on_progress("find the operators that cost most", done, len(candidates))
        target = room / "alone.onnx"
        try:
            reduce_only(target, name)
            given = answers(onnx_file.session(target), chosen, batch=BATCH)
        except LimitError:
            raise
        except Exception:  # the converters' kinds, for what they cannot convert alone
            continue
        found.append(Cost(name, op_type, max(_relative(given[output], expected[output]) for output in expected)))
    on_progress("find the operators that cost most", len(candidates), len(candidates))
    return sorted(found, key=lambda cost: cost.error, reverse=True)


def _relative(given: np.ndarray, expected: np.ndarray) -> float:  # type: ignore[type-arg]
    """Infinite where the reduced graph gives NaN or infinity; of texts, the fraction that differs."""
    if expected.dtype.kind in "OUS":
        return float(np.mean(given != expected))
    difference = float(np.linalg.norm(given.astype(np.float64) - expected)) / (float(np.linalg.norm(expected)) or 1.0)
    return difference if np.isfinite(difference) else float("inf")
