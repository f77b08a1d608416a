"""Lint rules for batching: a graph whose structure forbids it must not be given requests together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from export import files
from export.config import contract
from export.errors import FileError
from export.graph import batch_axis, onnx_stream
from export.lint.complete import completed, graph_file
from export.lint.finding import Findings, Subject, rule


@rule
def rows_that_meet(subjects: Sequence[Subject]) -> Findings:
    """Every configuration that batches, against the graphs that it serves, or that lie beside the engines."""
    for subject in subjects:
        if not _batches(completed(subject)):
            continue
        for version in subject.versions:
            beside = version / contract.ONNX_FILE if subject.backend == "tensorrt" else None
            path = graph_file(subject, version) or beside
            if path is None or files.problem(subject.folder, path):
                continue
            for obstacle in _obstacles(path, path.stat().st_mtime_ns):
                yield subject.warning(
                    "max_batch_size" if subject.message.max_batch_size else "",
                    f"requests are batched, but {obstacle}: clients would get answers that depend on each other, "
                    "or errors",
                    "write max_batch_size: 0 with whole shapes in dims",
                )


def _batches(message: Any) -> bool:
    """Not of ragged inputs, which Triton lays end to end and leaves to the graph to tell apart."""
    ragged = message.batch_output or any(tensor.allow_ragged_batch for tensor in message.input)
    return bool(message.max_batch_size > 0) and not ragged


@cache
def _obstacles(path: Path, modified_ns: int) -> list[batch_axis.Obstacle]:
    """Found once for all configurations of a model; `modified_ns` makes a changed file another one."""
    del modified_ns
    try:
        return batch_axis.obstacles(onnx_stream.read_without_weights(path, keep_bytes=onnx_stream.LARGE))
    except (FileError, OSError, ValueError):  # the rules about the graph say so
        return []
