"""Accuracy and parity of stations."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from scale_model import Scale

from export.command import fathom
from export.errors import AccuracyError, ExportError, RecipeError
from export.recipe.gate import gate
from export.recipe.measure import Measurement, Parity, Reference, measure, parity
from export.recipe.recipe import Evaluation, answers

ROWS = {"y": np.array([[3.0, 4.0], [0.0, 2.0]], np.float32)}

PARITIES = [
    ([[3.0, 4.0], [0.0, 2.0]], Parity(0.0, 0.0, 1.0), "the same"),
    ([[3.0, 4.5], [0.0, 2.0]], Parity(0.5, 0.125, 27 / (5 * np.hypot(3, 4.5))), "one number off"),
    ([[-3.0, -4.0], [0.0, 2.0]], Parity(8.0, 2.0, -1.0), "a row turned round"),
    ([[3.0, 4.0], [0.0, 0.0]], Parity(2.0, 0.5, 0.0), "a row lost"),
]


@pytest.mark.parametrize(("given", "expected", "why"), PARITIES, ids=[row[-1] for row in PARITIES])
def test_parity(given: list[list[float]], expected: Parity, why: str) -> None:
    found = parity({"y": np.array(given)}, ROWS)

    assert found.max_abs == pytest.approx(expected.max_abs)
    assert found.max_relative == pytest.approx(expected.max_relative)
    assert found.min_cosine == pytest.approx(expected.min_cosine)


def test_the_cosine_of_single_numbers_is_that_of_the_column() -> None:
    one = parity({"p": np.array([[0.1], [0.9]])}, {"p": np.array([[0.9], [0.1]])})

    assert one.min_cosine == pytest.approx(0.18 / 0.82)


UNCOMPARABLE = [
    ({"z": ROWS["y"]}, ["z"], None, "an output is missing"),
    ({"y": ROWS["y"][:1]}, (1, 2), (2, 2), "a row is missing"),
    ({"y": ROWS["y"] * np.nan}, pytest.approx(np.nan, nan_ok=True), None, "a NaN is never close to anything"),
]


@pytest.mark.parametrize(("given", "found", "expected", "why"), UNCOMPARABLE, ids=[row[-1] for row in UNCOMPARABLE])
def test_outputs_that_cannot_be_compared(
    given: dict[str, np.ndarray], found: object, expected: object, why: str
) -> None:
    with pytest.raises(ExportError) as caught:
        parity(given, ROWS)
    assert (caught.value.tensor, caught.value.found, caught.value.expected) == ("y", found, expected)


def test_a_station_that_answers_another_number_of_rows_is_an_error() -> None:
    with pytest.raises(ExportError) as caught:
        answers(lambda arrays: {"y": arrays["x"][:1]}, Evaluation({"x": np.zeros((2, 1))}))
    assert (caught.value.tensor, caught.value.found, caught.value.expected) == ("y", 1, 2)


def test_a_reference_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "m" / "1" / "reference.npz"
    path.parent.mkdir(parents=True)
    written = Reference(Evaluation({"x": np.arange(6).reshape(3, 2)}, {"truth": np.array([1, 2])}, mask="x"), ROWS)

    written.write(path)
    again = Reference.read(path)

    assert again.evaluation.mask == "x"
    for before, after in (
        (written.evaluation.inputs, again.evaluation.inputs),
        (written.evaluation.truth, again.evaluation.truth),
        (written.outputs, again.outputs),
    ):
        assert before.keys() == after.keys()
        assert all((before[name] == after[name]).all() and before[name].dtype == after[name].dtype for name in before)


def test_raw_requests_come_back_byte_for_byte(tmp_path: Path) -> None:
    """Encoded files among them: bytes that are no text, and that end with zeros."""
    requests = {"image": np.array([[b"\xff\xd8\0"], [b""]], object), "id": np.array([[1], [2**40]])}
    Reference(Evaluation({"x": ROWS["y"]}, requests=requests), ROWS).write(tmp_path / "reference.npz")

    read = Reference.read(tmp_path / "reference.npz").evaluation.requests

    assert {name: values.tolist() for name, values in read.items()} == {
        name: values.tolist() for name, values in requests.items()
    }


def test_outputs_that_score_alone_judges_are_not_compared() -> None:
    given = {**ROWS, "ids": np.array([9, 9])}

    assert parity(given, {**ROWS, "ids": np.array([1, 2])}, {"ids"}).max_abs == 0


def test_a_missing_and_a_broken_reference_say_what_to_run(tmp_path: Path) -> None:
    path = tmp_path / "scale" / "1" / "reference.npz"
    with pytest.raises(RecipeError) as caught:
        Reference.read(path)
    assert caught.value.file == str(path)
    assert f"`{fathom('export', 'scale', repository=tmp_path)}`" in str(caught.value.remedy)

    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(RecipeError) as caught:
        Reference.read(path)
    assert caught.value.file == str(path)
    assert f"`{fathom('export', 'scale', '--force', repository=tmp_path)}`" in str(caught.value.remedy)


def test_a_station_is_judged_by_truth_and_by_distance(scale: Scale) -> None:
    evaluation = scale.evaluation()
    reference = Reference(evaluation, {"y": evaluation.inputs["x"] * 2})

    found = measure(scale, lambda arrays: {"y": np.where(arrays["x"] == 0, 0.5, arrays["x"] * 2)}, reference, batch=3)

    assert found.accuracy == {"hit_rate": 0.9}
    assert found.parity is not None
    assert found.parity.max_abs == 0.5
    assert Measurement.from_json(found.to_json()) == found


def test_a_pipeline_gets_its_raw_requests_and_is_judged_by_the_same_rows(scale: Scale) -> None:
    reference = Reference(scale.evaluation(), {"y": scale.evaluation().inputs["x"] * 2})
    raw = Evaluation({"halved": scale.evaluation().inputs["x"] / 2})

    measured = measure(scale, lambda arrays: {"y": arrays["halved"] * 4}, reference, requests=raw)

    assert measured.accuracy == {"hit_rate": 1.0}


GATES = [
    (0.9, Parity(0, 0, 1), None, None, None, "a loss within the tolerance passes"),
    (0.89, Parity(0, 0, 1), "hit_rate", 0.11, 0.1, "accuracy"),
    (1.0, Parity(1e-3, 0, 1), "max_abs", 1e-3, 1e-6, "distance"),
    (1.0, Parity(0, 0, 0.9), "min_cosine", 0.9, Scale.tolerance.min_cosine, "direction"),
    (float("nan"), Parity(0, 0, 1), "hit_rate", float("nan"), 0.1, "a NaN never passes"),
]


@pytest.mark.parametrize(("rate", "distance", "field", "found", "expected", "why"), GATES, ids=[r[-1] for r in GATES])
def test_the_gate(
    scale: Scale,
    rate: float,
    distance: Parity,
    field: str | None,
    found: float | None,
    expected: float | None,
    why: str,
) -> None:
    source, measured = Measurement({"hit_rate": 1.0}), Measurement({"hit_rate": rate}, distance)

    if field is None:
        gate(scale, "onnx", source, measured)
        return
    with pytest.raises(AccuracyError) as caught:
        gate(scale, "onnx", source, measured)
    assert caught.value.field == field
    assert caught.value.found == pytest.approx(found, nan_ok=True)
    assert caught.value.expected == pytest.approx(expected)


def test_a_reference_on_a_full_disk_is_one_error() -> None:
    """And no second one of an archive that was left open, which pytest would report here."""
    with pytest.raises(OSError, match="space"):
        Reference(Evaluation({"x": ROWS["y"]}, {}), ROWS).write(Path("/dev/full"))
    gc.collect()
