"""Hold every configuration of a model to its graph, before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from export.config import config as configs
from export.config import contract, rewrite
from export.config.config import Config
from export.errors import ContractError
from export.graph import batch_axis, onnx_stream
from export.graph.signature import Signature


@dataclass(frozen=True)
class Fitted:
    """The configurations whose dims were rewritten to fit a graph, and a line for a person about each change."""

    rewritten: tuple[Config, ...] = ()
    notes: tuple[str, ...] = ()


def fit(found: Sequence[Config], signature: Signature, *, rewriting: bool) -> Fitted:
    """Check each configuration against the graph; with `rewriting`, replace the dims that differ first.

    Raises ContractError for one that does not fit.
    """
    rewritten: list[Config] = []
    notes: list[str] = []
    for config in found:
        if rewriting and config.message.backend != "python":
            text, lines = rewrite.rewrite_dims(config, signature)
            if lines:
                config = replace(config, text=text, message=configs.parse(text))
                rewritten.append(config)
                notes += lines
        contract.check(config, signature)
    return Fitted(tuple(rewritten), tuple(notes))


def check_batch(found: Sequence[Config], graph: Path) -> None:
    """Raise ContractError for a graph that does not answer row by row where a configuration batches."""
    batching = next((config.label for config in found if config.message.max_batch_size > 0), None)
    if batching is None:
        return
    for obstacle in batch_axis.obstacles(onnx_stream.read_without_weights(graph, keep_bytes=onnx_stream.LARGE)):
        raise ContractError(
            f"{batching} batches requests, but {obstacle}",
            remedy="write max_batch_size: 0 with whole shapes in dims, or export a graph that answers row by row",
            file=batching,
            field="max_batch_size",
            tensor=obstacle.output,
            found=obstacle.operator,
        )
