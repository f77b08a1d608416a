"""docker-compose.yml, read by the specification's schema and by Docker's old reader, and held to server/command.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import compose
import pytest
import yaml
from balancer import Fleet
from debian import needs
from replica import LOOPBACK, ROOT
from small_models import write_double

from server import ServerStartError, TritonServer
from server.command import CONTAINER_ONLY_FLAGS, container_options, triton_command
from server.ports import free_ports

pytestmark = pytest.mark.process

TOKEN = "a-token"
VALUES = {"TRITON_ADMIN_TOKEN": TOKEN}
SERVICES = compose.read(VALUES)["services"]
TRITONS = ("triton", "triton-b")
PROFILES = {"replicas", "observe", "load", "tools", "cpu"}
SCRATCH = {"/tmp", "/prometheus", "/var/lib/grafana"}


def test_the_compose_specification_accepts_it() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "docker-compose.yml",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs("docker-compose", "docker-compose")
def test_dockers_reader_agrees_with_ours() -> None:
    command = ["docker-compose", *(f"--profile={profile}" for profile in sorted(PROFILES)), "config"]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **VALUES}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    theirs = yaml.safe_load(done.stdout)["services"]
    assert theirs.keys() == SERVICES.keys()
    for name, ours in SERVICES.items():
        for key in ("image", "command", "entrypoint", "user", "profiles", "cap_drop", "healthcheck", "shm_size"):
            assert theirs[name].get(key) == ours.get(key), f"{name}.{key}"
        published = [
            str(port["published"]) if isinstance(port, dict) else port.removesuffix("/tcp")
            for port in theirs[name].get("ports", [])
        ]
        assert published == ours.get("ports", []), name
        assert theirs[name].get("environment", {}) == ours.get("environment", {}), name


@needs("docker-compose", "docker-compose")
def test_without_a_token_nothing_starts() -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(["docker-compose", "config"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "openssl rand -hex 32" in done.stderr


@pytest.mark.parametrize("service", TRITONS)
def test_tritons_command_is_the_one_that_the_server_package_makes(service: str) -> None:
    options = container_options(
        config_name="gpu", admin_token=TOKEN, exit_timeout_s=30, trace_url="http://traces:4318/v1/traces"
    )
    assert SERVICES[service]["command"] == triton_command(options)


def test_the_real_tritonserver_accepts_every_flag_but_those_it_is_too_old_for(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_double(models / "plain")
    with (models / "plain" / "config.pbtxt").open("a") as config:
        config.write("response_cache { enable: true }")
    tuned = write_double(models / "tuned") / "configs"
    tuned.mkdir()
    (tuned / "gpu.pbtxt").write_text('backend: "onnxruntime"\n')
    options = container_options(
        config_name="gpu", admin_token=TOKEN, exit_timeout_s=1, trace_url="http://127.0.0.1:9/v1"
    )
    known = tuple(flag for flag in options.extra if not flag.startswith(CONTAINER_ONLY_FLAGS))
    assert len(options.extra) - len(known) == len(CONTAINER_ONLY_FLAGS)
    named = ("plain", "tuned")  # as the entry point does
    with TritonServer(
        models, config_name="gpu", models=named, admin_token=TOKEN, extra=known, stop_timeout_s=0
    ) as server:
        asked = {line.split("=")[0] for line in SERVICES["triton"]["command"][1:]}
        process = Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
        given = {word.split("=")[0] for word in process if word.startswith("--")}
        assert asked - given == set(CONTAINER_ONLY_FLAGS)


@pytest.mark.parametrize("flag", CONTAINER_ONLY_FLAGS)
def test_flags_that_the_embedded_server_is_too_old_for_are_still_unknown_to_it(tmp_path: Path, flag: str) -> None:
    write_double(tmp_path / "models" / "double")
    with pytest.raises(ServerStartError), TritonServer(tmp_path / "models", extra=(f"{flag}=1",), stop_timeout_s=0):
        pass


@pytest.mark.parametrize("service", SERVICES)
def test_every_mounted_path_exists_and_is_read_only_where_it_can_be(service: str) -> None:
    for volume in SERVICES[service].get("volumes", []):
        if isinstance(volume, str):
            name, _, target = volume.partition(":")
            assert name in compose.read(VALUES)["volumes"]
            assert target in SCRATCH
            continue
        assert (ROOT / volume["source"]).exists(), volume
        assert volume.get("read_only") is True or service == "export"


@pytest.mark.parametrize("service", SERVICES)
def test_every_image_is_pinned(service: str) -> None:
    build = SERVICES[service].get("build", {})
    for image in [SERVICES[service]["image"], *build.get("args", {}).values()]:
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", image), image
    if build:
        dockerfile = (ROOT / build["dockerfile"]).read_text()
        base = re.search(r"^FROM (\S+)$", dockerfile, re.M)[1]
        assert re.fullmatch(r"\$\{(TRITON|TENSORRT|PYTHON)_IMAGE\}", base), base


@pytest.mark.parametrize("service", SERVICES)
def test_no_container_is_root_or_may_become_it(service: str) -> None:
    declared = SERVICES[service]
    assert re.fullmatch(r"[1-9]\d*:\d+", declared["user"])
    assert declared["cap_drop"] == ["ALL"]
    assert declared["security_opt"] == ["no-new-privileges:true"]
    assert declared.get("read_only") is True or service == "export"
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & declared.keys()


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_container_takes_is_bounded(service: str) -> None:
    declared = SERVICES[service]
    assert declared["pids_limit"] >= 512
    assert re.fullmatch(r"\d+gb", declared["mem_limit"])


def test_each_network_joins_those_that_speak_to_each_other() -> None:
    joined: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for network in service["networks"]:
            joined.setdefault(network, set()).add(name)
    served = {"triton", "triton-b", "triton-cpu"}
    assert joined == {
        "inference": {*served, "haproxy", "load-master", "load-worker"},
        "metrics": {*served, "haproxy", "prometheus"},
        "traces": {"triton", "triton-b", "traces"},
        "pages": {"prometheus", "grafana", "traces"},
        "export": {"export"},
    }
    document = compose.read(VALUES)["networks"]
    assert document.keys() == joined.keys()
    internal = {name for name, network in document.items() if network and network.get("internal")}
    for name, service in SERVICES.items():
        assert not service.get("ports") or set(service["networks"]) - internal, f"{name} cannot publish its ports"


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_published_on_the_loopback_unless_asked_otherwise(service: str) -> None:
    for port in SERVICES[service].get("ports", []):
        assert port.startswith("127.0.0.1:"), port


@needs("haproxy", "haproxy")
@pytest.mark.parametrize(("service", "port"), [("triton", 8000), ("triton-b", 8000), ("haproxy", 8404)])
def test_healthchecks_tell_the_living_from_the_dead(fleet: Fleet, service: str, port: int) -> None:
    def is_healthy(at: int) -> bool:
        command = [part.replace(str(port), str(at)) for part in SERVICES[service]["healthcheck"]["test"][1:]]
        assert command != SERVICES[service]["healthcheck"]["test"][1:]
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0

    living = fleet.balancer.metrics_port if service == "haproxy" else fleet.replicas[1].http_port
    (dead,) = free_ports(LOOPBACK, 1)
    assert is_healthy(living)
    assert not is_healthy(dead)


def test_each_profile_starts_what_it_is_for() -> None:
    started = {profile: {n for n, s in SERVICES.items() if profile in s.get("profiles", [])} for profile in PROFILES}
    assert started == {
        "replicas": {"triton-b", "haproxy"},
        "observe": {"prometheus", "grafana", "traces"},
        "load": {"load-master", "load-worker"},
        "tools": {"export"},
        "cpu": {"triton-cpu"},
    }
    assert [name for name, service in SERVICES.items() if "profiles" not in service] == ["triton"]


@pytest.mark.parametrize("service", TRITONS)
def test_stopping_takes_less_time_than_docker_grants(service: str) -> None:
    exit_s = next(int(f.split("=")[1]) for f in SERVICES[service]["command"] if f.startswith("--exit-timeout-secs"))
    drain_s = 5  # the entry point's default
    assert int(SERVICES[service]["stop_grace_period"].removesuffix("s")) >= drain_s + exit_s + 10


def test_every_variable_is_explained_and_every_explained_one_used() -> None:
    example = (ROOT / ".env.example").read_text()
    explained = dict(re.findall(r"^(\w+)=(.*)$", example, re.M))
    assert explained.keys() == compose.variables()
    with_example = {name: value for name, value in explained.items() if value}
    assert compose.read(VALUES) == compose.read({**with_example, **VALUES}), "a default differs from .env.example's"


def test_no_secret_is_written_down() -> None:
    text = compose.FILE.read_text()
    for line in text.splitlines():
        if re.search(r"(token|password|secret)\w*\s*[:=]\s*\S", line, re.I):
            assert re.search(r"\$\{\w+(:\?[^}]*|:-|:-true)?\}", line), line
    ignored = ["git", "check-ignore", ".env", "deploy/tls/server.pem"]
    done = subprocess.run(ignored, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ignored[2:]


def test_only_the_compose_file_names_nvidias_registry() -> None:
    for path in [*ROOT.glob("deploy/**/Dockerfile"), *ROOT.glob("deploy/**/*.y*ml")]:
        assert "nvcr.io" not in path.read_text(), path


def test_locked_requirements_cover_what_the_python_models_import() -> None:
    wanted = {"numpy": "numpy", "onnxruntime": "onnxruntime", "PIL": "pillow", "tokenizers": "tokenizers"}
    imported, own = set(), {"triton_python_backend_utils"}
    for module in (ROOT / "model_repository").glob("*/1/*.py"):
        own.add(module.stem)
        lines = re.findall(r"^ *(?:import (\w+)|from (\w+) import )", module.read_text(), re.M)
        imported |= {name for line in lines for name in line if name}
    third_party = imported - set(sys.stdlib_module_names) - own
    assert third_party <= wanted.keys()
    lock = (ROOT / "deploy" / "triton" / "requirements.txt").read_text()
    for name in third_party:
        assert re.search(rf"^{wanted[name]}==", lock, re.M), name
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text().lower(), re.M))
    for path in [ROOT / "deploy" / "build.txt", *(ROOT / "deploy").glob("*/requirements.txt")]:
        text = path.read_text()
        for entry in re.findall(r"^[\w.-]+==.*?(?=^\S|\Z)", text, re.M | re.S):
            name, version = re.match(r"([\w.-]+)==([^\s;\\]+)", entry).groups()
            assert "--hash=sha256:" in entry, name
            assert pinned.get(name, version) == version, f"{path.parent.name} locks {name} {version}"


def test_the_cpu_image_locks_all_that_serving_and_load_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {re.match(r"[\w.-]+", text)[0] for text in project["dependencies"] + extras["server"] + extras["load"]}
    lock = (ROOT / "deploy" / "cpu" / "requirements.txt").read_text()
    assert wanted <= set(re.findall(r"^([\w.-]+)==", lock, re.M))
