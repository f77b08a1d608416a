"""`pip install ./clients` by itself: the package `fathom_client`, which needs nothing else of this project."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import setuptools

pytestmark = pytest.mark.process

PROJECT = Path(__file__).parents[2]
THIRD_PARTY = str(Path(setuptools.__file__).parents[1])
ASKS = """
import importlib.util, json, sys
from fathom_client import Client, InvalidInputError

with Client(sys.argv[1]) as client:
    double = client.model("double")
    answer = double(x=[[1, 2]])["y"].tolist()
    mapped = [answer["y"].tolist() for answer in double.map([[[1, 2]], [[3, 4]]])]
    try:
        double(z=[[1, 2]])
    except InvalidInputError as error:
        refusal = type(error).__module__
ours = [name for name in sys.argv[2:] if importlib.util.find_spec(name) is not None]
print(json.dumps({"answer": answer, "mapped": mapped, "refusal": refusal, "ours": ours}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment in which the clients alone are installed."""
    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder / "environment", with_pip=False)
    interpreter = folder / "environment" / "bin" / "python"
    source = shutil.copytree(
        PROJECT / "clients", folder / "clients", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    )
    site = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    target = ["--target", folder / "environment" / site]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *target, source], check=True)
    return interpreter


def run(python, *arguments):
    """What a program prints there. Other people's packages are those of this environment, without its `.pth` files."""
    environment = {**os.environ, "PYTHONPATH": THIRD_PARTY}
    command = [python, *arguments]
    return subprocess.run(command, env=environment, cwd=python.parent, check=True, stdout=subprocess.PIPE).stdout


def test_the_clients_alone_ask_a_server(python, small_server):
    ours = ["clients", "export", "fathom", "loadtests", "server"]
    said = json.loads(run(python, "-c", ASKS, small_server.grpc_url, *ours))
    assert said["answer"] == [[2, 4]]
    assert said["mapped"] == [[[2, 4]], [[6, 8]]]
    assert said["refusal"] == "fathom_client.errors"
    assert said["ours"] == []


def test_nothing_but_the_package_is_installed(python):
    site = next((python.parents[1] / "lib").glob("*/site-packages"))
    assert {path.name.partition("-")[0] for path in site.iterdir()} == {"fathom_client"}
    modules = {path.name for path in (PROJECT / "clients").glob("*.py")}
    installed = {path.name for path in (site / "fathom_client").iterdir() if path.name != "__pycache__"}
    assert installed == modules


def test_its_metadata_agree_with_the_projects():
    alone, whole = (
        tomllib.loads((PROJECT / folder / "pyproject.toml").read_text())["project"] for folder in ("clients", ".")
    )
    assert all(alone[key] == whole[key] for key in ("version", "license", "requires-python"))
    assert set(alone["dependencies"]) <= set(whole["dependencies"])
    assert alone["optional-dependencies"]["metrics"] == whole["optional-dependencies"]["metrics"]
