"""An installed Triton: found where it lies, and started with its own backends. The wheel's server plays it, laid out as
the official container has it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from small_models import write_double

from clients import Client
from fathom.console.options import default_config_name
from server import EnvironmentNotFitError, ServerStartError, TritonServer, environment
from server.triton import BACKENDS


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """bin/, lib/ and backends/python as in /opt/tritonserver, without an ONNX Runtime backend."""
    wheel = environment.find_installation()
    assert wheel.stub is not None
    root = tmp_path / "opt" / "tritonserver"
    shutil.copytree(wheel.backends, root / "backends", copy_function=os.link)
    os.link(wheel.stub, root / "backends" / "python" / wheel.stub.name)
    shutil.copytree(wheel.library_dirs[-1], root / "lib", copy_function=os.link)
    (root / "bin").mkdir()
    os.link(wheel.tritonserver, root / "bin" / "tritonserver")
    (root / "TRITON_VERSION").write_text("2.72.0\n")
    return root


@pytest.mark.process
@pytest.mark.parametrize("native", [False, True], ids=["without ONNX Runtime", "with its own"])
def test_it_serves_with_its_own_backends(installed: Path, tmp_path: Path, native: bool) -> None:
    own = installed / "backends" / "onnxruntime"
    if native:
        shutil.copytree(BACKENDS / "onnxruntime", own)
    write_double(tmp_path / "models" / "double")
    program = installed / "bin" / "tritonserver"
    with TritonServer(tmp_path / "models", tritonserver=program, stop_timeout_s=0) as server:
        words = Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
        assert words[0] == str(program)
        folder = next(Path(word.split("=")[1]) for word in words if word.startswith("--backend-directory="))
        assert (folder == installed / "backends") is native
        with Client(server.grpc_url) as client:
            assert client.model("double")(x=[[1.0, 2.0]])["y"].tolist() == [[2.0, 4.0]]
    assert own.exists() is native


@pytest.mark.process
def test_a_library_that_is_missing_is_named(installed: Path, tmp_path: Path) -> None:
    shutil.rmtree(installed / "lib")
    write_double(tmp_path / "models" / "double")
    with pytest.raises(ServerStartError, match=r"lib\w+.*\.so"):
        TritonServer(tmp_path / "models", tritonserver=installed).start()


@pytest.mark.parametrize("name", ["", "bin/tritonserver"], ids=["its folder", "its program"])
def test_a_path_names_it(installed: Path, name: str) -> None:
    assert environment.find_installation(installed / name).tritonserver == installed / "bin" / "tritonserver"


def test_where_it_is_looked_for(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = environment.folder()
    monkeypatch.setattr(environment, "INSTALLED", installed)
    assert environment.folder() == installed
    monkeypatch.setenv(environment.VARIABLE, str(wheel))
    assert environment.folder() == wheel
    assert environment.folder(installed) == installed
    assert environment.find_installation(installed).own_python


def test_a_folder_without_triton_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentNotFitError) as caught:
        environment.find_installation(tmp_path)
    assert caught.value.needs == "tritonserver"
    assert str(tmp_path) in str(caught.value)


def test_stubs_of_another_python_run_as_they_were_installed(installed: Path) -> None:
    stub = installed / "backends" / "python" / "triton_python_backend_stub"
    stub.unlink()
    stub.write_bytes(b"\0libpython3.99.so.1.0\0")
    found = environment.find_installation(installed)
    assert not found.own_python
    assert found.environment()["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(("version", "asks"), [(None, True), ("2.51.0", True), ("2.53.0", False)])
def test_an_old_python_backend_needs_numpy_1(
    installed: Path, version: str | None, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (installed / "TRITON_VERSION").unlink()
    if version:
        (installed / "TRITON_VERSION").write_text(version)
    asked: list[bool] = []
    monkeypatch.setattr(environment, "_require_numpy_1", lambda: asked.append(True))
    environment.find_installation(installed)
    assert bool(asked) is asks


@pytest.mark.parametrize(
    ("driver", "tensorrt", "names", "expected"),
    [
        pytest.param(False, False, ["cpu", "gpu"], "cpu", id="no GPU"),
        pytest.param(True, False, ["cpu", "gpu"], None, id="a GPU, and a Triton without TensorRT"),
        pytest.param(True, True, ["cpu", "gpu"], "gpu", id="a GPU, and a Triton that runs engines"),
        pytest.param(True, True, ["cpu"], None, id="no engine was built"),
    ],
)
def test_the_configuration_of_this_machine(
    installed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    driver: bool,
    tensorrt: bool,
    names: list[str],
    expected: str | None,
) -> None:
    configs = tmp_path / "models" / "m" / "configs"
    configs.mkdir(parents=True)
    for name in names:
        (configs / f"{name}.pbtxt").touch()
    if tensorrt:
        (installed / "backends" / "tensorrt").mkdir()
    programs = tmp_path / "programs"
    programs.mkdir()
    if driver:
        (programs / "nvidia-smi").touch(0o755)
    monkeypatch.setenv("PATH", str(programs))
    assert default_config_name(tmp_path / "models", installed) == expected
