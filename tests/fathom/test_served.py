"""`fathom check` and `fathom serve` report which configuration serves each model, and refuse plans that none does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine_machine import plan_bytes
from small_models import write_double

from export.engine import gpu
from fathom import cli
from fathom.console import servers
from fathom.console.arguments import UsageError
from fathom.console.servers import served_models

ENGINE = 'backend: "tensorrt" max_batch_size: 8'


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`double`, whose plan is loaded by the configuration `h200`, and `plain`."""
    monkeypatch.setattr(gpu, "find", lambda: None)
    models = tmp_path / "model_repository"
    write_double(models / "plain")
    double = write_double(models / "double")
    (double / "1" / "model.plan").write_bytes(plan_bytes("11.2.1.2"))
    (double / "configs").mkdir()
    (double / "configs" / "h200.pbtxt").write_text(ENGINE)
    return models


@pytest.fixture
def with_tensorrt(tmp_path: Path) -> Path:
    """The folder of a Triton that has the TensorRT backend."""
    (tmp_path / "triton" / "backends" / "tensorrt").mkdir(parents=True)
    return tmp_path / "triton"


@pytest.mark.parametrize("command", [["serve"], ["capacity", "double", "--slo", "p99=50ms"]], ids=["serve", "capacity"])
def test_a_plan_that_no_configuration_loads_keeps_triton_from_starting(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr(servers, "DEFAULT_SERVER", "localhost:9")  # where nothing listens
    (repository / "double" / "configs" / "h200.pbtxt").unlink()
    assert cli.main([*command, "--model-repository", str(repository)]) == 2
    assert "double/model.plan" in capsys.readouterr().err


def test_a_triton_that_runs_engines_serves_none_without_them(repository: Path, with_tensorrt: Path) -> None:
    with pytest.raises(UsageError, match="h200"):
        served_models(repository, None, with_tensorrt)
    found = {model.model: model.file for model in served_models(repository, "h200", with_tensorrt)}
    assert found == {"double": "configs/h200.pbtxt", "plain": "config.pbtxt"}


def test_a_triton_without_tensorrt_serves_onnx(repository: Path) -> None:
    found = {model.model: (model.file, model.backend) for model in served_models(repository, None, None)}
    assert found == {"double": ("config.pbtxt", "onnxruntime"), "plain": ("config.pbtxt", "onnxruntime")}


@pytest.mark.parametrize(
    ("name", "fails", "file"), [("gpu", True, "config.pbtxt"), ("h200", False, "configs/h200.pbtxt")]
)
def test_check_reports_what_serves_each_model(
    repository: Path, capsys: pytest.CaptureFixture[str], name: str, fails: bool, file: str
) -> None:
    compose = (
        "image: nvcr.io/nvidia/tritonserver:26.08-py3\ncommand: [--model-config-name=${TRITON_CONFIG_NAME:-gpu}]\n"
    )
    (repository.parent / "docker-compose.yml").write_text(compose)
    (repository.parent / ".env").write_text(f"TRITON_CONFIG_NAME={name}\n")
    cli.main(["check", "--json", "--model-repository", str(repository)])
    document = json.loads(capsys.readouterr().out)
    assert document["config_name"] == name
    assert document["served"]["double"]["configuration"] == file
    errors = [each["file"] for each in document["findings"] if each["severity"] == "error"]
    assert ("double/model.plan" in errors) is fails


def test_check_offers_the_names_that_exist(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--config-name", "gpu", "--model-repository", str(repository)]) == 2
    assert "h200" in capsys.readouterr().err
    assert cli.main(["check", "plain", "--config-name", "h200", "--model-repository", str(repository)]) in (0, 1)
    assert "plain: config.pbtxt (onnxruntime)" in capsys.readouterr().out
