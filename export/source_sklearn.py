"""A scikit-learn estimator or pipeline as a function of somebody's made it, and its ONNX file without ZipMap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from export import user_code
from export.brought import Brought
from export.errors import ExportError, RecipeError
from export.prepare import reason
from export.recipe import Array, Arrays

FEATURES, TEXT = "features", "text"
LOCALE = "C.UTF-8"
"""Of ONNX Runtime's StringNormalizer, which text vectorizers become: every Linux has it, unlike the default en_US."""
LABEL, PROBABILITIES, PREDICTION = "label", "probabilities", "prediction"
EXAMPLE_ROWS = 64
WANTED = (
    "return (estimator, example), where example is a DataFrame or {column: values} of some rows, a 2-D array of "
    "numbers, or the texts of a text vectorizer"
)


def load(source: str, home: Path) -> Brought:
    """Call the function and take what it returns: a fitted estimator, or (estimator, example).

    Each column becomes an input [batch, 1]: text, FP32 for numbers with a fraction, INT64 for whole ones. A 2-D array
    is one input `features`, a list of texts one input `text`.
    """
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    made = user_code.call(source, home, "--sklearn")
    estimator, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(estimator, BaseEstimator):
        raise RecipeError(f"{source} returned a {type(estimator).__name__}, not a scikit-learn estimator: {WANTED}")
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise RecipeError(f"{source} returned an estimator that is not fitted: fit it in the function") from None
    model = _Tabular(estimator, _columns(estimator, example, source), example is not None)
    return Brought(
        f"scikit-learn estimator of '{source}'",
        model.predict,
        model.raw,
        model.columns if example is not None else None,
    )


@dataclass(frozen=True)
class _Tabular:
    """An estimator with the columns it takes, each as an array [rows, 1] (or one array [rows, features])."""

    estimator: Any
    columns: Mapping[str, Array]
    by_example: bool

    def predict(self, arrays: Arrays) -> dict[str, Array]:
        table = self._table(arrays)
        try:
            return self._answers(table)
        except ValueError:  # some, such as KMeans, take the width that they were fitted with only
            if not isinstance(table, np.ndarray) or table.dtype.kind != "f":
                raise
            return self._answers(table.astype(np.float64))

    def _answers(self, table: Any) -> dict[str, Array]:
        if self._classifies():
            label = np.asarray(self.estimator.predict(table))
            outputs = {LABEL: label.astype(np.str_) if label.dtype.kind == "O" else label}
            if hasattr(self.estimator, "predict_proba"):
                outputs[PROBABILITIES] = np.asarray(self.estimator.predict_proba(table), np.float32)
            return outputs
        answer = getattr(self.estimator, "predict", None) or self.estimator.transform
        given = answer(table)
        dense = np.asarray(given.todense() if hasattr(given, "todense") else given)
        wide = dense.reshape(len(dense), -1)
        return {PREDICTION: wide.astype(np.float32) if wide.dtype.kind == "f" else wide}

    def raw(self, room: Path) -> Path:
        """The ONNX file."""
        import onnx

        from export.graph_edit import rename_outputs, widen

        kind = type(self.estimator).__name__
        try:
            wanted = list(self.predict({name: values[:1] for name, values in self.columns.items()}))
        except Exception as error:  # scikit-learn's kinds
            raise RecipeError(
                f"{kind} does not answer one row of its example ({type(error).__name__}: {reason(error)}): return the "
                "columns that it was fitted on"
            ) from error
        try:
            model = self._converted()
        except Exception as error:  # skl2onnx raises many kinds
            raise ExportError(
                f"skl2onnx could not convert {kind} ({type(error).__name__}: {reason(error)}): replace that step, or "
                "export the model to ONNX yourself and add the file with --onnx"
            ) from error
        given = [output.name for output in model.graph.output]
        del model.graph.output[len(wanted) :]  # scores where the estimator has no probabilities
        rename_outputs(model, dict(zip(given, wanted, strict=False)))
        flat = [each.name for each in model.graph.output if len(each.type.tensor_type.shape.dim) == 1]
        widen(model, [name for name in flat if name == PREDICTION], batched=True)
        model.opset_import.sort(key=lambda opset: opset.domain)  # skl2onnx's are in a set's order, another each process
        path = room / "raw.onnx"
        onnx.save(model, str(path))
        return path

    def _converted(self) -> Any:
        """The ONNX model that skl2onnx makes."""
        from skl2onnx import convert_sklearn

        from export.onnx_file import OPSET, quiet

        texts = {type(step): {"locale": LOCALE} for step in _steps(self.estimator) if hasattr(step, "build_analyzer")}

        def convert(options: dict[Any, Any]) -> Any:
            with quiet():
                return convert_sklearn(
                    self.estimator,
                    initial_types=[(name, _onnx_type(values)) for name, values in self.columns.items()],
                    name="estimator",  # else one by chance
                    options=options,
                    target_opset={"": OPSET, "ai.onnx.ml": 3},
                )

        if not self._classifies():
            return convert(texts)
        try:
            return convert({id(self.estimator): {"zipmap": False}, **texts})
        except NameError:  # a classifier that has no ZipMap to leave out
            return convert(texts)

    def _classifies(self) -> bool:
        from sklearn.base import is_classifier

        return bool(is_classifier(self.estimator))

    def _table(self, arrays: Arrays) -> Any:
        """The columns as the estimator was fitted: a DataFrame where it knows their names, else one array."""
        if list(self.columns) == [FEATURES]:
            return arrays[FEATURES]
        if _reads_texts(self.estimator):
            return arrays[next(iter(self.columns))].ravel()
        if hasattr(self.estimator, "feature_names_in_"):
            pandas = import_module("pandas")
            return pandas.DataFrame({name: arrays[name].ravel().astype(_plain(arrays[name])) for name in self.columns})
        if any(values.dtype.kind == "U" for values in arrays.values()):
            return np.concatenate([arrays[name].astype(object) for name in self.columns], axis=1)
        return np.concatenate([arrays[name] for name in self.columns], axis=1)


def _columns(estimator: Any, example: Any, source: str) -> dict[str, Array]:
    """The example's columns as arrays of the types they are served with."""
    if example is None:
        count = getattr(estimator, "n_features_in_", None)
        if count is None or hasattr(estimator, "feature_names_in_"):
            raise RecipeError(f"{source} returned an estimator whose columns have no known types: {WANTED}")
        return {FEATURES: np.zeros((1, count), np.float32)}
    if hasattr(example, "columns") or isinstance(example, Mapping):
        names = list(example.columns) if hasattr(example, "columns") else list(example)
        columns = {str(name): _column(str(name), np.asarray(example[name])) for name in names}
    else:
        table = np.asarray(example)
        if _reads_texts(estimator) and table.ndim == 1:
            return {TEXT: _column(TEXT, table)}
        if table.ndim != 2 or table.dtype.kind not in "iufb":
            raise RecipeError(f"{source} returned an example of shape {list(table.shape)}, {table.dtype}: {WANTED}")
        columns = {FEATURES: table.astype(np.float32)[:EXAMPLE_ROWS]}
    if not columns or len({len(values) for values in columns.values()}) != 1 or not len(next(iter(columns.values()))):
        raise RecipeError(f"{source} returned an example whose columns are empty or differ in length: {WANTED}")
    return columns


def _steps(estimator: Any) -> list[Any]:
    """The estimator and every one inside it."""
    return [estimator, *(value for value in estimator.get_params(deep=True).values() if hasattr(value, "get_params"))]


def _reads_texts(estimator: Any) -> bool:
    """Whether it begins with a text vectorizer, which takes texts in a row instead of a table."""
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[0][1]
    return hasattr(estimator, "build_analyzer")


def _column(name: str, values: Array) -> Array:
    values = values[:EXAMPLE_ROWS].reshape(-1, 1)
    if values.dtype.kind == "O" and all(isinstance(value, int | float) for value in values.ravel()):
        values = values.astype(np.float64)
    if values.dtype.kind in "OUS":
        if any(not isinstance(value, str) for value in values.astype(object).ravel()):
            raise RecipeError(f"column '{name}' holds other things than texts or numbers: give it one type")
        return values.astype(np.str_)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind == "b":
        return values
    raise RecipeError(f"column '{name}' is {values.dtype}, which ONNX has no column type for: make it text or a number")


def _onnx_type(values: Array) -> Any:
    from skl2onnx.common import data_types

    kinds = {
        "U": data_types.StringTensorType,
        "f": data_types.FloatTensorType,
        "i": data_types.Int64TensorType,
        "b": data_types.BooleanTensorType,
    }
    return kinds[values.dtype.kind]([None, values.shape[1]])


def _plain(values: Array) -> Any:
    return object if values.dtype.kind == "U" else values.dtype
