"""The environment guard, against real numpy 2 and a real foreign libpython."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from small_models import write_double

from server import EnvironmentNotFitError, environment

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]


def test_this_environment_is_fit():
    installation = environment.find_installation()
    assert installation.tritonserver.is_file()
    assert installation.stub.parent.name == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_libpython_is_the_interpreters_own():
    path = environment.find_libpython()
    assert path.name == sysconfig.get_config_var("INSTSONAME")
    assert environment._libpython_release(path) == sys.version.split()[0]


def test_another_release_of_libpython_is_refused(monkeypatch):
    monkeypatch.setattr(environment, "_libpython_release", lambda path: "3.11.0")
    with pytest.raises(EnvironmentNotFitError) as caught:
        environment.find_libpython()
    assert caught.value.needs.startswith("libpython3.")
    assert set(caught.value.found) == {"3.11.0"}


def test_no_libpython_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: "/nowhere")
    monkeypatch.setattr(sys, "base_prefix", "/nowhere")
    with pytest.raises(EnvironmentNotFitError) as caught:
        environment.find_libpython()
    assert caught.value.needs.startswith("libpython3.")
    assert caught.value.found == ()


@pytest.fixture(scope="module")
def python_with_numpy_2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with this one's packages, but numpy 2 in front of them: what a stray upgrade makes."""
    folder = tmp_path_factory.mktemp("numpy2") / "venv"
    venv.create(folder)
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--disable-pip-version-check"]
    command = [*pip, "--target", str(packages), "numpy>=2,<2.3"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    (packages / "rest.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    return folder / "bin" / "python"


def run(python: Path, script: str, argument: Path) -> subprocess.CompletedProcess:
    return subprocess.run([python, "-c", script, str(argument)], capture_output=True, text=True, check=False)


def test_numpy_2_is_refused_before_anything_starts(python_with_numpy_2, tmp_path):
    write_double(tmp_path / "double")
    script = "import sys; from server import TritonServer; TritonServer(sys.argv[1]).start()"
    done = run(python_with_numpy_2, script, tmp_path)
    assert done.returncode == 1
    assert "EnvironmentNotFitError" in done.stderr
    assert "pip install 'numpy<2'" in done.stderr


UNGUARDED = """
import sys
from clients import Client
from server import TritonServer, environment
environment._require_numpy_1 = lambda: None
with TritonServer(sys.argv[1], stop_timeout_s=0) as server, Client(server.grpc_url) as client:
    print("answer", client.model("double")(x=[[1.0, 2.0]]))
"""


def test_without_the_guard_numpy_2_empties_the_answers(python_with_numpy_2, tmp_path):
    """Why the guard is there. The client sees it too: an output's bytes must fill its announced shape."""
    shape = "data_type: TYPE_FP32 dims: [-1, 2]"
    write_double(tmp_path / "double", f'input [{{ name: "x" {shape} }}] output [{{ name: "y" {shape} }}]')
    done = run(python_with_numpy_2, UNGUARDED, tmp_path)
    assert "[[2., 4.]]" not in done.stdout
    assert "answer {'y': array([], " in done.stdout or "ServerError" in done.stderr, done.stdout + done.stderr
