"""The real TensorRT bindings on a machine without TensorRT: the doubles of these tests take their surface from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tensorrt_bindings


@pytest.fixture(params=tensorrt_bindings.VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_stubs_give_the_real_module_but_no_builder(version: str) -> None:
    script = "import tensorrt as t, sys\ntry: t.Builder(t.Logger())\nexcept TypeError as e: sys.exit(str(e))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=tensorrt_bindings.environment(version),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "factory function returned nullptr" in done.stderr


def test_the_error_names_the_wheel_or_compiler_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(tensorrt_bindings.BindingsError) as wheel:
        tensorrt_bindings.environment("10.16.1.11", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(tensorrt_bindings.BindingsError) as compiler:
        tensorrt_bindings._compile("10", tmp_path / "stub")
    assert (wheel.value.missing, compiler.value.missing) == ("tensorrt-cu13-bindings==10.16.1.11", "gcc")
    assert not (tmp_path / "10.16.1.11").exists()
