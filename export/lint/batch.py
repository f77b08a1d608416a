"""Lint rules for batching: a graph whose structure forbids it must not be given requests together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from export import files
from export.config import contract
from export.errors import ContractError, FileError
from export.graph import batch_axis, onnx_stream, signature
from export.lint.finding import Findings, Subject

ENGINES = frozenset(("tensorrt", "tensorrt_plan"))
"""What serves a graph that lies beside its engine."""


def check_folder(version: Path, subjects: Sequence[Subject]) -> Findings:
    """Every configuration that batches, against the graph in a version folder."""
    for subject in subjects:
        message = subject.message
        if contract.serves_onnx(message):
            path = version / (message.default_model_filename or contract.ONNX_FILE)
        elif {message.backend, message.platform} & ENGINES:
            path = version / contract.ONNX_FILE
        else:
            continue
        if files.problem(version.parent, path.relative_to(version.parent)) or not _batches(message, path):
            continue
        for obstacle in _obstacles(path, path.stat().st_mtime_ns):
            yield subject.warning(
                "max_batch_size" if message.max_batch_size else "",
                f"requests are batched, but {obstacle}: clients would get answers that depend on each other, or errors",
                "write max_batch_size: 0 with whole shapes in dims",
            )


def _batches(message: Any, path: Path) -> bool:
    """Whether Triton batches by this configuration, also where it completes it from the graph.

    Not of ragged inputs, which Triton lays end to end and leaves to the graph to tell apart.
    """
    if message.batch_output or any(tensor.allow_ragged_batch for tensor in message.input):
        return False
    if message.max_batch_size or (message.input and message.output):
        return bool(message.max_batch_size > 0)
    try:
        graph, _ = signature.from_onnx(path)
    except ContractError:  # the rules about the graph say so
        return False
    return all(spec.dims[:1] == (-1,) for spec in (*graph.inputs, *graph.outputs))


@cache
def _obstacles(path: Path, modified_ns: int) -> list[batch_axis.Obstacle]:
    """Found once for all configurations of a model; `modified_ns` makes a changed file another one."""
    del modified_ns
    try:
        return batch_axis.obstacles(onnx_stream.read_without_weights(path, keep_bytes=onnx_stream.LARGE))
    except (FileError, OSError, ValueError):  # the rules about the graph say so
        return []
