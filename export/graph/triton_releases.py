"""Which ONNX models the ONNX Runtime inside a Triton release can load."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

ONNXRUNTIME_OF_TAG = {
    "25.10": "1.23.1",
    "25.11": "1.23.2",
    "25.12": "1.23.2",
    "26.01": "1.23.2",
    "26.02": "1.24.1",
    "26.03": "1.24.2",
    "26.04": "1.24.4",
    "26.05": "1.24.4",
    "26.06": "1.24.4",
    "26.07": "1.27.0",
    "26.08": "1.28.0",
}
"""ONNX Runtime of `tritonserver:<tag>-py3`: build.py of each release branch of the server."""


@dataclass(frozen=True)
class Limits:
    """The newest opset (of the domain ai.onnx) and IR version that an ONNX Runtime loads."""

    opset: int
    ir_version: int


LIMITS = {
    "1.23": Limits(23, 11),
    "1.24": Limits(25, 13),
    "1.27": Limits(26, 13),
    "1.28": Limits(26, 13),
    "1.32": Limits(28, 14),
}
"""By minor version, found by loading a one-node model of every opset and IR version in each release (2026-11-22)."""


def obstacle(versions: Mapping[str, int], tag: str) -> str | None:
    """Why a model of these versions (see `export.graph.signature.from_onnx`) cannot be loaded in a Triton release, as a
    sentence with what to do; None where it can, or where the release's ONNX Runtime is not known."""
    release = re.match(r"\d\d\.\d\d", tag)
    runtime = ONNXRUNTIME_OF_TAG.get(release[0]) if release else None
    limits = LIMITS.get(".".join(runtime.split(".")[:2])) if runtime else None
    if limits is None:
        return None
    for key, newest, words, remedy in (
        ("opset", limits.opset, "opset", f"export it with opset {limits.opset} or older"),
        ("ir_version", limits.ir_version, "IR version", f"save it with model.ir_version = {limits.ir_version}"),
    ):
        if versions.get(key, 0) > newest:
            return (
                f"it has {words} {versions[key]}, and the ONNX Runtime {runtime} of Triton {tag} loads up to {newest}: "
                f"{remedy}, or deploy a newer Triton"
            )
    return None
