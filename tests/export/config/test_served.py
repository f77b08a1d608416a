"""Which configuration serves a model, and that `fathom check` finds every plan that none does."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_machine import plan_bytes

from export.config.served import of_folder, served
from export.engine import gpu
from export.lint.lint import lint

ONNX = 'backend: "onnxruntime"'
ENGINE = 'backend: "tensorrt"'
BOTH = 'platform: "tensorrt_plan" cc_model_filenames { key: "9.0" value: "model.sm90.plan" }'
PYTHON = 'backend: "python"'


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gpu, "find", lambda: None)
    return tmp_path / "model_repository"


def write(repository: Path, configs: dict[str, str], files: list[str], name: str = "m") -> Path:
    for file in files:
        path = repository / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(plan_bytes("11.2.1.2"))
    for file, text in configs.items():
        path = repository / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return repository / name


MAIN, GPU, H200, CPU = "config.pbtxt", "configs/gpu.pbtxt", "configs/h200.pbtxt", "configs/cpu.pbtxt"
PLAN, SM90, SECOND = "1/model.plan", "1/model.sm90.plan", "2/model.plan"


@pytest.mark.parametrize(
    ("configs", "files", "config_name", "file", "backend", "unserved"),
    [
        pytest.param({MAIN: ONNX}, [], "gpu", MAIN, "onnxruntime", {}, id="no plan"),
        pytest.param({MAIN: ONNX, GPU: ENGINE}, [PLAN], "gpu", GPU, "tensorrt", {}, id="the name that was asked for"),
        pytest.param({MAIN: ENGINE}, [PLAN], "gpu", MAIN, "tensorrt", {}, id="the main configuration loads it"),
        pytest.param(
            {MAIN: ONNX, H200: ENGINE}, [PLAN], "gpu", MAIN, "onnxruntime", {"model.plan": ("h200",)}, id="another name"
        ),
        pytest.param(
            {MAIN: ONNX, H200: ENGINE}, [SECOND], "gpu", MAIN, "onnxruntime", {"model.plan": ("h200",)}, id="version 2"
        ),
        pytest.param(
            {MAIN: ENGINE, CPU: ONNX}, [PLAN], "cpu", CPU, "onnxruntime", {"model.plan": ("",)}, id="only the main one"
        ),
        pytest.param({MAIN: ONNX}, [PLAN], "gpu", MAIN, "onnxruntime", {"model.plan": ()}, id="no configuration"),
        pytest.param(
            {MAIN: ONNX, GPU: ENGINE}, [PLAN, SM90], "gpu", GPU, "tensorrt", {"model.sm90.plan": ()}, id="one too many"
        ),
        pytest.param({MAIN: ONNX, GPU: BOTH}, [PLAN, SM90], "gpu", GPU, "tensorrt", {}, id="two compute capabilities"),
        pytest.param(
            {MAIN: ONNX, GPU: ENGINE, H200: BOTH}, [PLAN, SM90], "gpu", GPU, "tensorrt", {}, id="the other elsewhere"
        ),
        pytest.param({MAIN: PYTHON}, [PLAN], "gpu", MAIN, "python", {}, id="a model.py loads what it likes"),
        pytest.param({}, [PLAN], None, "completed by Triton", "tensorrt", {}, id="completed by Triton"),
    ],
)
def test_what_serves_a_model(
    repository: Path,
    configs: dict[str, str],
    files: list[str],
    config_name: str | None,
    file: str,
    backend: str,
    unserved: dict[str, tuple[str, ...]],
) -> None:
    found = of_folder(write(repository, configs, files), config_name)
    assert found is not None
    assert (found.file, found.backend, dict(found.unserved)) == (file, backend, unserved)
    errors = {each.file for each in lint(repository, config_name=config_name or "gpu") if each.file.endswith(".plan")}
    expected = {f"m/{plan}" for plan in unserved}
    assert {each for each in errors if each.count("/") == 1} == expected


def test_without_a_deployment_only_a_plan_that_nothing_can_serve_is_an_error(repository: Path) -> None:
    write(repository, {MAIN: ONNX, H200: ENGINE}, [PLAN], "elsewhere")
    write(repository, {MAIN: ONNX}, [PLAN], "nowhere")
    found = {each.file for each in lint(repository) if each.severity == "error" and each.file.endswith("/model.plan")}
    assert {each for each in found if each.count("/") == 1} == {"nowhere/model.plan"}


def test_a_configuration_that_does_not_parse_serves_nothing(repository: Path) -> None:
    write(repository, {MAIN: "max_batch"}, [PLAN], "broken")
    write(repository, {MAIN: ONNX}, [], "fine")
    assert [each.model for each in served(repository, None)] == ["fine"]
