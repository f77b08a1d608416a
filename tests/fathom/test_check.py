"""`fathom check`: its exit status, and what a program reads of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_models import DOUBLE_CONFIG, write_double

from fathom import cli

BROKEN = DOUBLE_CONFIG.replace("max_batch_size: 8", "max_batch_size: -1")
QUEUE = ("queue", "dynamic_batching.default_queue_policy", 6)
SIZE = ("max-batch-size", "max_batch_size", 3)


@pytest.mark.parametrize(
    ("config", "words", "status", "finding"),
    [
        pytest.param(DOUBLE_CONFIG, [], 0, QUEUE, id="advice is no failure"),
        pytest.param(DOUBLE_CONFIG, ["--strict"], 1, QUEUE, id="advice is a failure where it is asked for"),
        pytest.param(BROKEN, [], 1, SIZE, id="what Triton refuses is a failure"),
    ],
)
def test_the_exit_status(
    config: str,
    words: list[str],
    status: int,
    finding: tuple[str, str, int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_double(tmp_path / "double", config)

    assert cli.main(["check", "--model-repository", str(tmp_path), "--json", *words]) == status

    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is (status == 0)
    assert finding in {(each["rule"], each["field"], each["line"]) for each in told["findings"]}


ENSEMBLE = """platform: "ensemble"
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1, 2 ] } ]
ensemble_scheduling { step [ {
  model_name: "double" model_version: -1 input_map { key: "x" value: "x" } output_map { key: "y" value: "y" }
} ] }
"""


@pytest.mark.parametrize("left", [None, "", "manifest.json"], ids=["no folder", "an empty folder", "a lost file"])
@pytest.mark.parametrize("recipe", [True, False], ids=["added", "without a recipe"])
def test_a_model_that_waits_for_its_export_is_no_error_unless_it_is_named(
    left: str | None, recipe: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (version := write_double(tmp_path / "double") / "1" / "model.onnx").unlink()
    if left is None:
        version.parent.rmdir()
    elif left:
        (version.parent / left).write_text("{}")
    if recipe:
        (tmp_path / "double" / "recipe.toml").touch()
    waits = recipe and not left

    for words, expected in ([], not waits), (["double"], True):
        status = cli.main(["check", *words, "--model-repository", str(tmp_path), "--json"])
        told = json.loads(capsys.readouterr().out)
        errors = [each for each in told["findings"] if each["severity"] == "error"]
        assert (status, bool(errors)) == (int(expected), expected)
        assert told["not_exported"] == (["double"] if waits and not words else [])
        if recipe:
            assert all("fathom export double" in str(each) for each in errors)


def test_what_an_export_does_not_make_is_an_error_although_the_model_waits_for_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (write_double(tmp_path / "double") / "1" / "model.onnx").unlink()
    (tmp_path / "double" / "recipe.toml").touch()
    (tmp_path / "twice").mkdir()
    (tmp_path / "twice" / "config.pbtxt").write_text(ENSEMBLE)

    assert cli.main(["check", "--model-repository", str(tmp_path), "--json"]) == 1

    told = json.loads(capsys.readouterr().out)
    assert told["not_exported"] == ["double", "twice"]
    assert [(each["rule"], each["file"]) for each in told["findings"] if each["severity"] == "error"] == [
        ("versions-present", "twice/config.pbtxt")
    ]


@pytest.mark.parametrize(("backend", "served"), [("onnxruntime", True), ("nonsense", False)])
def test_the_list_of_what_is_served_has_a_heading_only_where_it_has_a_line(
    backend: str, served: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_double(tmp_path / "double", DOUBLE_CONFIG)
    config = tmp_path / "double" / "config.pbtxt"
    config.write_text(f'platform: "{backend}_onnx"' if not served else DOUBLE_CONFIG)

    cli.main(["check", "--model-repository", str(tmp_path)])

    assert ("served without a --model-config-name:" in capsys.readouterr().out) is served
