"""Sample requests for a graph: the source's own examples, else rows generated from the inputs' shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from export.added import input_generators
from export.added.input_generators import InputRule
from export.added.recipe_file import NONE
from export.command import quote
from export.errors import ContractError
from export.graph import axis_size, edit
from export.graph.signature import TRITON_TYPES
from export.recipe.recipe import Array, AxisRange
from export.sources.base import ImportedModel

SEED = 0
SIZE = 16
"""What a message suggests for an axis."""

LARGEST_REQUEST = 2**31 - 1
"""Bytes."""


class SampleRequests:
    """Sample requests for one graph. `dims` sizes its open axes, by symbol or as `input:axis`.

    A `candidate` is a way of batching, of `export.added.recipe_file`. `why_no_batch` completes the error about an axis
    without a size, `first_axis` is the size of a first axis that turned out to be no batch, `notes` are sentences for
    a person.
    """

    def __init__(self, imported: ImportedModel, model: Any, dims: Mapping[str, int]) -> None:
        self.imported = imported
        self.model = model
        self.dims = dims
        self.why_no_batch = ""
        self.first_axis: int | None = None
        self.notes: list[str] = []

    @property
    def has_open_axes(self) -> bool:
        """Whether `dims` can size an axis."""
        return any(not isinstance(size, int) for value in edit.inputs(self.model) for size in edit.shape(value) or ())

    def rules(self, candidate: str) -> dict[str, InputRule]:
        """The type, shape and generator of each input, without the batch axis.

        Raises ContractError for axes without a size, and for more bytes than a request may have.
        """
        from onnx import TensorProto

        found = {}
        unsized: dict[tuple[str, int], str | None] = {}
        for value in edit.inputs(self.model):
            kind = TRITON_TYPES[TensorProto.DataType.Name(value.type.tensor_type.elem_type)]
            sizes = []
            for axis, declared in enumerate(edit.shape(value) or ()):
                if axis == 0 and candidate != NONE:
                    continue
                size = declared if isinstance(declared, int) else self._size(value.name, axis, declared)
                if not size:
                    unsized[value.name, axis] = None if declared is None else str(declared)
                sizes.append(size or 1)
            found[value.name] = InputRule(kind, tuple(sizes), input_generators.for_input(self.model, value.name, kind))
        if unsized:
            raise self._unsized(unsized, candidate)
        size_bytes = sum(rule.bytes for rule in found.values())
        if size_bytes > LARGEST_REQUEST:
            shapes = ", ".join(f"'{name}' {list(rule.shape)}" for name, rule in found.items())
            raise ContractError(
                f"one request has {size_bytes / 1e9:.1f} GB ({shapes}), more than the 2 GB of a gRPC message",
                remedy="export the model with smaller inputs",
            )
        return found

    def rows(self, rules: Mapping[str, InputRule], *, batched: bool) -> dict[str, Array]:
        """Requests stacked on a first axis: the source's own, else generated ones."""
        if self.imported.example is None:
            return input_generators.sample(rules, row_count(rules), SEED)
        given = {name: self._given(name, rule.data_type) for name, rule in rules.items()}
        if unknown := [name for name in self.imported.example if name not in rules]:
            raise ContractError(
                f"the example has '{unknown[0]}', which is not an input of the model: it has {', '.join(rules)}",
                tensor=unknown[0],
                expected=list(rules),
            )
        return {name: self._shaped(name, rows, batched) for name, rows in given.items()}

    def probes(self, rules: Mapping[str, InputRule], count: int) -> dict[str, Array]:
        """`count` rows that differ: the example's, filled up with made-up ones where it has fewer."""
        example = self.rows(rules, batched=True)
        have = len(next(iter(example.values())))
        if have >= count:
            return {name: rows[:count] for name, rows in example.items()}
        made_up = input_generators.sample(rules, count - have, SEED)
        filled = {name: np.concatenate([rows, made_up[name]]) for name, rows in example.items()}
        try:
            self.imported.predict({name: rows[-1:] for name, rows in filled.items()})
        except Exception:  # made-up rows that the source does not take
            self.notes.append(f"the example has {have} rows: {count} or more allow a better check of batching")
            return {name: np.resize(rows, (count, *rows.shape[1:])) for name, rows in example.items()}
        return filled

    def _given(self, name: str, data_type: str) -> Array:
        """The example of one input, of the graph's type. Raises ContractError where it cannot be."""
        example = self.imported.example or {}
        if name not in example:
            raise ContractError(f"the example lacks input '{name}': it has {', '.join(example)}", tensor=name)
        rows, texts = np.asarray(example[name]), data_type == "TYPE_STRING"
        wanted = np.dtype(np.str_) if texts else input_generators.NUMPY[data_type]
        takes = rows.dtype.kind in "US" if texts else np.can_cast(rows.dtype, wanted, "same_kind")
        whole = rows.dtype.kind in "iu" and wanted.kind in "iuf"
        lacks = whole and not np.array_equal(rows.astype(wanted).astype(rows.dtype), rows)
        if lacks or not takes:
            why = f"with numbers that {wanted} cannot represent" if lacks else f"the input takes {wanted}"
            raise ContractError(
                f"the example of '{name}' is {rows.dtype}, {why}",
                remedy="use other numbers" if lacks else "convert it",
                tensor=name,
                found=rows.dtype,
                expected=wanted,
            )
        return rows.astype(wanted)

    def _shaped(self, name: str, rows: Array, batched: bool) -> Array:
        """One request a row, each of the graph's shape: axes of size 1 are added or taken away. Raises ContractError
        where that is not enough."""
        declared = self._declared(name)
        if not batched and _fits(rows.shape, declared):
            return rows[None]
        wanted = declared[1:] if batched else declared
        if _fits(rows.shape[1:], wanted):
            return rows
        sizes = [size for size in rows.shape[1:] if size != 1]
        if _fits(sizes, [size for size in wanted if size != 1]):
            filled = iter(sizes)
            return rows.reshape(len(rows), *(1 if size == 1 else next(filled) for size in wanted))
        shape = ", ".join(["rows", *(str(size or "any") for size in wanted)]) + ("" if wanted else ",")
        raise ContractError(
            f"the example of '{name}' has shape {rows.shape}",
            remedy=f"use shape ({shape})",
            tensor=name,
            found=rows.shape,
            expected=tuple(wanted),
        )

    def _declared(self, name: str) -> edit.Shape:
        return next(edit.shape(value) or () for value in edit.inputs(self.model) if value.name == name)

    def _size(self, name: str, axis: int, symbol: str | None) -> int | None:
        """How long an open axis is, where that is known: by itself, or by the axes that its name is a formula of (0
        where that makes no size)."""
        given = self._given_size(name, axis, symbol)
        return given if given is not None or symbol is None else axis_size.size(symbol, self._named_sizes())

    def _given_size(self, name: str, axis: int, symbol: str | None) -> int | None:
        words = (f"{name}:{axis}", *([symbol] if symbol else []))
        for known in (self.dims, self.imported.sizes):
            for word in words:
                if word in known:
                    return known[word]
        if name in (self.imported.example or {}):
            sizes = np.asarray((self.imported.example or {})[name]).shape
            sizes = (
                sizes[1:] if len(sizes) > len(self._declared(name)) else sizes
            )  # requests of a model without a batch axis
            if axis < len(sizes):
                return int(sizes[axis])
        return self.first_axis if axis == 0 else None

    def _named_sizes(self) -> dict[str, int]:
        """The known sizes of open axes by name."""
        found = {**self.imported.sizes, **self.dims}
        for value in edit.inputs(self.model):
            for axis, symbol in enumerate(edit.shape(value) or ()):
                if isinstance(symbol, str) and (size := self._given_size(value.name, axis, symbol)) is not None:
                    found.setdefault(symbol, size)
        return found

    def _unsized(self, unsized: Mapping[tuple[str, int], str | None], candidate: str) -> ContractError:
        """For open axes without a size; `expected` are options that give each of them one."""
        (name, axis), symbol = next(iter(unsized.items()))
        known = self._named_sizes()
        missing: dict[str, None] = {}
        for (each, index), word in unsized.items():
            parts = axis_size.parts(word or "") - known.keys()
            missing.update(dict.fromkeys(sorted(parts) or [word or f"{each}:{index}"]))
        suggested = dict.fromkeys(missing, SIZE)
        for word in filter(None, unsized.values()):  # a formula that makes no size of them, such as -x, gets its own
            if word not in suggested and axis_size.size(word, {**known, **suggested}) == 0:
                suggested[word] = SIZE
        options = " ".join(_option(key, size) for key, size in suggested.items())
        why = self.why_no_batch if axis == 0 and candidate == NONE else ""
        if symbol and axis_size.size(symbol, known) == 0:
            given = ", ".join(f"{part}={known[part]}" for part in sorted(axis_size.parts(symbol)))
            what = f"axis {axis} of input '{name}' is {symbol}, which is not a size for {given}: add {options}"
        else:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            what = f"axis {axis} of input '{name}'{more} is dynamic{why}: set its size in an example with {options}"
        return ContractError(what, field="dim", tensor=name, found=symbol, expected=options)

    def axes(self, candidate: str) -> dict[str, dict[int, AxisRange]]:
        """What an engine is built for on each open axis but the batch: from 1 to the longest known, or four times the
        example's size."""
        found: dict[str, dict[int, AxisRange]] = {}
        known = self._named_sizes()
        longest = {**{symbol: 4 * size for symbol, size in known.items()}, **self.imported.longest}
        for value in edit.inputs(self.model):
            for axis, symbol in enumerate(edit.shape(value) or ()):
                if isinstance(symbol, int) or (axis == 0 and candidate != NONE):
                    continue
                optimum = self._size(value.name, axis, symbol)
                assert optimum, "`rules` found it"
                formula = symbol if symbol and self._given_size(value.name, axis, symbol) is None else ""
                least = axis_size.size(formula, dict.fromkeys(known, 1)) or 1
                most = axis_size.size(formula, longest) if formula else longest.get(symbol or "", 4 * optimum)
                found.setdefault(value.name, {})[axis] = AxisRange(
                    min(least, optimum), optimum, max(most or 0, optimum)
                )
        return found


def unknown_dims(model: Any, dims: Mapping[str, int]) -> str | None:
    """A sentence about the first `--dim` that names no open axis of the inputs; None where each names one."""
    open_axes: list[str] = []
    for value in edit.inputs(model):
        for axis, size in enumerate(edit.shape(value) or ()):
            if not isinstance(size, int):
                open_axes += [*([size, *sorted(axis_size.parts(size))] if size else []), f"{value.name}:{axis}"]
    for name in dims:
        if name not in open_axes:
            known = ", ".join(dict.fromkeys(open_axes)) or "none"
            return f"--dim {name}={dims[name]}: no input has a dynamic axis of that name; there are {known}"
    return None


def _option(name: str, size: int) -> str:
    """A `--dim` as a shell takes it."""
    return f"--dim{'=' if name.startswith('-') else ' '}{quote(f'{name}={size}')}"


def _fits(sizes: Sequence[int], declared: Sequence[int | str | None]) -> bool:
    return len(sizes) == len(declared) and all(
        have == size or not isinstance(size, int) for have, size in zip(sizes, declared, strict=True)
    )


def row_count(rules: Mapping[str, InputRule]) -> int:
    """How many requests to generate: 64; above 250 KB 8; above 2 MB what 16 MB hold, but at least 3."""
    size = max(1, sum(rule.bytes for rule in rules.values()))
    return min(64 if size < 250_000 else 8, max(3, 16_000_000 // size))
