"""A check's work and words grow with the configuration, not with its square."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from endless_graphs import unfolding

from export.config.config import LARGEST
from export.graph.runtime import SECONDS
from export.lint.lint import Finding, lint

ENDS = """max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
"""

REPEATED: list[tuple[Callable[[int], str], str]] = [
    (lambda n: 'parameters { key: "k" value { string_value: "v" } }\n' * n, "one parameter over and over"),
    (lambda n: "".join(f'parameters {{ key: "k{i}" value {{ }} }}\n' for i in range(n)), "many parameters"),
    (lambda n: 'input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]\n' * n, "one input over and over"),
    (lambda n: f'input [ {{ name: "z" data_type: TYPE_FP32 dims: {[0] * n} }} ]\n', "an input of many axes"),
    (lambda n: f'input [ {{ name: "z" dims: 4 reshape {{ shape: {[3] * n} }} }} ]\n', "a reshape to many axes"),
    (lambda n: f"instance_group [ {{ kind: KIND_CPU gpus: {[-1] * n} }} ]\n", "a group of many GPUs"),
    (
        lambda n: f'model_warmup {{ inputs {{ key: "{"k" * n}" value {{ dims: {[1] * n} }} }} }}\n',
        "a long name around many values",
    ),
    (
        lambda n: f'input [ {{ name: "{"k" * 2 * n}" dims: 4 }} ]\n' + 'model_warmup { name: "s" }\n' * n,
        "many samples that lack an input of a long name",
    ),
]


@pytest.mark.parametrize(("text", "why"), REPEATED, ids=[row[-1] for row in REPEATED])
def test_twice_the_configuration_is_twice_the_work(text: Callable[[int], str], why: str, tmp_path: Path) -> None:
    _effort(tmp_path / "once", text(1))  # imports what it needs
    calls, words = zip(*(_effort(tmp_path / str(n), text(n)) for n in (300, 600)), strict=True)

    assert calls[1] < 2.5 * calls[0]
    assert words[1] < 2.5 * words[0]


def test_a_configuration_of_many_megabytes_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.pbtxt").write_text("#" * (LARGEST + 1))

    assert "syntax" in {finding.rule for finding in lint(tmp_path)}


@pytest.mark.process
def test_a_graph_that_takes_too_long_to_check_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "config.pbtxt").write_text(f'backend: "onnxruntime"\n{ENDS}')
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(unfolding(40).SerializeToString())
    monkeypatch.setenv(SECONDS, "0.5")

    found = lint(tmp_path)

    assert [finding.file for finding in found if SECONDS in finding.remedy] == ["m"]


def _effort(repository: Path, text: str) -> tuple[int, int]:
    """The function calls that a check makes, C's among them, and the characters of what it says."""
    (repository / "m").mkdir(parents=True)
    (repository / "m" / "config.pbtxt").write_text(f'backend: "onnxruntime"\n{text}{ENDS}')
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event.endswith("call")

    found: list[Finding] = []
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        found = lint(repository)
    finally:
        sys.setprofile(before)
    return calls, sum(len(str(finding)) for finding in found)
