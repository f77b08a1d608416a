"""Precisions side by side."""

from __future__ import annotations

import numpy as np
from product_model import Product
from scale_model import Scale

from export.precision.compare import Speed, compare, typical
from export.recipe.recipe import Evaluation


def test_every_precision_is_judged_and_timed() -> None:
    steps: set[str] = set()

    rows = compare(Product(), on_progress=lambda step, *_: steps.add(step))

    assert [(row.precision, row.passed, row.gate) for row in rows] == [
        (precision, True, "passed") for precision in ("fp32", "fp16", "int8")
    ]
    distances = [row.to_fp32.max_abs for row in rows if row.to_fp32]
    assert distances[0] == 0 < distances[1] < distances[2]
    assert all(row.speed and row.speed.latency_ms.keys() == {1, 16} for row in rows)
    assert rows[2].to_json()["reduction"]["quantised"] == {"MatMul": 3}
    assert {"calibrate", "time batches of 1", "time batches of 16"} <= steps


def test_a_failed_gate_is_a_row_with_its_reason() -> None:
    rows = compare(Product(outlier=1000.0))

    assert [row.passed for row in rows] == [True, True, False]
    assert "sign_rate" in rows[2].gate
    assert "--exclude second" in rows[2].gate
    assert rows[2].speed is not None


def test_a_conversion_that_fails_is_a_row_with_its_reason() -> None:
    rows = compare(Product(calibrated=False))

    assert [(row.passed, row.failed) for row in rows] == [(True, False), (True, False), (False, True)]
    assert "calibration" in rows[2].gate
    assert rows[1].speed is not None


def test_a_precision_that_is_not_offered_says_why(scale: Scale) -> None:
    rows = compare(scale)

    assert [(row.precision, row.passed) for row in rows] == [("fp32", True), ("fp16", None), ("int8", None)]
    assert rows[2].gate == scale.why_not_reduced
    assert rows[2].to_json()["bytes"] is None


def test_a_typical_batch_is_of_median_length() -> None:
    lengths = np.array([9, 1, 5, 2, 7])
    mask = (np.arange(9) < lengths[:, None]).astype(np.int64)
    ragged = Evaluation({"mask": mask}, mask="mask")

    assert typical(ragged, 1)["mask"].sum(axis=1).tolist() == [5]
    assert sorted(typical(ragged, 3)["mask"].sum(axis=1)) == [2, 5, 7]
    assert len(typical(ragged, 16)["mask"]) == 16


def test_speed_as_a_rate() -> None:
    assert Speed({16: 8.0}).rows_per_s(16) == 2000
