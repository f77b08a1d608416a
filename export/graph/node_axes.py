"""The axes along which an ONNX operator lets values meet: what it adds up, sorts, or takes some of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Constants = Mapping[str, Sequence[int]]
"""Small tensors of whole numbers by name, as `edit.constants` gives them."""


def met(node: Any, ranks: Sequence[int], opset: int, constants: Constants) -> Sequence[Iterable[int]]:
    """For each of the first inputs its axes, negative ones among them.

    `ranks` are those of the inputs, 0 where unknown; `opset` is that of ONNX's own operators.
    """
    if (contracted := _CONTRACTIONS.get(node.op_type)) is not None:
        return contracted(node, ranks)
    return (_along(node, ranks[0] if ranks else 0, opset, constants),)


def attribute(node: Any, name: str, default: Any) -> Any:
    """What an attribute of a node is, or the default."""
    from onnx import helper

    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


def _along(node: Any, rank: int, opset: int, constants: Constants) -> Iterator[int]:
    """The axes of the first input."""
    kind = node.op_type
    if kind in ("Softmax", "LogSoftmax", "Hardmax") and opset < 13:
        yield from range(attribute(node, "axis", 1) % max(rank, 1), rank)
    elif kind in _AXIS:
        yield attribute(node, "axis", _AXIS[kind])
    elif kind in ("LayerNormalization", "RMSNormalization"):
        yield from range(attribute(node, "axis", -1) % max(rank, 1), rank)
    elif kind.startswith("Reduce"):
        yield from _reduced(node, rank, constants)
    elif kind == "CumSum":
        yield from constants.get(node.input[1], ())
    elif kind == "MeanVarianceNormalization":
        yield from attribute(node, "axes", [0, 2, 3])
    elif kind == "BatchNormalization" and attribute(node, "training_mode", 0):
        yield from (axis for axis in range(rank) if axis != 1)
    elif kind in ("LSTM", "GRU", "RNN"):
        yield attribute(node, "layout", 0)
    elif kind == "ReverseSequence":
        yield attribute(node, "time_axis", 0)
    elif kind == "Trilu":
        yield from (-1, -2)
    elif kind == "Gather" and node.input[1] in constants:
        yield attribute(node, "axis", 0)
    elif kind == "Unique":
        axis = attribute(node, "axis", None)
        yield from range(rank) if axis is None else (axis,)
    elif kind == "Slice":
        yield from _cut(node, constants)


def _reduced(node: Any, rank: int, constants: Constants) -> Iterator[int]:
    axes = attribute(node, "axes", None)
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = constants.get(node.input[1])
        if axes is None:
            return
    if axes:
        yield from axes
    elif not attribute(node, "noop_with_empty_axes", 0):
        yield from range(rank)


def _cut(node: Any, constants: Constants) -> Iterator[int]:
    """The axes along which a Slice takes some of the rows, or turns them round."""
    given = [constants.get(name) if name else None for name in node.input[1:]]
    starts, ends = (attribute(node, "starts", None), attribute(node, "ends", None))
    axes, steps = attribute(node, "axes", None), None
    if len(given) > 1:
        starts, ends = given[0], given[1]
        axes = given[2] if len(given) > 2 else None
        steps = given[3] if len(given) > 3 else None
    if starts is None or ends is None:
        return
    for index, (start, end) in enumerate(zip(starts, ends, strict=False)):
        step = steps[index] if steps else 1
        if start != 0 or step != 1 or end < 2**31 - 1:
            yield axes[index] if axes else index


_AXIS = {
    **dict.fromkeys(("ArgMax", "ArgMin"), 0),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "TopK", "LpNormalization"), -1),
}
"""Operators that work along one axis, with what it is where they do not say."""


def _matmul(node: Any, ranks: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    return (-1,), (-2 if ranks[1] > 1 else 0,)


def _gemm(node: Any, ranks: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    del ranks
    return (0 if attribute(node, "transA", 0) else 1,), (1 if attribute(node, "transB", 0) else 0,)


def _einsum(node: Any, ranks: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    del ranks
    taken, arrow, given = attribute(node, "equation", b"").decode().replace(" ", "").partition("->")
    if not arrow or "." in taken:
        return ()
    return tuple(tuple(at for at, letter in enumerate(term) if letter not in given) for term in taken.split(","))


_CONTRACTIONS = {"MatMul": _matmul, "MatMulInteger": _matmul, "Gemm": _gemm, "Einsum": _einsum}
"""Operators that sum over axes of several inputs: those axes of each."""
