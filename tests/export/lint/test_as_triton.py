"""What the linter calls an error is what the real Triton refuses, in its own words."""

from __future__ import annotations

from pathlib import Path

import pytest
from scale_model import replace

from export.lint.lint import lint
from server import TritonServer, TritonServerError

PREPARE = """
import triton_python_backend_utils as pb_utils

PARAMETERS = {"gain"}


class TritonPythonModel:
    def execute(self, requests):
        raws = [pb_utils.get_input_tensor_by_name(request, "raw") for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("x", raw.as_numpy())]) for raw in raws]
"""

REFUSED = [
    (
        *("chain", "max_batch_size: 8", "max_batch_size: 16", "max_batch_size"),
        *("ensemble chain allows maximum batch size 16", "an ensemble that batches more than its steps"),
    ),
    (
        *("chain", '"y" data_type: TYPE_FP32 dims: [ 3 ]', '"y" data_type: TYPE_FP32 dims: [ 4 ]', "output[0]"),
        *("inconsistent shape", "an ensemble's output of another shape than the step makes"),
    ),
    (
        *("scale", "[ 4, 8 ]", "[ 4, 9 ]", "dynamic_batching.preferred_batch_size[1]"),
        *("preferred size must be <= max batch size", "a preferred size above the maximum"),
    ),
    (
        *("scale", "dims: [ 3 ] zero_data", "dims: [ 4 ] zero_data", 'model_warmup[0].inputs["x"].value.dims'),
        *("unexpected shape for input 'x'", "a warm-up of another shape than the input"),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "old", "new", "field", "words", "why"), REFUSED, ids=[row[-1] for row in REFUSED])
def test_an_error_is_what_triton_refuses(
    repository: Path, model: str, old: str, new: str, field: str, words: str, why: str
) -> None:
    (repository / "prepare" / "1" / "model.py").write_text(PREPARE)
    assert lint(repository) == []
    replace(repository / model / "config.pbtxt", old, new)

    assert field in [finding.field for finding in lint(repository) if finding.severity == "error"]
    with pytest.raises(TritonServerError, match=words), TritonServer(repository, stop_timeout_s=0):
        pytest.fail("Triton loaded it")


@pytest.mark.slow
def test_what_has_no_finding_is_what_triton_loads(repository: Path) -> None:
    (repository / "prepare" / "1" / "model.py").write_text(PREPARE)

    assert lint(repository) == []
    with TritonServer(repository, stop_timeout_s=0):
        pass
