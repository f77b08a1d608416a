"""What `fathom check` says of a plan: the release that cannot run it, the GPU that cannot, the model it is not of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_machine import plan_bytes

from export.engine import gpu
from export.engine.gpu import Gpu
from export.engine.options import EngineOptions
from export.engine.record import EngineRecord
from export.lint.lint import lint
from export.recipe.measure import Parity
from export.repository.manifest import file_record, file_sha256

L4, H200 = Gpu("NVIDIA L4", "8.9", "580.65"), Gpu("NVIDIA H200", "9.0", "580.65")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find", lambda: None)


def publish(repository: Path, version: str = "10.16.1.11", name: str = "model.plan", **changes: Any) -> EngineRecord:
    """A plan of `scale` with its record, as an export leaves them."""
    folder = repository / "scale"
    path = folder / "1" / name
    path.write_bytes(plan_bytes(version))
    record = EngineRecord(
        plan=name,
        onnx_sha256=file_sha256(folder / "1" / "model.onnx"),
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


def said(repository: Path, tag: str | None = None) -> list[str]:
    return [f"{each.severity} {each}" for each in lint(repository, ["scale"], triton_tag=tag) if ".plan" in each.file]


COMPATIBLE = EngineOptions(version_compatible=True).to_json()
AMPERE = EngineOptions(hardware_compatibility="ampere-plus").to_json()


@pytest.mark.parametrize(
    ("version", "options", "tag", "says"),
    [
        pytest.param("10.16.1.11", None, None, None, id="no release named: nothing to say"),
        pytest.param("10.16.1.11", None, "26.05-py3", None, id="the release it was built for"),
        pytest.param(
            "10.16.1.11",
            None,
            "26.06-py3",
            "error scale/1/model.plan: cannot run: it was built with TensorRT 10.16.1.11, Triton 26.06-py3 has "
            "TensorRT 11.0.0: an engine runs only in the version that built it; build it in "
            "nvcr.io/nvidia/tensorrt:26.06-py3, or serve with the release that it was built for",
            id="a newer release",
        ),
        pytest.param("10.16.1.11", COMPATIBLE, "26.06", "warning scale/1/model.plan: is version compatible", id="VC"),
        pytest.param("11.4.0.106", COMPATIBLE, "26.05", "error scale/1/model.plan: cannot run", id="VC, older release"),
        pytest.param("11.4.0.106", None, "26.09", "that of Triton 26.09 is not known here; compare with", id="unknown"),
    ],
)
def test_the_release(
    repository: Path, version: str, options: dict[str, Any] | None, tag: str | None, says: str | None
) -> None:
    publish(repository, version, **({"options": options} if options else {}))
    found = said(repository, tag)
    assert len(found) == (0 if says is None else 1), found
    assert says is None or says in found[0]


def test_the_release_is_taken_from_docker_compose(repository: Path) -> None:
    publish(repository)
    compose = repository.parent / "docker-compose.yml"
    compose.write_text("services: { triton: { image: 'nvcr.io/nvidia/tritonserver:${TAG:-26.05-py3}' } }\n")
    assert said(repository) == []
    (repository.parent / ".env").write_text("TAG=26.02-py3\n")
    (found,) = said(repository)
    assert "Triton 26.02-py3 has TensorRT 10.15.1" in found


@pytest.mark.parametrize(
    ("built_on", "options", "here", "says"),
    [
        pytest.param(H200, None, None, None, id="no GPU here"),
        pytest.param(H200, None, H200, None, id="the same GPU"),
        pytest.param(
            L4,
            None,
            H200,
            "error scale/1/model.plan: cannot run: it was built for compute capability 8.9 (NVIDIA L4), this GPU has "
            "9.0 (NVIDIA H200); run `fathom export scale --engine` here",
            id="another compute capability",
        ),
        pytest.param(L4, AMPERE, H200, None, id="built for all since Ampere"),
        pytest.param(L4, AMPERE, Gpu("Tesla T4", "7.5", "580"), "error", id="built for Ampere, this is older"),
        pytest.param(
            replace(H200, name="NVIDIA H100"),
            None,
            H200,
            "warning scale/1/model.plan: was built on NVIDIA H100",
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
    says: str | None,
) -> None:
    publish(repository, gpu=built_on, **({"options": options} if options else {}))
    monkeypatch.setattr(gpu, "find", lambda: here)
    found = said(repository)
    assert len(found) == (0 if says is None else 1), found
    assert says is None or says in found[0]


def test_one_of_several_plans_is_enough(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(repository, gpu=L4)
    publish(repository, name="model.sm90.plan", gpu=H200)
    monkeypatch.setattr(gpu, "find", lambda: H200)
    assert said(repository) == []


def test_a_changed_byte_and_another_model_are_named(repository: Path) -> None:
    publish(repository, onnx_sha256="f" * 64)
    path = repository / "scale" / "1" / "model.plan"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    changed, origin = sorted(said(repository), key=len)
    assert "is not what was published: its SHA-256 was" in changed
    assert "--engine --force" in changed
    assert "was built from another model.onnx (SHA-256 ffffffffffff...)" in origin


@pytest.mark.parametrize(
    ("content", "record", "says"),
    [
        (b"not a plan, although long enough", None, "error scale/1/model.plan: model.plan does not begin with"),
        (plan_bytes("10.16.1.11"), None, "warning scale/1/model.plan: has no record"),
        (plan_bytes("10.16.1.11"), "{", "cannot be read"),
        (plan_bytes("10.16.1.11").replace(b"\0", b"\1", 1), None, "has serialization version"),
    ],
)
def test_broken_plans_and_records(repository: Path, content: bytes, record: str | None, says: str) -> None:
    path = repository / "scale" / "1" / "model.plan"
    path.write_bytes(content)
    if record is not None:
        path.with_name("model.plan.json").write_text(record)
    assert any(says in each for each in said(repository)), said(repository)
