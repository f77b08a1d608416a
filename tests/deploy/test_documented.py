"""Every command of the documents for containers and clusters, run as it is typed, up to the engine and the cluster."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import documented
import pytest
import yaml
from cluster import PLAN, needs_kubectl, validate
from debian import needs
from documented import CommandError, blocks, commands, compose_command
from replica import ROOT

pytestmark = pytest.mark.process

BLOCKS = [
    pytest.param(document, block, id=f"{document}-{number}", marks=[needs_kubectl] if "kubectl" in block else [])
    for document in documented.DOCUMENTS
    for number, block in enumerate(blocks(document))
    if "docker run" not in block
]
TOKEN = "TRITON_ADMIN_TOKEN=a\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the commands read of a checkout, with a certificate as the operator has it."""
    folder = tmp_path / "fathom"
    folder.mkdir()
    for name in ("docker-compose.yml", ".env.example"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    (folder / "model_repository").mkdir()
    for name in ("server.crt", "chain.crt", "server.key"):
        (folder / name).touch()
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "A checkout"], check=True)
    return folder


@pytest.mark.parametrize(("document", "block"), BLOCKS)
def test_a_block_runs_as_it_is_typed(checkout: Path, tmp_path: Path, document: str, block: str) -> None:
    programs, sent = tmp_path / "programs", tmp_path / "sent.yaml"
    documented.stand_ins(programs, sent)
    if "> .env" not in block:
        (checkout / ".env").write_text(TOKEN)
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=tmp_path / "elsewhere" if block.startswith("git clone") else checkout,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "CHECKOUT": str(checkout)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    resources = [each for each in yaml.safe_load_all(sent.read_text()) if each] if sent.exists() else []
    for resource in resources:
        validate(resource)
    if "kubectl" in block:
        kinds = [resource["kind"] for resource in resources]
        assert {"Secret", "PersistentVolumeClaim", "Pod", "Deployment", "ScaledObject"} <= {*kinds}
        (scaled,) = [each for each in resources if each["kind"] == "ScaledObject"]
        assert scaled["spec"]["maxReplicaCount"] == PLAN.replicas


@needs("docker-compose", "docker-compose")
def test_dockers_reader_takes_the_env_of_the_quick_start(checkout: Path) -> None:
    (line,) = [line for block in blocks("README.md") for line in block.splitlines() if "> .env" in line]
    subprocess.run(["bash", "-euc", line], cwd=checkout, check=True)
    values = documented.variables(checkout)
    assert values["EXPORT_USER"] == f"{os.getuid()}:{os.getgid()}"
    assert len(values["TRITON_ADMIN_TOKEN"]) == 64
    command = ["docker-compose", "--profile=tools", "config", "--quiet"]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_text_is_one_that_compose_takes(checkout: Path, command: str) -> None:
    (checkout / ".env").write_text(TOKEN)
    assert compose_command(shlex.split(command)[2:], checkout)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("up --detatch", id="a misspelt option"),
        pytest.param("start-up", id="no command"),
        pytest.param("stop triton-c", id="no such service"),
        pytest.param("--profile gpu up", id="no such profile"),
        pytest.param("up --scale load-worker=4", id="a profile that is not active"),
    ],
)
def test_the_stand_in_can_fail(checkout: Path, words: str) -> None:
    (checkout / ".env").write_text(TOKEN)
    with pytest.raises(CommandError):
        compose_command(words.split(), checkout)


def test_without_a_token_the_stand_in_fails_as_compose_does(checkout: Path) -> None:
    with pytest.raises(CommandError, match="openssl"):
        compose_command(["up"], checkout)


def test_the_documents_name_the_release_that_compose_starts() -> None:
    tag = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.M))["TRITON_TAG"]
    for document in documented.DOCUMENTS:
        for named in documented.tags((ROOT / document).read_text()):
            assert named == tag, document
