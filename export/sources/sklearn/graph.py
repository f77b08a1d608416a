"""The ONNX graph of a scikit-learn estimator: its arithmetic and its outputs go by the answers to the example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.errors import AccuracyError, ExportError
from export.graph import edit, interface
from export.graph.onnx_file import OPSET, quiet, reason, session
from export.recipe.agreement import RELATIVE_TOLERANCE, extent, same
from export.recipe.recipe import Array
from export.sources.sklearn import converters
from export.sources.sklearn.columns import Columns

LOCALE = "C.UTF-8"
"""Of ONNX Runtime's StringNormalizer, which text vectorizers become: every Linux has it, unlike the default en_US."""
OWN, FLOAT, DOUBLE = "own types", "FP32", "FP64"
"""What a graph computes in: what skl2onnx chooses by the columns' types, or all numbers cast to FP32 or FP64."""

PREDICT, PROBABILITIES = "predict", "predict_proba"

Answers = Mapping[str, Array]
"""The estimator's answers to the example by method; the first is the one that is always served."""


@dataclass(frozen=True)
class Graph:
    """A converted estimator. `methods` says, by output, which method of the estimator it answers for.

    `arithmetic` is what it computes in. `wrong` says of outputs that answer the example otherwise than the estimator by
    how much; `spare` are outputs that no method answers for, which were cut off.
    """

    model: Any
    arithmetic: str
    columns: Columns
    methods: Mapping[str, str]
    wrong: Mapping[str, float]
    spare: tuple[str, ...]


def convert(estimator: Any, columns: Columns, answers: Answers, names: Mapping[str, str]) -> tuple[Graph, list[str]]:
    """The first graph that answers the example as the estimator does, and notes about it.

    `names` are the outputs' by method. Raises ExportError where skl2onnx makes none, AccuracyError where none does.
    """
    made: list[Graph] = []
    failure: Exception | None = None
    for arithmetic, joined in _ways(columns):
        try:
            graph = _graph(estimator, columns, answers, names, arithmetic, joined)
        except Exception as error:  # skl2onnx raises many kinds, and ONNX Runtime for what it made
            failure = failure or error
            continue
        made.append(graph)
        if not graph.wrong and not graph.spare:
            break
    if not made:
        raise ExportError(
            f"skl2onnx could not convert {type(estimator).__name__} ({type(failure).__name__}: "
            f"{reason(failure or Exception())})",
            remedy=converters.remedy(_steps(estimator))
            or "replace that step, or export the model to ONNX yourself and add the file with --onnx",
        ) from failure
    first = made[0]
    best = min(made, key=lambda graph: (len(graph.wrong), len(graph.spare)))  # of equals, the first
    if best.wrong:
        off = " and ".join(f"'{name}' by up to {most:.3g}" for name, most in best.wrong.items())
        raise AccuracyError(
            f"the graph that skl2onnx makes of {type(estimator).__name__} answers the example otherwise, in FP64 too "
            f"({off})",
            remedy="replace the step that it does not convert rightly",
        )
    return best, list(_notes(first, best))


def _ways(columns: Columns) -> Iterator[tuple[str, bool]]:
    """The arithmetic to try, and whether columns come as one table: most estimators take no others, a pipeline that
    picks columns by name needs them apart."""
    kinds = {values.dtype.kind for values in columns.values.values()}
    whole = kinds & {"i", "b"}
    for arithmetic in (OWN, FLOAT, DOUBLE) if whole else (OWN, DOUBLE):
        yield arithmetic, False
    if len(columns.values) > 1 and (kinds == {"U"} or "U" not in kinds):
        for arithmetic in (FLOAT, DOUBLE):
            yield arithmetic, True


def _notes(first: Graph, best: Graph) -> Iterator[str]:
    if best is not first:
        otherwise = "in FP32" if best.arithmetic == DOUBLE else "as they come"
        worse = [f"'{name}' would be off by up to {most:.3g}" for name, most in first.wrong.items()]
        worse += [f"'{name}' would not be served" for name in first.methods.keys() ^ best.methods.keys()]
        yield f"its numbers are computed in {best.arithmetic}: {otherwise} {' and '.join(worse)}"
    for name in best.spare:
        yield f"skl2onnx's output '{name}' is not served: it is none of the estimator's answers to the example"


def _graph(
    estimator: Any, columns: Columns, answers: Answers, names: Mapping[str, str], arithmetic: str, joined: bool
) -> Graph:
    from onnx import TensorProto

    if arithmetic == DOUBLE:
        columns = columns.widened
    types = [(name, _onnx_type(values, arithmetic)) for name, values in columns.served.items()]
    if joined:
        types[0][1].shape = [None, len(types)]
        model = _converted(estimator, types[:1])
        interface.split_input(model, list(columns.served))
    else:
        model = _converted(estimator, types)
        inputs = [each.name for each in model.graph.input]
        interface.rename_inputs(model, dict(zip(inputs, columns.served, strict=True)))
    interface.cast_inputs(model, {name: _element(values.dtype) for name, values in columns.served.items()})
    if all(
        not _off(each.astype(np.float32), each, method) for method, each in answers.items() if each.dtype.kind == "f"
    ):
        interface.cast_outputs(model, TensorProto.DOUBLE, TensorProto.FLOAT)
    answered = session(model.SerializeToString())(columns.served)
    left = dict(answers)
    first = next(iter(left))
    given = [output.name for output in model.graph.output]
    chosen: dict[str, tuple[str, int | None]] = {given[0]: (first, None)}
    del left[first]
    for name in given[1:]:
        if found := _method(answered[name], left):
            chosen[name] = found
            del left[found[0]]
    if PROBABILITIES in left and len(given) == 2 and len(chosen) == 1 and isinstance(answered[given[1]], np.ndarray):
        chosen[given[1]] = (PROBABILITIES, None)  # other ones than the estimator's, so that the graph is wrong
    spare = tuple(name for name in given if name not in chosen)
    _serve(model, chosen, names, answers)
    methods = {names[method]: method for method, _ in chosen.values()}
    final = session(model.SerializeToString())(columns.served)
    wrong = {name: _off(final[name], answers[method], method) for name, method in methods.items()}
    return Graph(model, arithmetic, columns, methods, {name: most for name, most in wrong.items() if most}, spare)


def _serve(
    model: Any, chosen: Mapping[str, tuple[str, int | None]], names: Mapping[str, str], answers: Answers
) -> None:
    """Leave the chosen outputs, each with its name, its column and the shape and type of the method's answers."""
    kept = [output for output in model.graph.output if output.name in chosen]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    interface.rename_outputs(model, {name: names[method] for name, (method, _) in chosen.items()})
    columns = {names[method]: column for method, column in chosen.values() if column is not None}
    interface.take_columns(model, columns)
    ranks = {names[method]: answers[method].ndim for method, _ in chosen.values()}
    flat = [each.name for each in model.graph.output if len(each.type.tensor_type.shape.dim) == 1]
    edit.widen(model, [name for name in flat if ranks[name] > 1], batched=True)


def _method(given: Any, answers: Answers) -> tuple[str, int | None] | None:
    """The method whose answers an output has, and the column that has them, where it has more."""
    if not isinstance(given, np.ndarray) or given.dtype.kind != "f":
        return None
    flat = given.reshape(len(given), -1)
    for method, wanted in answers.items():
        if not _off(flat, wanted, method):
            return method, None
    for method, wanted in answers.items():
        if wanted.shape[1:] == (1,):
            for column in range(flat.shape[1]):
                if not _off(flat[:, column : column + 1], wanted, method):
                    return method, column
    return None


def _off(given: Array, wanted: Array, method: str) -> float:
    """0 where answers agree, else by how much they differ; 1 of texts, NaN of shapes.

    Numbers may be off by what FP32 arithmetic in another order costs, as a part of the range of the answers: of each
    target of a regressor by itself.
    """
    given, wanted = given.reshape(len(given), -1), wanted.reshape(len(wanted), -1)
    if given.shape != wanted.shape:
        return float("nan")
    if wanted.dtype.kind not in "iufb":
        return float(not same(given, wanted))
    difference = np.abs(given.astype(np.float64) - wanted.astype(np.float64))
    if wanted.dtype.kind == "f":
        extents = extent(wanted) if method == PREDICT else extent(wanted).max()
        difference = np.where(np.isnan(given) & np.isnan(wanted), 0.0, difference)
        if (difference <= RELATIVE_TOLERANCE * extents).all():
            return 0.0
    return float(difference.max())


def _converted(estimator: Any, types: list[tuple[str, Any]]) -> Any:
    from skl2onnx import convert_sklearn
    from sklearn.base import is_classifier

    texts = {type(step): {"locale": LOCALE} for step in _steps(estimator) if hasattr(step, "build_analyzer")}

    def make(options: dict[Any, Any]) -> Any:
        with quiet():
            return convert_sklearn(
                estimator,
                initial_types=types,
                name="estimator",  # else one by chance
                options=options,
                target_opset={"": OPSET, "ai.onnx.ml": 3},
            )

    if not is_classifier(estimator):
        return make(texts)
    try:
        return make({id(estimator): {"zipmap": False}, **texts})
    except NameError:  # a classifier that has no ZipMap to leave out
        return make(texts)


def _steps(estimator: Any) -> list[Any]:
    """The estimator and every one inside it."""
    return [estimator, *(value for value in estimator.get_params(deep=True).values() if hasattr(value, "get_params"))]


def _onnx_type(values: Array, arithmetic: str) -> Any:
    from skl2onnx.common import data_types

    kinds = {
        "U": data_types.StringTensorType,
        "f": data_types.FloatTensorType,
        "i": data_types.Int64TensorType,
        "b": data_types.BooleanTensorType,
    }
    if arithmetic != OWN:
        number = data_types.FloatTensorType if arithmetic == FLOAT else data_types.DoubleTensorType
        kinds |= {"f": number, "i": number, "b": number}
    return kinds[values.dtype.kind]([None, values.shape[1]])


def _element(dtype: Any) -> int:
    """The ONNX element type of a served tensor."""
    from onnx import TensorProto, helper

    return TensorProto.STRING if dtype.kind == "U" else int(helper.np_dtype_to_tensor_dtype(dtype))
