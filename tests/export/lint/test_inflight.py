"""`ensemble_scheduling.max_inflight_requests`: advised where it exists, refused where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.lint import inflight
from export.lint.lint import lint

STEP = 'backend: "python" max_batch_size: 8'
DECOUPLED = STEP + " model_transaction_policy { decoupled: true }"
ENSEMBLE = """platform: "ensemble" max_batch_size: 8 ensemble_scheduling { %s
step [ { model_name: "first" model_version: -1
         input_map { key: "a" value: "in" } output_map { key: "b" value: "between" } },
       { model_name: "second" model_version: -1
         input_map { key: "c" value: "between" } output_map { key: "d" value: "out" } } ] }"""
BOUND = "max_inflight_requests: 16"
STEP_FIELD = "ensemble_scheduling.step[0]"


@pytest.mark.parametrize(
    ("first", "second", "main", "named", "tag", "expected"),
    [
        pytest.param(DECOUPLED, STEP, "", None, "26.08-py3", [("warning", STEP_FIELD)], id="advised"),
        pytest.param(DECOUPLED, STEP, "", None, "26.03", [], id="not yet available"),
        pytest.param(DECOUPLED, STEP, "", None, None, [], id="the release is not known"),
        pytest.param(STEP, STEP, "", None, "26.08", [], id="one answer a request: callers bound it"),
        pytest.param(STEP, DECOUPLED, "", None, "26.08", [], id="the last step: nobody waits for it"),
        pytest.param(DECOUPLED, STEP, "", BOUND, "26.08", [], id="the named configuration has it"),
        pytest.param(
            DECOUPLED, STEP, BOUND, None, "26.08", [("warning", inflight.FIELD)], id="the embedded Triton refuses it"
        ),
        pytest.param(DECOUPLED, STEP, BOUND, None, "26.03", [("error", inflight.FIELD)], id="the release refuses it"),
        pytest.param(
            DECOUPLED, STEP, "", BOUND, "25.12-py3", [("error", inflight.FIELD)], id="the release refuses the named one"
        ),
    ],
)
def test_the_bound_between_steps(
    tmp_path: Path,
    first: str,
    second: str,
    main: str,
    named: str | None,
    tag: str | None,
    expected: list[tuple[str, str]],
) -> None:
    texts = {"first": first, "second": second, "both": ENSEMBLE % main}
    for name, text in texts.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "config.pbtxt").write_text(text)
    if named is not None:
        (tmp_path / "both" / "configs").mkdir()
        (tmp_path / "both" / "configs" / "gpu.pbtxt").write_text(ENSEMBLE % named)
    found = [
        (each.severity, each.field)
        for each in lint(tmp_path, ["both"], triton_tag=tag)
        if each.field in (STEP_FIELD, inflight.FIELD) and ("decoupled" in each.message or each.field == inflight.FIELD)
    ]
    assert found == expected
