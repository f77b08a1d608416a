"""Rename, split, cast and cut the inputs and outputs of an ONNX graph, in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from export.graph.edit import BATCH, nodes, rename_value, set_shape, surround, unused_name


def rename_outputs(model: Any, names: Mapping[str, str]) -> None:
    """Give outputs other names; an inner value that has a new name already gets another one."""
    taken = {name for node in nodes(model.graph) for name in (*node.output, *node.input)}
    taken |= {tensor.name for tensor in model.graph.initializer}
    for old, new in names.items():
        if old == new:
            continue
        if new in taken:
            aside = unused_name(model, f"{new}_inner")
            rename_value(model.graph, new, aside)
        rename_value(model.graph, old, new)
        for value in model.graph.output:
            if value.name == old:
                value.name = new
    del model.graph.value_info[:]


def rename_inputs(model: Any, names: Mapping[str, str]) -> None:
    """Give inputs other names, which no inner value has."""
    aside = {old: unused_name(model, f"{old}_renamed") for old, new in names.items() if old != new}
    for step in (aside, {aside[old]: names[old] for old in aside}):  # a new name may be another's old one
        for old, new in step.items():
            rename_value(model.graph, old, new)
            for value in model.graph.input:
                if value.name == old:
                    value.name = new


def split_input(model: Any, names: Sequence[str]) -> None:
    """Let the one input [batch, width] come as its columns, each [batch, 1]; inner values of their names get others."""
    from onnx import helper

    table = model.graph.input[0]
    inner = unused_name(model, f"{table.name}_table")
    for name in {name for node in nodes(model.graph) for name in node.output} & set(names):
        aside = unused_name(model, f"{name}_inner")
        rename_value(model.graph, name, aside)
        for value in model.graph.output:
            if value.name == name:
                value.name = aside
    rename_value(model.graph, table.name, inner)
    element = table.type.tensor_type.elem_type
    del model.graph.input[:]
    model.graph.input.extend(helper.make_tensor_value_info(name, element, (BATCH, 1)) for name in names)
    surround(model, [helper.make_node("Concat", names, [inner], name=inner, axis=1)])


def cast_inputs(model: Any, types: Mapping[str, int]) -> None:
    """Let inputs come as other ONNX element types."""
    from onnx import helper

    before = []
    for value in model.graph.input:
        tensor = value.type.tensor_type
        if types.get(value.name, tensor.elem_type) != tensor.elem_type:
            inner = unused_name(model, f"{value.name}_cast")
            rename_value(model.graph, value.name, inner)
            before.append(helper.make_node("Cast", [value.name], [inner], name=inner, to=tensor.elem_type))
            tensor.elem_type = types[value.name]
    surround(model, before)


def cast_outputs(model: Any, element: int, other: int) -> None:
    """Give outputs that are declared as one ONNX element type as another."""
    from onnx import helper

    for value in model.graph.output:
        if value.type.tensor_type.elem_type == element:
            inner = unused_name(model, f"{value.name}_uncast")
            rename_value(model.graph, value.name, inner)
            model.graph.node.append(helper.make_node("Cast", [inner], [value.name], name=inner, to=other))
            value.type.tensor_type.elem_type = other
    del model.graph.value_info[:]


def take_columns(model: Any, columns: Mapping[str, int]) -> None:
    """Leave one column of outputs [batch, width], as [batch, 1]."""
    from onnx import helper

    for value in model.graph.output:
        if value.name in columns:
            inner, index = unused_name(model, f"{value.name}_whole"), unused_name(model, f"{value.name}_column")
            rename_value(model.graph, value.name, inner)
            model.graph.initializer.append(helper.make_tensor(index, 7, [1], [columns[value.name]]))
            model.graph.node.append(helper.make_node("Gather", [inner, index], [value.name], name=inner, axis=1))
            set_shape(value, (BATCH, 1))
