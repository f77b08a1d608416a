"""The environment guard, against another numpy and a foreign libpython."""

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


def test_numpy_2_is_refused_before_anything_starts(tmp_path):
    """In a virtual environment with this one's packages, and numpy 2 in front of them: what a stray upgrade makes."""
    write_double(tmp_path / "models" / "double")
    venv.create(tmp_path / "venv")
    (packages,) = (tmp_path / "venv" / "lib").glob("python3.*/site-packages")
    (packages / "numpy-2.1.0.dist-info").mkdir()
    (packages / "numpy-2.1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.1.0\n")
    (packages / "rest.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    script = "import sys; from server import TritonServer; TritonServer(sys.argv[1]).start()"
    command = [tmp_path / "venv" / "bin" / "python", "-c", script, str(tmp_path / "models")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "EnvironmentNotFitError" in done.stderr
    assert "pip install 'numpy<2'" in done.stderr
