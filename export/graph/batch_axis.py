"""Find what in a graph's structure rules out a batch axis: rows that depend on one another, are dropped or added.

Shape inference follows the batch through the graph as a symbol. An operator that works along an axis of that symbol
mixes rows; an output whose first axis is another symbol has other rows. What inference cannot follow, trials decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from export.errors import LimitError
from export.graph import edit, node_axes, onnx_stream, runtime

BATCH = "fathom batch"
"""The symbol of the batch: no exporter writes a space."""

CHOOSE_ROWS = frozenset(("Compress", "NonMaxSuppression", "NonZero", "Unique"))
"""Operators whose number of results is in the values."""

SHAPE_ONLY = frozenset(("EyeLike", "RandomNormalLike", "RandomUniformLike", "Shape", "Size"))
"""Operators that do not look at values."""

BROADCAST = frozenset(("Add", "And", "Div", "Expand", "Max", "Min", "Mul", "Or", "Pow", "Sub", "Sum", "Where"))
"""Operators that line up the axes of their inputs."""

SIZES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("ConstantOfShape", "If"), (0,)),
    **dict.fromkeys(("Expand", "OneHot", "Reshape", "Split", "Squeeze", "Tile", "TopK", "Unsqueeze"), (1,)),
    **dict.fromkeys(("Clip", "Resize", "Slice", "Upsample"), (1, 2, 3, 4)),
    "Loop": (0, 1),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
}
"""Inputs that decide sizes, limits and repetitions: whether rows differ by them is for trials to show."""


@dataclass(frozen=True)
class Obstacle:
    """Why one output has no batch axis: the operator that prevents it (empty for none), and what it does."""

    output: str
    operator: str
    why: str

    def __str__(self) -> str:
        operator = f" (operator {self.operator})" if self.operator else ""
        return f"output '{self.output}' {self.why}{operator}"


def obstacles(model: Any) -> list[Obstacle]:
    """What is certain by the structure alone, at most one for each output. `model` may lack its large weights."""
    try:
        inferred = runtime.infer_shapes(_marked(model), inline=True, data_prop=True)
        if len(inferred.graph.node) > onnx_stream.most_parts():
            raise onnx_stream.too_many_parts("the graph with its functions in the place of their calls")
        return list(_Walk(inferred, _own_names(model)).found())
    except LimitError:
        raise
    except Exception:  # the kinds of its C++ code, and what nodes raise that lack an input they must have
        return []


def _own_names(model: Any) -> set[str]:
    """The outputs whose first axis the graph calls otherwise than any first axis of the inputs."""
    firsts = {(edit.shape(value) or (None,))[0] for value in edit.inputs(model)}
    outputs = {value.name: (edit.shape(value) or (None,))[0] for value in model.graph.output}
    return {name for name, first in outputs.items() if isinstance(first, str) and first not in firsts}


def _marked(model: Any) -> Any:
    """The model with BATCH as first axis of all inputs, and without the shapes that it declares itself."""
    marked = type(model)()
    marked.CopyFrom(model)
    del marked.graph.value_info[:]
    for value in marked.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    for value in edit.inputs(marked):
        if sizes := edit.shape(value):
            edit.set_shape(value, (BATCH, *sizes[1:]))
    return marked


class _Walk:
    """One pass over the nodes, in their order."""

    def __init__(self, model: Any, own_names: set[str]) -> None:
        graph = model.graph
        self.outputs = [value.name for value in graph.output]
        self.own_names = own_names
        self.shapes = {
            value.name: edit.shape(value)
            for value in (*graph.input, *graph.value_info, *graph.output)
            if value.type.HasField("tensor_type")
        }
        self.opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
        self.constants = edit.constants(model)
        self.dependent = {value.name for value in edit.inputs(model)}
        self.mixed: dict[str, Any] = {}
        self.chosen: dict[str, Any] = {}
        self.batches = {BATCH}
        self.first_seen: dict[str, Any] = {}
        self.made: dict[str, Any] = {}
        for node in graph.node:
            self._visit(node)

    def found(self) -> Iterator[Obstacle]:
        for output in self.outputs:
            shape = self.shapes.get(output)
            if output in self.mixed:
                yield Obstacle(output, _named(self.mixed[output]), "depends on the other rows of its batch")
            elif shape is not None and shape[:1] != (BATCH,):
                yield from self._misplaced(output, shape)

    def _misplaced(self, output: str, shape: edit.Shape) -> Iterator[Obstacle]:
        """What is certain of an output whose first axis is not the batch."""
        maker = _named(self.made[output]) if output in self.made else ""
        if not shape:
            yield Obstacle(output, maker, "is one value for the whole batch")
        elif BATCH in shape:
            yield Obstacle(output, maker, f"has its rows on axis {shape.index(BATCH)}")
        elif isinstance(shape[0], int):
            yield Obstacle(output, maker, f"always has a first axis of {shape[0]}")
        elif (node := self.first_seen.get(str(shape[0]))) is not None and self._chooses(node):
            yield Obstacle(output, _named(node), "has a number of rows that depends on the values")
        elif node is not None and self._resizes(node):
            yield Obstacle(output, _named(node), "has a different number of rows than the batch")
        elif output in self.own_names and output in self.chosen and shape[0] not in self.batches:
            why = "names its own first axis, whose length depends on the values"
            yield Obstacle(output, _named(self.chosen[output]), why)

    def _visit(self, node: Any) -> None:
        everything = edit.used(node)
        sizes = SIZES.get(node.op_type, ())
        values = [name for index, name in enumerate(everything) if index not in sizes]
        looks = node.op_type not in SHAPE_ONLY
        chooser = node if self._chooses(node) else _first(everything, self.chosen)
        mixer = _first(values, self.mixed) if looks else None
        if looks and not self.dependent.isdisjoint(everything):
            self.dependent.update(node.output)
            if mixer is None and self._mixes(node):
                mixer = node
        for name in node.output:
            self.made[name] = node
            self.mixed |= {name: mixer} if mixer is not None else {}
            self.chosen |= {name: chooser} if chooser is not None else {}
            shape = self.shapes.get(name) or ()
            for at, size in enumerate(shape):
                if isinstance(size, str) and self.first_seen.setdefault(size, node) is node:
                    self.batches |= {size} if self._passes_on(node, at, len(shape)) else set()

    def _chooses(self, node: Any) -> bool:
        """Whether values decide how many rows a node gives."""
        if node.op_type == "Slice":
            axes = self.constants.get(node.input[3], ()) if len(node.input) > 3 else (0,)
            limited = not self.dependent.isdisjoint(node.input[1:3])
            return limited and any(self._is_batch(node.input[0], axis) for axis in axes)
        return node.op_type in CHOOSE_ROWS and not self.dependent.isdisjoint(node.input)

    def _passes_on(self, node: Any, at: int, rank: int) -> bool:
        """Whether an axis that inference gave a new symbol is made of the batch, with other axes it may be."""
        if node.op_type in ("Reshape", "Flatten"):
            return at == 0 and self._is_batch(node.input[0], 0)
        return node.op_type in BROADCAST and any(self._is_batch(name, at - rank) for name in node.input)

    def _mixes(self, node: Any) -> bool:
        """Whether a node computes along the batch, or pairs its rows."""
        if any((self.shapes.get(name) or ()).count(BATCH) > 1 for name in node.output):
            return True
        ranks = [len(self.shapes.get(name) or ()) for name in node.input]
        axes = node_axes.met(node, ranks, self.opset, self.constants)
        return any(
            name in self.dependent and self._is_batch(name, axis)
            for name, each in zip(node.input, axes, strict=False)
            for axis in each
        )

    def _is_batch(self, name: str, axis: int) -> bool:
        shape = self.shapes.get(name) or ()
        return -len(shape) <= axis < len(shape) and shape[axis] in self.batches

    def _resizes(self, node: Any) -> bool:
        """Whether a node repeats, divides or pads the batch, for certain."""
        given, axis = node.input[0], node_axes.attribute(node, "axis", 0)
        if node.op_type == "Concat":
            return len(node.input) > 1 and any(self._is_batch(name, axis) for name in node.input)
        if node.op_type == "Split":
            return len(node.output) > 1 and self._is_batch(given, axis)
        if node.op_type == "Reshape":
            (first, *row), (_, *other) = self.shapes.get(given) or (None,), self.shapes[node.output[0]] or (None,)
            known = [[size for size in sizes if isinstance(size, int)] for sizes in (row, other)]
            fixed = sum(map(len, known)) == len(row) + len(other)
            return first == BATCH and fixed and prod(known[0]) != prod(known[1])
        counts = self.constants.get(node.input[1], ()) if node.op_type in ("Tile", "Pad") else ()
        rank = len(self.shapes.get(given) or ()) or 1
        unchanged = 1 if node.op_type == "Tile" else 0
        return any(count != unchanged and self._is_batch(given, at % rank) for at, count in enumerate(counts))


def _first(names: list[str], found: dict[str, Any]) -> Any:
    return next((found[name] for name in names if name in found), None)


def _named(node: Any) -> str:
    return f"{node.op_type} '{node.name}'" if node.name else str(node.op_type)
