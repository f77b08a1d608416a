"""Estimators of scikit-learn: which tensors and outputs they are served with, held to what they answer as they are."""

import sys

import numpy as np
import pandas
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from export.add.add import AddOptions, add
from export.errors import AccuracyError, ContractError, ExportError, RecipeError
from export.graph.onnx_file import session
from export.sources.from_sklearn import load

RANDOM = np.random.default_rng(0)
TABLE = RANDOM.normal(size=(60, 4))
THREE = np.array(["a", "b", "c"])[np.digitize(TABLE[:, 0], [-0.4, 0.4])]
TWO = np.where(TABLE[:, 0] > 0, "yes", "no")
SECONDS = RANDOM.integers(1_700_000_000, 1_700_000_400, size=(60, 1))
IDS = 2**40 + np.arange(60)[:, None] % 7


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Load (estimator, example) as the source of an added model; gives it, and its graph's answers to its example."""
    monkeypatch.syspath_prepend(tmp_path)

    def import_made(made):
        (tmp_path / "estimated.py").write_text("made = None\n\n\ndef model():\n    return made\n")
        sys.modules.pop("estimated", None)
        import estimated

        monkeypatch.setattr(estimated, "made", made)
        source = load("estimated:model", tmp_path)
        answered = session(source.raw(tmp_path))
        return source, answered(source.example) if source.example else answered

    yield import_made
    sys.modules.pop("estimated", None)


def linear(table, target):
    return make_pipeline(StandardScaler(), LinearRegression()).fit(table, target)


CLOSE = (1 + np.arange(60) * 1e-9)[:, None]
MIXED = {"t": SECONDS[:, 0], "v": TABLE[:, 0], "on": TABLE[:, 1] > 0}
NUMBERS = [
    (SECONDS, SECONDS, np.int64, "seconds of a clock, which FP32 rounds by 64"),
    (SECONDS.astype(float), SECONDS, np.float64, "the same seconds with a fraction"),
    (SECONDS.astype(np.uint32), SECONDS, np.int64, "the same seconds without a sign"),
    (CLOSE, np.arange(60)[:, None], np.float64, "fractions closer than FP32 tells apart"),
    (TABLE, TABLE, np.float32, "fractions that FP32 holds well enough"),
    (TABLE.astype(np.float16), TABLE, np.float32, "fractions of 16 bits"),
]


@pytest.mark.parametrize(("table", "target", "kind", "why"), NUMBERS, ids=[row[-1] for row in NUMBERS])
def test_numbers_are_served_so_that_the_estimators_answers_stay(table, target, kind, why, imported):
    wanted = target[:, 0] - float(target[0, 0])
    estimator = linear(table, wanted)
    source, given = imported((estimator, table))
    assert source.example["features"].dtype == kind
    assert np.abs(given["prediction"].ravel() - estimator.predict(table)).max() <= 1e-3 * np.abs(wanted).max()


def test_identifiers_beyond_24_bits_are_kept_apart(imported):
    estimator = make_pipeline(OneHotEncoder(), LinearRegression()).fit(IDS, IDS[:, 0] % 7)
    _, given = imported((estimator, IDS))
    assert given["prediction"].ravel() == pytest.approx(estimator.predict(IDS), abs=1e-4)


def test_a_graph_that_answers_otherwise_is_refused_by_how_much(imported):
    """Trees that split between doubles of the same FP32, which thresholds of a graph are rounded to."""
    estimator = HistGradientBoostingRegressor(min_samples_leaf=1, max_iter=5).fit(CLOSE, np.arange(60.0))
    with pytest.raises(AccuracyError) as refused:
        imported((estimator, CLOSE))
    assert "'prediction'" in str(refused.value)


def test_the_source_answers_the_rows_as_they_were_given(imported):
    estimator = LinearRegression().fit(TABLE, TABLE[:, 0] / 3)
    source, _ = imported((estimator, TABLE))
    answered = source.predict(source.example)["prediction"].ravel()
    rounded = estimator.predict(TABLE.astype(np.float32).astype(np.float64))
    assert answered.tolist() == estimator.predict(TABLE).tolist()
    assert answered.tolist() != rounded.tolist()


def test_rows_that_are_not_the_examples_are_answered_too(imported):
    estimator = LinearRegression().fit(TABLE, TABLE[:, 0])
    source, _ = imported((estimator, TABLE))
    other = RANDOM.normal(size=(2, 4)).astype(np.float32)
    assert source.predict({"features": other})["prediction"].ravel() == pytest.approx(estimator.predict(other))


def test_columns_of_every_type_go_into_one_table(imported):
    """An estimator without a ColumnTransformer takes one table."""
    joined = np.column_stack([np.asarray(values, float) for values in MIXED.values()])
    estimator = linear(joined, SECONDS[:, 0] - 1.7e9)
    source, given = imported((estimator, MIXED))
    kinds = {name: values.dtype for name, values in source.example.items()}
    assert kinds == {"t": np.int64, "v": np.float64, "on": np.bool_}
    assert given["prediction"].ravel() == pytest.approx(estimator.predict(joined), abs=0.1)


def test_another_example_that_fp32_would_change_is_refused(imported, tmp_path, monkeypatch):
    imported(linear(SECONDS, SECONDS[:, 0] - 1.7e9))  # without an example of its own, and so FP32
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_repository").mkdir()
    for rows, passes in ((SECONDS / 1.0, False), (1.7e9 + 128.0 * np.arange(-8, 8)[:, None], True)):
        np.savez(tmp_path / "rows.npz", features=rows)
        options = AddOptions("sklearn", "estimated:model", example=tmp_path / "rows.npz")
        if passes:
            add("mine", options, tmp_path / "model_repository")
        else:
            with pytest.raises(ContractError):
                add("mine", options, tmp_path / "model_repository")


def test_targets_that_fp32_rounds_are_served_as_doubles(imported):
    estimator = LinearRegression().fit(TABLE, 1.7e9 + 100 * TABLE[:, 0])
    _, given = imported((estimator, TABLE))
    assert given["prediction"].ravel() == pytest.approx(estimator.predict(TABLE), rel=0, abs=0.1)


NAMES = [
    (("Monthly Fee", "Monthly_Fee", "größe", "1st", "a.b", "x/y"), "prediction", 0, "signs that skl2onnx changes"),
    (("label", "prediction"), "model_prediction", 1, "the name of the output"),
    (("", "q"), "prediction", 1, "no name"),
]


@pytest.mark.parametrize(("names", "output", "notes", "why"), NAMES, ids=[row[-1] for row in NAMES])
def test_columns_keep_their_names(names, output, notes, why, imported):
    table = TABLE[:, [0, 1, 2, 3, 0, 1][: len(names)]]
    estimator = LinearRegression().fit(table, TABLE[:, 0])
    source, given = imported((estimator, {name: table[:, index] for index, name in enumerate(names)}))
    assert tuple(source.example) == tuple(name or "column_0" for name in names)
    assert given[output].ravel() == pytest.approx(estimator.predict(table), abs=1e-4)
    assert len(source.notes) == notes


def test_names_reach_a_step_that_goes_by_them(imported):
    frame = pandas.DataFrame({"Monthly Fee": TABLE[:, 0], "plan": list("ab") * 30})
    columns = ColumnTransformer([("n", StandardScaler(), ["Monthly Fee"]), ("o", OneHotEncoder(), ["plan"])])
    estimator = make_pipeline(columns, LogisticRegression()).fit(frame, TWO)
    source, given = imported((estimator, frame))
    assert list(source.example) == ["Monthly Fee", "plan"]
    assert given["label"].tolist() == estimator.predict(frame).tolist()


OUTPUTS = [
    (SVC(), TWO, {"label": "predict", "scores": "decision_function"}, {}, "one score for two classes"),
    (SVC(), THREE, {"label": "predict", "scores": "decision_function"}, {"scores"}, "a score for each class"),
    (SVC(decision_function_shape="ovo"), THREE, {"label": "predict", "scores": "decision_function"}, {}, "of pairs"),
    (LinearSVC(), THREE, {"label": "predict", "scores": "decision_function"}, {"scores"}, "linear scores"),
    (LogisticRegression(), THREE, {"label": "predict", "probabilities": "predict_proba"}, {"probabilities"}, "shares"),
    (
        IsolationForest(n_estimators=5, random_state=0),
        None,
        {"prediction": "predict", "scores": "decision_function"},
        {},
        "outliers",
    ),
    (
        make_pipeline(StandardScaler(), SVC()),
        TWO,
        {"label": "predict", "scores": "decision_function"},
        {},
        "a pipeline's",
    ),
]


@pytest.mark.parametrize(("kind", "target", "outputs", "labelled", "why"), OUTPUTS, ids=[row[-1] for row in OUTPUTS])
def test_scores_are_served_and_classes_named(kind, target, outputs, labelled, why, imported):
    estimator = kind.fit(TABLE, target)
    source, given = imported((estimator, TABLE))
    assert given.keys() == outputs.keys()
    for output, method in outputs.items():
        wanted = getattr(estimator, method)(TABLE)
        if wanted.dtype.kind == "f":
            assert given[output].reshape(wanted.shape) == pytest.approx(wanted, abs=1e-4)
        else:
            assert given[output].ravel().tolist() == wanted.ravel().tolist()
    assert source.labels == dict.fromkeys(labelled, ("a", "b", "c"))


def test_answers_without_an_output_are_named(imported):
    several = MultiOutputClassifier(LogisticRegression()).fit(TABLE, np.column_stack([TWO, THREE]))
    source, given = imported((several, TABLE))
    assert list(given) == ["label"]
    assert given["label"].tolist() == several.predict(TABLE).tolist()
    assert [note for note in source.notes if "predict_proba" in note]


def test_a_sparse_example_is_served_with_its_zeros(imported):
    table = sparse.csr_matrix(np.where(np.abs(TABLE) > 1, TABLE, 0))
    estimator = LogisticRegression().fit(table, TWO)
    source, given = imported((estimator, table))
    assert source.example["features"].shape == (60, 4)
    assert given["label"].tolist() == estimator.predict(table).tolist()


def test_texts_may_come_as_a_table_of_any_width(imported):
    table = np.array(["basic", "a plan with a long name", "x"] * 20)[:, None]
    estimator = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table, THREE)
    _, given = imported((estimator, table))
    assert given["label"].tolist() == estimator.predict(table).tolist()


def test_missing_numbers_stay_missing(imported):
    table = np.where(np.abs(TABLE) > 1.5, np.nan, TABLE)
    estimator = HistGradientBoostingClassifier(max_iter=5).fit(table, TWO)
    source, given = imported((estimator, table))
    assert np.isnan(source.example["features"]).any()
    assert given["label"].tolist() == estimator.predict(table).tolist()


def regression(example):
    return LinearRegression().fit(TABLE, TABLE[:, 0]), example


REFUSED = [
    (lambda: regression({"a": np.arange("2020-01", "2020-05", dtype="M8[M]")}), RecipeError, "'a'", "dates"),
    (lambda: regression({"a": ["x", None]}), RecipeError, "'a'", "a text that is missing"),
    (lambda: regression(np.full((2, 4), 2**64 - 1, np.uint64)), RecipeError, str(2**64 - 1), "numbers beyond INT64"),
    (lambda: regression({1: [1.0], "1": [2.0]}), RecipeError, "'1'", "two columns of a name"),
    (lambda: regression(TABLE[:, :3]), RecipeError, "3", "fewer columns than it was fitted on"),
    (lambda: (StandardScaler().fit(TABLE), TABLE[0]), RecipeError, "[4]", "a row instead of a table"),
    (BaseEstimator, RecipeError, "BaseEstimator", "an estimator without fit"),
    (lambda: (DummyRegressor().fit(TABLE, TABLE[:, 0]), TABLE), ExportError, "DummyRegressor", "no converter"),
]


@pytest.mark.parametrize(("made", "kind", "named", "why"), REFUSED, ids=[row[-1] for row in REFUSED])
def test_what_cannot_be_served_is_refused(made, kind, named, why, imported):
    with pytest.raises(kind) as refused:
        imported(made())
    assert named in str(refused.value)


def test_a_forest_of_whole_numbers_takes_them_as_they_are(imported):
    table = RANDOM.integers(0, 9, size=(60, 2)).astype(np.int32)
    estimator = RandomForestClassifier(5, random_state=0).fit(table, table[:, 0] > 4)
    source, given = imported((estimator, table))
    assert source.example["features"].dtype == np.int64
    assert given["probabilities"] == pytest.approx(estimator.predict_proba(table), abs=1e-5)
    assert source.labels == {"probabilities": ("False", "True")}


def test_without_an_example_columns_are_fractions(imported):
    source, answered = imported(LinearRegression().fit(TABLE, TABLE[:, 0]))
    assert source.example is None
    given = answered({"features": TABLE.astype(np.float32)})["prediction"]
    assert given.ravel() == pytest.approx(TABLE[:, 0], abs=1e-4)
