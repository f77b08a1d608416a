"""The example of a scikit-learn estimator: as its function gave it, and as the tensors that are served."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np

from export.errors import RecipeError
from export.recipe.recipe import Array, Arrays

FEATURES, TEXT = "features", "text"
EXAMPLE_ROWS = 64
MADE_UP_ROWS = 8
WANTED = (
    "return (estimator, example), where example is a DataFrame or {column: values} of some rows, a 2-D array of "
    "numbers or texts, or the texts of a text vectorizer"
)


@dataclass(frozen=True)
class Columns:
    """Rows of a table. `values` are its tensors, with the numbers as they are; `given` is the table itself.

    A table with names has a tensor [rows, 1] for each column, one without has a single [rows, width].
    Whole numbers are INT64, others FP32, or in a `wide` table FP64 where FP32 would round them. `made_up` says that
    nobody gave them.
    """

    values: Mapping[str, Array]
    given: Any
    made_up: bool = False
    wide: bool = False
    notes: tuple[str, ...] = ()

    @cached_property
    def served(self) -> dict[str, Array]:
        """The rows as the served model takes them."""
        return {name: self._served(values) for name, values in self.values.items()}

    @property
    def widened(self) -> Columns:
        """The rows without rounding."""
        return replace(self, wide=True)

    def table(self, arrays: Arrays) -> Any:
        """The table of some rows: the person's own rows where they are theirs, else one like it."""
        keys = _keys(arrays)
        if all(key in self._rows for key in keys):
            return _taken(self.given, [self._rows[key] for key in keys])
        columns = {name: arrays[name] for name in self.values}
        if isinstance(self.given, list):
            return next(iter(columns.values())).ravel().tolist()
        if isinstance(self.given, np.ndarray):
            return _joined(list(columns.values())).astype(self.given.dtype)
        if hasattr(self.given, "tocsr"):
            return columns[FEATURES].astype(self.given.dtype)
        flat = zip(self.given.columns, columns.values(), strict=True)
        frame = type(self.given)({name: values.ravel().astype(_plain(values)) for name, values in flat})
        return frame.astype(dict(self.given.dtypes)) if hasattr(frame, "astype") else frame

    @cached_property
    def _rows(self) -> dict[Hashable, int]:
        return {key: row for row, key in reversed(list(enumerate(_keys(self.served))))}

    def _served(self, values: Array) -> Array:
        if values.dtype.kind != "f":
            return values
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float32)
        exact = np.array_equal(narrow.astype(values.dtype), values, equal_nan=True)
        return values.astype(np.float64) if self.wide and not exact else narrow


def columns(estimator: Any, example: Any, source: str) -> Columns:
    """The first rows of an example, or made-up ones where the estimator takes numbers only and there is none."""
    if example is None:
        count = getattr(estimator, "n_features_in_", None)
        if count is None or hasattr(estimator, "feature_names_in_"):
            raise RecipeError(f"{source} returned an estimator whose columns have no known types", remedy=WANTED)
        table = np.random.default_rng(0).standard_normal((MADE_UP_ROWS, count)).astype(np.float32)
        return Columns({FEATURES: table}, table.astype(np.float64), made_up=True)
    if hasattr(example, "columns") or isinstance(example, Mapping):
        found = _named(estimator, example)
    elif hasattr(example, "tocsr"):
        given = example.tocsr()[:EXAMPLE_ROWS]
        note = "the example is a sparse matrix: the served model takes its rows with their zeros"
        found = Columns({FEATURES: _tensor(FEATURES, given.toarray())}, given, notes=(note,))
    else:
        table = np.asarray(example)[:EXAMPLE_ROWS]
        if reads_texts(estimator) and table.ndim == 1:
            texts = _tensor(TEXT, table.reshape(-1, 1))
            return Columns({TEXT: texts}, texts.ravel().tolist())
        if table.ndim != 2 or (table.dtype.kind == "O" and not all(isinstance(text, str) for text in table.ravel())):
            raise RecipeError(
                f"{source} returned an example of shape {list(table.shape)}, {table.dtype}", remedy=WANTED
            )
        found = Columns({FEATURES: _tensor(FEATURES, table)}, table)
    lengths = {len(values) for values in found.values.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise RecipeError(f"{source} returned an example whose columns are empty or differ in length", remedy=WANTED)
    return found


def reads_texts(estimator: Any) -> bool:
    """Whether it begins with a text vectorizer, which takes texts in a row instead of a table."""
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[0][1]
    return hasattr(estimator, "build_analyzer")


def _named(estimator: Any, example: Any) -> Columns:
    """A DataFrame, or values by column: as a DataFrame too where the estimator was fitted on one."""
    own = list(example.columns) if hasattr(example, "columns") else list(example)
    names = [str(name) or f"column_{index}" for index, name in enumerate(own)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"two columns of the example are named '{twice[0]}'", remedy="give each its own name")
    notes = tuple(f"a column without a name is served as '{names[own.index(name)]}'" for name in own if not str(name))
    plain = [np.asarray(example[name])[:EXAMPLE_ROWS] for name in own]
    values = {name: _tensor(name, each.reshape(-1, 1)) for name, each in zip(names, plain, strict=True)}
    if hasattr(example, "columns"):
        given = _taken(example, list(range(min(len(example), EXAMPLE_ROWS))))
    elif reads_texts(estimator):
        given = plain[0].tolist()
    elif len({len(each) for each in plain}) != 1:
        given = None  # refused by the caller
    elif hasattr(estimator, "feature_names_in_"):
        given = import_module("pandas").DataFrame(dict(zip(own, plain, strict=True)))
    else:
        given = _joined([each.reshape(-1, 1) for each in plain])
    return Columns(values, given, notes=notes)


def _tensor(name: str, values: Array) -> Array:
    """Numbers or texts of a type that is served, of the same value each. Raises RecipeError for others."""
    kind = values.dtype.kind
    if kind == "O" and all(isinstance(value, int | float | np.number) for value in values.ravel()):
        values = np.array(values.tolist()).reshape(values.shape)
        kind = values.dtype.kind
    if kind in "OUST":
        if any(not isinstance(value, str) for value in values.astype(object).ravel()):
            raise RecipeError(
                f"column '{name}' holds other things than texts or numbers, or lacks some",
                remedy="give it one type, and fill what is missing",
            )
        return values.astype(np.str_)
    if kind in "iu":
        if values.size and int(values.max()) > np.iinfo(np.int64).max:
            raise RecipeError(
                f"column '{name}' holds {values.max()}, more than INT64 does", remedy="make it text or a fraction"
            )
        return values.astype(np.int64)
    if kind in "fb":
        return values
    raise RecipeError(
        f"column '{name}' is {values.dtype}, which ONNX has no column type for", remedy="make it text or a number"
    )


def _taken(table: Any, rows: Sequence[int]) -> Any:
    if hasattr(table, "iloc"):
        return table.iloc[rows]
    return [table[row] for row in rows] if isinstance(table, list) else table[rows]


def _joined(columns: Sequence[Array]) -> Array:
    """Columns side by side, as objects where some are texts."""
    if len(columns) > 1 and any(each.dtype.kind in "OUST" for each in columns):
        return np.concatenate([each.astype(object) for each in columns], axis=1)
    return np.concatenate(columns, axis=1)


def _keys(arrays: Arrays) -> list[Hashable]:
    """What distinguishes rows: their bytes, or their texts, which arrays pad to any width."""
    by_column = [
        [tuple(row) for row in values.tolist()] if values.dtype.kind in "OUS" else [row.tobytes() for row in values]
        for _, values in sorted(arrays.items())
    ]
    return list(zip(*by_column, strict=True))


def _plain(values: Array) -> Any:
    return object if values.dtype.kind == "U" else values.dtype
