"""Edits that let Triton serve an imported ONNX graph: a batch axis that is open, no weights among the inputs, an axis
for every tensor. The operators stay as they are."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from export.graph import runtime

BATCH = "batch"
LEAST_IR = 4
"""Before IR version 4 a weight had to be listed as an input, too."""

Shape = tuple[int | str | None, ...]
"""A declared shape: a size, a symbol, or None for an axis that has neither."""


def inputs(model: Any) -> list[Any]:
    """The graph's inputs without the weights that are listed among them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def shape(value: Any) -> Shape | None:
    """What a graph declares of a tensor's shape; None where not even the rank is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else _symbol(dim.dim_param)
        for dim in tensor.shape.dim
    )


def _symbol(name: str) -> str | None:
    """An axis's name; what exporters write for an axis without one is none: `?`, `-1`, `None`."""
    return name if re.search(r"[^\W_]", name) and name not in ("-1", "0", "None") else None


def set_shape(value: Any, sizes: Sequence[int | str | None]) -> None:
    """Declare a tensor's shape."""
    declared = value.type.tensor_type.shape
    del declared.dim[:]
    declared.SetInParent()
    for size in sizes:
        dim = declared.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        elif size:
            dim.dim_param = size


def drop_weight_inputs(model: Any) -> int:
    """Make constants of the weights that are listed as inputs, too; returns how many there were."""
    kept = inputs(model)
    dropped = len(model.graph.input) - len(kept)
    if dropped:
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = max(model.ir_version, LEAST_IR)
    return dropped


def make_outputs(model: Any) -> None:
    """Let a node make each output that is a weight of the graph: edits and converters look for one."""
    from onnx import helper

    weights = {tensor.name: (tensor.data_type, tensor.dims) for tensor in model.graph.initializer}
    for value in model.graph.output:
        if value.name in weights:  # whose type nobody has held to the declared one so far
            value.CopyFrom(helper.make_tensor_value_info(value.name, *weights[value.name]))
            inner = unused_name(model, f"{value.name}_weight")
            rename_value(model.graph, value.name, inner)
            model.graph.node.append(helper.make_node("Identity", [inner], [value.name], name=inner))


def fixed_outputs(model: Any) -> list[str]:
    """The outputs that depend on no input."""
    flowing = {value.name for value in inputs(model)}
    for node in model.graph.node:
        if not flowing.isdisjoint(used(node)):
            flowing.update(node.output)
    return [value.name for value in model.graph.output if value.name not in flowing]


def open_batch(model: Any) -> None:
    """Open the first axis of every input, which is 1, and let the reshapes on the way keep it.

    A graph that was exported for one row names that one in its reshapes: [1, 512] becomes [0, 512], where 0 stands for
    the axis as it comes. Other operators may hold on to the one row; whether it worked is for a run to show.
    """
    from onnx import helper

    known = _sizes(model)
    known_constants = constants(model)
    flowing = {value.name for value in inputs(model)}
    for node in model.graph.node:
        if not flowing & set(node.input):
            continue
        flowing.update(node.output)
        if node.op_type != "Reshape" or node.input[1] not in known_constants:
            continue
        target = list(known_constants[node.input[1]])
        if not target or target[0] != 1:
            continue
        copies = not any(attribute.name == "allowzero" and attribute.i for attribute in node.attribute)
        if known.get(node.input[0], ())[:1] == (1,) and copies:
            target[0] = 0
        elif -1 not in target:
            target[0] = -1
        else:
            continue
        name = unused_name(model, f"{node.output[0]}_shape")
        model.graph.initializer.append(helper.make_tensor(name, 7, [len(target)], target))
        node.input[1] = name
        model.ir_version = max(model.ir_version, LEAST_IR)
    name_batch(model)


def name_batch(model: Any) -> None:
    """Call the first axis of every input and output the same, so that tools see one batch.

    Inner values keep their types, not their shapes: whoever opened the batch by hand left those of the fixed one.
    """
    for value in model.graph.value_info:
        value.type.tensor_type.ClearField("shape")
    for value in (*inputs(model), *model.graph.output):
        sizes = shape(value)
        if sizes:
            set_shape(value, (BATCH, *sizes[1:]))


def widen(model: Any, names: Collection[str], batched: bool) -> None:
    """Give tensors that have no axis of their own one of size 1: [batch] becomes [batch, 1], a scalar [1]."""
    from onnx import helper

    sizes: list[int | str] = [BATCH, 1] if batched else [1]
    before: list[Any] = []
    behind: list[Any] = []
    for values, made, target in (
        (model.graph.input, before, [-1] if batched else []),
        (model.graph.output, behind, [-1, 1] if batched else [1]),
    ):
        for value in values:
            if value.name in names:
                inner, constant = unused_name(model, f"{value.name}_flat"), unused_name(model, f"{value.name}_shape")
                rename_value(model.graph, value.name, inner)
                model.graph.initializer.append(helper.make_tensor(constant, 7, [len(target)], target))
                ends = (value.name, inner) if made is before else (inner, value.name)
                made.append(helper.make_node("Reshape", [ends[0], constant], [ends[1]], name=inner))
                set_shape(value, sizes)
    if before or behind:
        surround(model, before, behind)
        model.ir_version = max(model.ir_version, LEAST_IR)


def surround(model: Any, before: Iterable[Any], behind: Iterable[Any] = ()) -> None:
    """Put nodes before and behind those of the graph."""
    ordered = [*before, *model.graph.node, *behind]
    del model.graph.node[:]
    model.graph.node.extend(ordered)


def declare_as(model: Any, other: Any) -> None:
    """Declare inputs and outputs as another model does, whatever shapes a converter inferred for them."""
    declared = {value.name: value.type for value in (*other.graph.input, *other.graph.output)}
    for value in (*model.graph.input, *model.graph.output):
        if value.name in declared:
            value.type.CopyFrom(declared[value.name])


def taps(model: Any, count: int) -> list[str]:
    """Names of up to `count` inner FP32 values of one row that depend on the inputs, spread over the graph."""
    floats = _sizes(model, floats_only=True)
    flowing = {value.name for value in inputs(model)}
    found = []
    for node in model.graph.node:
        if flowing & set(node.input):
            flowing.update(node.output)
            found += [name for name in node.output if floats.get(name, ())[:1] == (1,)]
    outputs = {value.name for value in model.graph.output}
    found = [name for name in found if name not in outputs]
    step = max(1, -(-len(found) // count))
    return found[::step]


def tap(model: Any, names: Iterable[str]) -> None:
    """Add inner FP32 values to the outputs."""
    from onnx import helper

    model.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in names)


def _sizes(model: Any, *, floats_only: bool = False) -> dict[str, tuple[int | str | None, ...]]:
    """The shapes of inner values, as far as shape inference finds them."""
    try:
        inferred = runtime.infer_shapes(model)
    except RuntimeError:  # the caller then knows less
        inferred = model
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    return {
        value.name: shape(value) or () for value in values if not floats_only or value.type.tensor_type.elem_type == 1
    }


def inferred_shapes(model: Any) -> dict[str, Shape]:
    """The shapes of the outputs, as far as they are declared or shape inference finds them."""
    found = _sizes(model)
    return {value.name: found.get(value.name, ()) for value in model.graph.output}


def used(node: Any) -> list[str]:
    """The values that a node uses, in the graphs inside it, too."""
    names = [*node.input]
    for inner in inner_graphs(node):
        names += [name for each in nodes(inner) for name in each.input] + [value.name for value in inner.output]
    return names


def constants(model: Any) -> dict[str, list[int]]:
    """Small integer tensors of at most one axis by name: initializers and Constant nodes."""
    from onnx import helper, numpy_helper

    found = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if _small_integers(tensor) and (tensor.raw_data or tensor.int64_data or tensor.int32_data)
    }
    for node in model.graph.node:
        if node.op_type != "Constant" or not node.attribute:
            continue
        value = helper.get_attribute_value(node.attribute[0])
        if node.attribute[0].name in ("value_int", "value_ints"):
            found[node.output[0]] = np.array(value)
        elif node.attribute[0].name == "value" and _small_integers(value):
            found[node.output[0]] = numpy_helper.to_array(value)
    return {name: [int(number) for number in array.ravel()] for name, array in found.items()}


def _small_integers(tensor: Any) -> bool:
    whole = tensor.data_type in (6, 7)  # INT32, INT64
    return whole and len(tensor.dims) <= 1 and tensor.data_location != tensor.EXTERNAL


def unused_name(model: Any, wanted: str) -> str:
    taken = {name for node in nodes(model.graph) for name in (*node.output, *node.input)}
    taken |= {tensor.name for tensor in model.graph.initializer} | {value.name for value in model.graph.input}
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name


def rename_value(graph: Any, old: str, new: str) -> None:
    """Rename a weight, or a value wherever nodes make or use it, in inner graphs too; inputs and outputs stay."""
    for tensor in graph.initializer:
        if tensor.name == old:
            tensor.name = new
    for node in nodes(graph):
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for inner in (inner for node in graph.node for inner in inner_graphs(node)):
        for value in inner.output:
            if value.name == old:
                value.name = new


def inner_graphs(node: Any) -> Iterator[Any]:
    """The graphs inside a node: branches and bodies."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def nodes(graph: Any) -> Iterator[Any]:
    """Every node of a graph and of the graphs inside its nodes."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from nodes(inner)
