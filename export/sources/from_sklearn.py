"""Import a scikit-learn estimator or pipeline that a person's function returns; its ONNX file has no ZipMap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import RecipeError
from export.graph.onnx_file import reason
from export.recipe.agreement import same
from export.recipe.recipe import Array, Arrays
from export.sources import user_code
from export.sources.base import ImportedModel
from export.sources.sklearn import converters
from export.sources.sklearn.columns import WANTED, Columns, columns
from export.sources.sklearn.graph import PREDICT, PROBABILITIES, convert

LABEL, PREDICTION = "label", "prediction"
SCORES = "decision_function"
OUTPUTS = {
    PROBABILITIES: "probabilities",
    SCORES: "scores",
    "score_samples": "sample_scores",
    "transform": "transformed",
}
"""The outputs' names by the method that they answer for, beside the first."""


def load(source: str, home: Path) -> ImportedModel:
    """Call the function and take what it returns: a fitted estimator, or (estimator, example).

    Each column becomes an input [batch, 1]: text, INT64 for whole numbers, FP32 for others, or FP64 where FP32 would
    change the answers. A table without names is one input `features`, a list of texts one input `text`.
    """
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    made = user_code.call(source, home, "--sklearn")
    estimator, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(estimator, BaseEstimator) or not hasattr(estimator, "fit"):
        raise RecipeError(
            f"{source} returned a {type(estimator).__name__}, not a scikit-learn estimator",
            remedy=converters.remedy([estimator]) or WANTED,
        )
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise RecipeError(
            f"{source} returned an estimator that is not fitted", remedy="fit it in the function"
        ) from None
    table = columns(estimator, example, source)
    answers = _Answers(estimator, _methods(estimator))
    wanted = answers.of_example(table)
    names, renamed = _names(estimator, answers.methods, table)
    graph, notes = convert(estimator, table, wanted, names)
    unserved = [method for method in answers.methods if method not in graph.methods.values()]
    if unserved:
        notes.append(f"not served: {', '.join(unserved)} (skl2onnx gives no output that answers like it)")

    def predict(arrays: Arrays) -> dict[str, Array]:
        return answers.named(graph.columns.table(arrays), graph.methods)

    def raw(room: Path) -> Path:
        import onnx

        graph.model.opset_import.sort(key=lambda opset: opset.domain)  # skl2onnx's are in a set's order
        path = room / "raw.onnx"
        onnx.save(graph.model, str(path))
        return path

    return ImportedModel(
        f"scikit-learn estimator of '{source}'",
        predict,
        raw,
        None if table.made_up else graph.columns.served,
        notes=(*table.notes, *renamed, *notes),
        labels=_labels(estimator, wanted, graph.methods),
    )


@dataclass(frozen=True)
class _Answers:
    """What an estimator answers, by method."""

    estimator: Any
    methods: tuple[str, ...]

    def of_example(self, table: Columns) -> dict[str, Array]:
        """Its answers to the rows as they were given; without a method that has none for them."""
        try:
            found = {self.methods[0]: self._predict(self.methods[0], table.given)}
        except Exception as error:  # scikit-learn's kinds
            raise RecipeError(
                f"{type(self.estimator).__name__} does not answer its example ({type(error).__name__}: "
                f"{reason(error)})",
                remedy="return the columns that it was fitted on",
            ) from error
        for method in self.methods[1:]:
            try:
                answer = self._predict(method, table.given)
            except Exception:  # a method that is there only to say why it is not
                continue
            if len(answer) == len(found[self.methods[0]]):
                found[method] = answer
        return found

    def named(self, table: Any, outputs: Mapping[str, str]) -> dict[str, Array]:
        """Its answers to a table, by the names of the outputs."""
        return {output: self._predict(method, table) for output, method in outputs.items()}

    def _predict(self, method: str, table: Any) -> Array:
        predict = getattr(self.estimator, method)
        try:
            given = predict(table)
        except ValueError:  # some, such as KMeans, take the width that they were fitted with only
            if not isinstance(table, np.ndarray) or table.dtype.kind != "f":
                raise
            given = predict(table.astype(np.float32 if table.dtype == np.float64 else np.float64))
        dense = np.asarray(given.todense() if hasattr(given, "todense") else given)
        if method == PREDICT and _classifies(self.estimator):
            return dense.astype(np.str_) if dense.dtype.kind == "O" else dense
        return dense.reshape(len(dense), -1)


def _methods(estimator: Any) -> tuple[str, ...]:
    """The methods that answer rows, the one that is served in any case first."""
    found = [method for method in (PREDICT, *OUTPUTS) if hasattr(estimator, method)]
    if found and found[0] in (PREDICT, "transform"):
        return tuple(found)
    if "transform" in found:
        return ("transform", *(method for method in found if method != "transform"))
    raise RecipeError(f"{type(estimator).__name__} has neither predict nor transform, and so no answer to serve")


def _names(estimator: Any, methods: tuple[str, ...], table: Columns) -> tuple[dict[str, str], list[str]]:
    """The outputs' names by method, and a sentence for each that is another one because a column has its name."""
    usual = {**OUTPUTS, methods[0]: LABEL if methods[0] == PREDICT and _classifies(estimator) else PREDICTION}
    names = {method: usual[method] for method in methods}
    notes = []
    for method, name in names.items():
        while names[method] in table.values:
            names[method] = f"model_{names[method]}"
        if names[method] != name:
            notes.append(f"the answers of {method} are '{names[method]}', since a column is named '{name}'")
    return names, notes


def _classifies(estimator: Any) -> bool:
    from sklearn.base import is_classifier

    return bool(is_classifier(estimator))


def _labels(estimator: Any, answers: Mapping[str, Array], served: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The class names of probabilities, and of scores, whose largest is that of the class that is predicted."""
    classes = getattr(estimator, "classes_", None)
    if not isinstance(classes, np.ndarray):  # several targets have a list of them
        return {}
    found = {}
    for output, method in served.items():
        rows = answers[method]
        if method not in (PROBABILITIES, SCORES) or rows.shape[1:] != classes.shape:
            continue
        if method == SCORES and not same(classes[rows.argmax(axis=1)], answers[PREDICT]):
            continue  # one score for each pair of classes, of which there may be as many
        found[output] = tuple(str(name) for name in classes)
    return found
