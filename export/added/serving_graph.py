"""Write the serving graph: the imported ONNX file with the edits that its recipe.toml names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from export.added.recipe_file import NONE, OPENED, OWN
from export.graph import edit as graph_edit
from export.graph import external_data
from export.graph.onnx_file import session
from export.recipe.recipe import Array, Arrays, Predict
from export.sources import validation


def write(raw: Path, batch: str, widened: tuple[str, ...], example: Arrays, path: Path) -> None:
    """Write the graph that is served: `raw` with its edits, every output with a shape. `example` are requests."""
    import onnx

    model = validation.read_onnx(raw)
    graph_edit.drop_weight_inputs(model)
    edit(model, batch, widened)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"  # --exclude and the quantizer go by names
    model.ir_version = max(model.ir_version, graph_edit.LEAST_IR)
    external_data.save(model, path, raw.parent)
    batched = batch != NONE
    request = {name: rows[:2] if batched else rows[0] for name, rows in example.items()}
    answer = session(path)(request)
    for value in model.graph.output:
        if len(graph_edit.shape(value) or ()) != answer[value.name].ndim:
            value.type.tensor_type.ClearField("shape")  # wrong, so inference had better not hear of it
    declared = graph_edit.inferred_shapes(model)
    for value in model.graph.output:
        observed = answer[value.name].shape
        graph_edit.set_shape(value, _declared(declared[value.name], observed, batched))
    onnx.save(model, str(path))


def edit(model: Any, batch: str, widened: tuple[str, ...]) -> None:
    """Apply the edits of a recipe.toml to a model, in place."""
    graph_edit.make_outputs(model)
    if batch == OPENED:
        graph_edit.open_batch(model)
    elif batch == OWN:
        graph_edit.name_batch(model)
    graph_edit.widen(model, widened, batch != NONE)


def widening(predict: Predict, widened: tuple[str, ...], batched: bool) -> Predict:
    """Wrap a source so that it takes and gives the widened tensors as the serving graph does."""

    def wide(arrays: Arrays) -> dict[str, Array]:
        plain = (-1,) if batched else ()
        flat = {name: array.reshape(plain) if name in widened else array for name, array in arrays.items()}
        return {
            name: np.asarray(array).reshape((-1, 1) if batched else (1,)) if name in widened else np.asarray(array)
            for name, array in predict(flat).items()
        }

    return wide


def _declared(declared: graph_edit.Shape, observed: tuple[int, ...], batched: bool) -> list[int | str | None]:
    """An output's shape: what the graph declares where a run agrees, open where it does not."""
    if len(declared) != len(observed):
        declared = (None,) * len(observed)
    sizes: list[int | str | None] = [
        size if not isinstance(size, int) or size == have else None
        for size, have in zip(declared, observed, strict=True)
    ]
    if batched:
        sizes[0] = graph_edit.BATCH
    return sizes
