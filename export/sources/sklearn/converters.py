"""Name the converter of each gradient-boosting library: skl2onnx has none of its own for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

TO_FILE = {
    "lightgbm": "onnxmltools.convert_lightgbm(model, initial_types=..., zipmap=False)",
    "xgboost": "onnxmltools.convert_xgboost(model, initial_types=...)",
    "catboost": "model.save_model('model.onnx', format='onnx')",
}
"""By library, what writes the ONNX file of one of its models."""


def remedy(steps: Iterable[Any]) -> str | None:
    """How to convert the first of the steps that is a boosting library's; None where none is.

    The only step is converted by its library. As one step of a pipeline it must be converted with the pipeline.
    """
    parts = list(steps)
    for part in parts:
        library = type(part).__module__.split(".")[0]
        if library not in TO_FILE:
            continue
        if len(parts) == 1 or library == "catboost":
            return f"convert it with {TO_FILE[library]} and add that file with --onnx"
        return (
            f"register onnxmltools' converter of {type(part).__name__} in the function, with "
            "skl2onnx.update_registered_converter"
        )
    return None
