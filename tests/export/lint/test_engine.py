"""What `fathom check` says of a plan: the release that cannot run it, the GPU that cannot, the model it is not of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_machine import plan_bytes

from export import files
from export.command import fathom
from export.engine import gpu
from export.engine.gpu import Gpu
from export.engine.options import EngineOptions
from export.engine.record import EngineRecord
from export.lint.finding import Finding
from export.lint.lint import lint
from export.recipe.measure import Parity
from export.repository.manifest import file_record

L4, H200 = Gpu("NVIDIA L4", "8.9", "580.65"), Gpu("NVIDIA H200", "9.0", "580.65")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find", lambda: None)


def publish(repository: Path, version: str = "10.16.1.11", name: str = "model.plan", **changes: Any) -> EngineRecord:
    """A plan of `scale` with its record, as an export leaves them."""
    folder = repository / "scale"
    path = folder / "1" / name
    path.write_bytes(plan_bytes(version))
    serve_with(folder, name)
    record = EngineRecord(
        plan=name,
        onnx_sha256=files.sha256(folder / "1" / "model.onnx"),
        tensorrt=version,
        gpu=H200,
        options=EngineOptions().to_json(),
        profiles=[],
        files={f"1/{name}": file_record(path)},
        parity=Parity(0.0, 0.0, 1.0),
        accuracy={},
        batch1_ms=1.0,
        build_seconds=1.0,
        created="2026-11-22T00:00:00Z",
    )
    record = replace(record, **changes)
    record.write(path.with_name(f"{name}.json"))
    return record


def serve_with(folder: Path, plan: str = "model.plan", config_name: str = "gpu") -> None:
    """A configuration of that name that loads the plan."""
    text = (folder / "config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in text
    tuned = folder / "configs" / f"{config_name}.pbtxt"
    tuned.parent.mkdir(exist_ok=True)
    tuned.write_text(
        text.replace('backend: "onnxruntime"', f'backend: "tensorrt" default_model_filename: "{plan}"').replace(
            'default_model_filename: "model.onnx"', ""
        )
    )


def about_plans(repository: Path, tag: str | None = None) -> list[Finding]:
    return [each for each in lint(repository, ["scale"], triton_tag=tag) if ".plan" in each.file]


def expect(found: list[Finding], severity: str | None, names: list[str]) -> None:
    """One finding of that severity about the plan which names these values; none where `severity` is None."""
    assert [each.severity for each in found] == ([severity] if severity else []), found
    for each in found:
        assert each.file == "scale/1/model.plan"
        assert all(name in str(each) for name in names), each


COMPATIBLE = EngineOptions(version_compatible=True).to_json()
AMPERE = EngineOptions(hardware_compatibility="ampere-plus").to_json()


@pytest.mark.parametrize(
    ("version", "options", "tag", "severity", "names"),
    [
        pytest.param("10.16.1.11", None, None, None, [], id="no release named: nothing to say"),
        pytest.param("10.16.1.11", None, "26.05-py3", None, [], id="the release it was built for"),
        pytest.param(
            "10.16.1.11",
            None,
            "26.06-py3",
            "error",
            ["10.16.1.11", "26.06-py3", "11.0.0", "nvcr.io/nvidia/tensorrt:26.06-py3"],
            id="a newer release",
        ),
        pytest.param("10.16.1.11", COMPATIBLE, "26.06", "warning", ["version-compatible=true"], id="VC"),
        pytest.param("11.4.0.106", COMPATIBLE, "26.05", "error", ["11.4.0.106", "10.16.1"], id="VC, older release"),
        pytest.param("11.4.0.106", None, "26.09", "warning", ["11.4.0.106", "26.09"], id="unknown"),
    ],
)
def test_the_release(
    repository: Path,
    version: str,
    options: dict[str, Any] | None,
    tag: str | None,
    severity: str | None,
    names: list[str],
) -> None:
    publish(repository, version, **({"options": options} if options else {}))
    expect(about_plans(repository, tag), severity, names)


def test_the_release_is_taken_from_docker_compose(repository: Path) -> None:
    publish(repository)
    compose = repository.parent / "docker-compose.yml"
    compose.write_text("services: { triton: { image: 'nvcr.io/nvidia/tritonserver:${TAG:-26.05-py3}' } }\n")
    assert about_plans(repository) == []
    (repository.parent / ".env").write_text("TAG=26.02-py3\n")
    expect(about_plans(repository), "error", ["26.02-py3", "10.15.1"])


@pytest.mark.parametrize(
    ("built_on", "options", "here", "severity", "names"),
    [
        pytest.param(H200, None, None, None, [], id="no GPU here"),
        pytest.param(H200, None, H200, None, [], id="the same GPU"),
        pytest.param(
            L4,
            None,
            H200,
            "error",
            ["8.9", "NVIDIA L4", "9.0", "NVIDIA H200"],
            id="another compute capability",
        ),
        pytest.param(L4, AMPERE, H200, None, [], id="built for all since Ampere"),
        pytest.param(L4, AMPERE, Gpu("Tesla T4", "7.5", "580"), "error", ["7.5"], id="built for Ampere, this is older"),
        pytest.param(
            replace(H200, name="NVIDIA H100"),
            None,
            H200,
            "warning",
            ["NVIDIA H100", "NVIDIA H200"],
            id="sm",
        ),
    ],
)
def test_the_gpu(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    built_on: Gpu,
    options: dict[str, Any] | None,
    here: Gpu | None,
    severity: str | None,
    names: list[str],
) -> None:
    publish(repository, gpu=built_on, **({"options": options} if options else {}))
    monkeypatch.setattr(gpu, "find", lambda: here)
    expect(about_plans(repository), severity, names)


def test_one_of_several_plans_is_enough(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(repository, gpu=L4)
    publish(repository, name="model.sm90.plan", gpu=H200)
    serve_with(repository / "scale", "model.plan", "l4")
    monkeypatch.setattr(gpu, "find", lambda: H200)
    assert about_plans(repository) == []


def test_a_changed_byte_and_another_model_are_named(repository: Path) -> None:
    publish(repository, onnx_sha256="f" * 64)
    (repository / "scale" / "recipe.toml").touch()
    path = repository / "scale" / "1" / "model.plan"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    origin, changed = sorted(about_plans(repository), key=lambda each: "--force" in each.remedy)
    assert (origin.severity, changed.severity) == ("error", "error")
    assert fathom("export", "scale", "--engine", "--force", repository=repository) in changed.remedy
    assert "ffffffffffff" in origin.message


@pytest.mark.parametrize(
    ("content", "record", "severity", "names"),
    [
        (b"not a plan, although long enough", None, "error", "'ftrt'"),
        (plan_bytes("10.16.1.11"), None, "warning", "record"),
        (plan_bytes("10.16.1.11"), "{", "error", "model.plan.json"),
        (plan_bytes("10.16.1.11").replace(b"\0", b"\1", 1), None, "warning", "serialization"),
    ],
)
def test_broken_plans_and_records(
    repository: Path, content: bytes, record: str | None, severity: str, names: str
) -> None:
    path = repository / "scale" / "1" / "model.plan"
    path.write_bytes(content)
    if record is not None:
        path.with_name("model.plan.json").write_text(record)
    found = about_plans(repository)
    assert any(each.severity == severity and names in each.message for each in found), found
