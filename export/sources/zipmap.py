"""Cut off ZipMap, which converters of classifiers append to the probabilities; its keys become their labels.

CatBoost cannot leave it out, and Triton has no tensors that are maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from export.graph import edit
from export.recipe.recipe import Arrays, Predict

Keys = Mapping[str, Sequence[Any]]
"""By output, the class of each of its numbers: whole numbers or texts."""

OPSET = 13
"""Of the standard operators, for a graph that uses none."""


def cut(model: Any) -> Keys:
    """Replace each output of a ZipMap by the numbers that it takes, in place."""
    from onnx import TensorProto, helper

    outputs = {value.name: value for value in model.graph.output}
    found: dict[str, Sequence[Any]] = {}
    for index, node in enumerate(model.graph.node):
        if node.op_type != "ZipMap" or node.output[0] not in outputs:
            continue
        keys = [key for attribute in node.attribute for key in (*attribute.ints, *attribute.strings)]
        found[node.output[0]] = [key.decode() if isinstance(key, bytes) else key for key in keys]
        value = outputs[node.output[0]]
        value.type.Clear()
        value.type.tensor_type.elem_type = TensorProto.FLOAT
        edit.set_shape(value, (None, len(keys)))
        model.graph.node[index].CopyFrom(helper.make_node("Identity", node.input, node.output))
    if found and not any(opset.domain in ("", "ai.onnx") for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", OPSET))
    return found


def as_numbers(predict: Predict, keys: Keys) -> Predict:
    """Wrap a source that gives maps so that it gives their values, in the order of the keys."""

    def answer(arrays: Arrays) -> Arrays:
        return {
            name: np.array([[row[key] for key in keys[name]] for row in given], np.float32) if name in keys else given
            for name, given in predict(arrays).items()
        }

    return answer
