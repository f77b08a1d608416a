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


@pytest.mark.parametrize(("backend", "served"), [("onnxruntime", True), ("nonsense", False)])
def test_the_list_of_what_is_served_has_a_heading_only_where_it_has_a_line(
    backend: str, served: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_double(tmp_path / "double", DOUBLE_CONFIG)
    config = tmp_path / "double" / "config.pbtxt"
    config.write_text(f'platform: "{backend}_onnx"' if not served else DOUBLE_CONFIG)

    cli.main(["check", "--model-repository", str(tmp_path)])

    assert ("served without a --model-config-name:" in capsys.readouterr().out) is served
