"""The linter knows exactly the parameters that the python-based ONNX Runtime backend takes.

The backend runs in Triton's stub and imports neither package, so its names are read from its source.
"""

from __future__ import annotations

import ast
from pathlib import Path

from export.lint.fields.parameters import ONNXRUNTIME

BACKEND = Path(__file__).parents[3] / "server" / "backends" / "onnxruntime" / "fathom_session.py"
NAMED_IN = ("SESSION_PARAMETERS", "CUDA_PARAMETERS", "DEVICE_TENSORS", "ROWS_PER_RUN")


def constants(source: str) -> dict[str, object]:
    """The literals that a module assigns at its top, by name."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def test_the_linter_and_the_backend_know_the_same_parameters() -> None:
    source = BACKEND.read_text(encoding="utf-8")
    known = f"known = {NAMED_IN[0]} | {NAMED_IN[1]} | {{{', '.join(NAMED_IN[2:])}}}"
    assert known in source, "the backend checks other names"
    found = constants(source)
    taken = {name for each in NAMED_IN for name in ([found[each]] if isinstance(found[each], str) else found[each])}

    assert taken == ONNXRUNTIME
