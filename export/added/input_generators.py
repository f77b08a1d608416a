"""Generators of values for a model's inputs, of the right type and in the range that the graph can take.

Token ids are the case that matters: an id beyond the end of an embedding table ends the request with an error, so the
table's size is read from the graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.recipe.recipe import Array

NUMPY: dict[str, np.dtype[Any]] = {
    "TYPE_FP16": np.dtype(np.float16),
    "TYPE_FP32": np.dtype(np.float32),
    "TYPE_FP64": np.dtype(np.float64),
    "TYPE_UINT8": np.dtype(np.uint8),
    "TYPE_UINT16": np.dtype(np.uint16),
    "TYPE_UINT32": np.dtype(np.uint32),
    "TYPE_UINT64": np.dtype(np.uint64),
    "TYPE_INT8": np.dtype(np.int8),
    "TYPE_INT16": np.dtype(np.int16),
    "TYPE_INT32": np.dtype(np.int32),
    "TYPE_INT64": np.dtype(np.int64),
    "TYPE_BOOL": np.dtype(np.bool_),
}
LARGEST = 3 * (2**31 - 1)
"""Bytes of all requests that are made up for one model: three of the largest that gRPC carries."""

TEXTS = ("play some jazz", "what will the weather be", "a", "zebra 42")
PASSED_ON = frozenset(("Cast", "Clip", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Concat", "Slice"))
"""Operators through which an input is followed to the table that it indexes."""


@dataclass(frozen=True)
class InputGenerator:
    """Generates the values of one input.

    `kind` is "normal", "integers" (from `low` to `high`, both included), "booleans", "texts" or "masks" (ones, then
    zeros as of padding).
    """

    kind: str
    low: int = 0
    high: int = 1
    texts: tuple[str, ...] = ()

    def draw(self, random: np.random.Generator, data_type: str, shape: Sequence[int]) -> Array:
        """An array of that Triton type and shape. Texts are numpy's `str_`."""
        if self.kind == "texts":
            return random.choice(np.array(self.texts, np.str_), tuple(shape))
        dtype = NUMPY[data_type]
        if self.kind == "booleans":
            return random.integers(0, 2, tuple(shape)).astype(dtype)
        if self.kind == "masks":
            return _masks(random, tuple(shape)).astype(dtype)
        if self.kind == "integers":
            return random.integers(self.low, self.high, tuple(shape), endpoint=True).astype(dtype)
        return random.standard_normal(tuple(shape)).astype(dtype)


@dataclass(frozen=True)
class InputRule:
    """How one input is generated: its Triton type and the shape of one request, without the batch axis."""

    data_type: str
    shape: tuple[int, ...]
    generator: InputGenerator

    @property
    def bytes(self) -> int:
        """The size of one request's tensor; of a text, of its length alone."""
        return math.prod(self.shape) * (4 if self.data_type == "TYPE_STRING" else NUMPY[self.data_type].itemsize)


def for_input(model: Any, name: str, data_type: str) -> InputGenerator:
    """The generator for the input `name` of an ONNX model: its values are in the range that the graph can take."""
    if data_type == "TYPE_STRING":
        known = [text for node, _ in _readers(model, name) for text in _categories(node)]
        return InputGenerator("texts", texts=tuple(dict.fromkeys(known))[:64] or TEXTS)
    if data_type == "TYPE_BOOL":
        return InputGenerator("booleans")
    if NUMPY[data_type].kind == "f":
        return InputGenerator("normal")
    if data_type == "TYPE_UINT8":
        whole = InputGenerator("integers", high=255)  # pixels
    elif "mask" in name.lower():
        whole = InputGenerator("masks")
    else:
        whole = InputGenerator("integers")
    sizes = [size for node, value in _readers(model, name) for size in _table_sizes(model, node, value)]
    return InputGenerator("integers", high=max(0, min(sizes) - 1)) if sizes else whole


def _masks(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Ones up to another length in each row; the first has no zeros. None has zeros alone: attention divides by their
    sum."""
    if len(shape) < 2:
        return np.ones(shape)
    lengths = random.integers(1, shape[-1], (shape[0], *(1 for _ in shape[1:])), endpoint=True)
    lengths[0] = shape[-1]
    return np.broadcast_to(np.arange(shape[-1]) < lengths, shape)


def _readers(model: Any, name: str) -> Iterator[tuple[Any, str]]:
    """The nodes that use an input's own values, with the name they use it under."""
    values = {name}
    for node in model.graph.node:  # topologically sorted
        used = [value for value in node.input if value in values]
        for value in used:
            yield node, value
        if used and node.op_type in PASSED_ON:
            values.update(node.output)


def _table_sizes(model: Any, node: Any, value: str) -> Iterator[int]:
    """The length of the table that a node looks `value` up in."""
    if node.op_type in ("Gather", "GatherElements") and len(node.input) > 1 and node.input[1] == value:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        yield from _size(model, node.input[0], axis)
    elif node.op_type == "EmbedLayerNormalization":
        # input_ids, segment_ids, word, position and segment embeddings
        for index, table in ((0, 2), (1, 4)):
            if node.input[index] == value:
                yield from _size(model, node.input[table], 0)


def _size(model: Any, name: str, axis: int) -> Iterator[int]:
    for tensor in model.graph.initializer:
        if tensor.name == name and tensor.dims:
            yield int(tensor.dims[axis])


def _categories(node: Any) -> Iterator[str]:
    for attribute in node.attribute:
        if attribute.name in ("cats_strings", "keys_strings"):
            yield from (text.decode(errors="replace") for text in attribute.strings)


def sample(rules: Mapping[str, InputRule], count: int, seed: int) -> dict[str, Array]:
    """`count` generated requests: per input an array [count, *shape]. The same seed gives the same requests."""
    random = np.random.default_rng(seed)
    return {name: rule.generator.draw(random, rule.data_type, (count, *rule.shape)) for name, rule in rules.items()}
