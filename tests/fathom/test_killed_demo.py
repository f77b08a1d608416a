"""SIGKILL of the demo at random moments leaves no server, no shared memory and no half-published model.

FATHOM_TEST_KILLS sets how many moments are tried; the first is soon after its server began to start.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from waiting import until

from export.lint.lint import lint
from export.repository.manifest import Manifest

pytestmark = pytest.mark.process

KILLS = int(os.environ.get("FATHOM_TEST_KILLS", "1"))
MODELS = ("minilm", "mobilenet_v2", "rain_forecast", "image_preprocess", "text_tokenizer")


def processes_of(repository: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if str(repository) in command:
            found.append(command[:120])
    return found


def left_of(repository: Path, pid: int) -> list[str]:
    return processes_of(repository) + [str(path) for path in Path("/dev/shm").glob(f"fathom-*-{pid}-*")]


def state(repository: Path) -> dict[str, str]:
    """Model -> "nothing", "whole", or what is wrong with it."""
    found = {}
    for name in MODELS:
        manifest = Manifest.read(repository / name)
        if manifest is None:
            built = [p.name for p in (repository / name / "1").iterdir() if p.suffix in (".onnx", ".npz", ".json")]
            found[name] = "nothing" if not built else f"files without a manifest: {built}"
        else:
            found[name] = "whole" if not manifest.changed_files(repository / name) else "changed"
    return found


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_demo_leaves_nothing_half_done(kill, exported_repository, tmp_path):
    rng = random.Random(f"kill {kill}")
    repository = tmp_path / "model_repository"
    shutil.copytree(exported_repository, repository)
    if kill % 2:  # let rain_forecast be built anew, so that the kill may fall into an export
        shutil.rmtree(repository / "rain_forecast" / "1")
        (repository / "rain_forecast" / "1").mkdir()
    command = [sys.executable, "-m", "fathom.cli", "demo", "--model-repository", str(repository), "--budget", "5"]
    demo = subprocess.Popen([*command, "--report", str(tmp_path / "results")], stderr=subprocess.DEVNULL)
    if kill:
        time.sleep(rng.uniform(0.5, 18.0))
    else:
        until(lambda: any("tritonserver" in command for command in processes_of(repository)), seconds=60)
        time.sleep(rng.uniform(0, 2.0))
    demo.kill()
    demo.wait()
    until(lambda: not left_of(repository, demo.pid), lambda: left_of(repository, demo.pid))
    found = state(repository)
    assert set(found.values()) <= {"nothing", "whole"}, found
    assert found["minilm"] == found["mobilenet_v2"] == "whole"


@pytest.mark.slow  # tests/export/test_killed_export.py has it on a model of milliseconds
def test_the_export_after_a_kill_repairs_the_repository(exported_repository, tmp_path):
    repository = tmp_path / "model_repository"
    shutil.copytree(exported_repository, repository)
    command = [sys.executable, "-m", "fathom.cli", "export", "rain_forecast", "--force", "--json"]
    command += ["--model-repository", str(repository)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as export:
        time.sleep(2.5)
        export.kill()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["models"][0]["unchanged"] is False
    assert [finding for finding in lint(repository, ["rain_forecast"]) if finding.severity == "error"] == []
    assert not list(tmp_path.rglob("*scratch*/*/*"))


@pytest.mark.slow
def test_a_demo_whose_triton_freezes_in_a_search_reports_what_there_is(exported_repository, tmp_path):
    results = tmp_path / "results"
    command = [sys.executable, "-m", "fathom.cli", "demo", "--model-repository", str(exported_repository)]
    demo = subprocess.Popen(
        [*command, "--budget", "15", "--report", str(results)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    points = results / "image_classifier" / "latest" / "points.jsonl"
    while demo.poll() is None and not (points.exists() and points.read_text()):
        time.sleep(0.2)
    for process in psutil.Process(demo.pid).children(recursive=True):
        if process.name() == "tritonserver":
            process.suspend()
    _, err = demo.communicate(timeout=120)
    assert demo.returncode == 1, err
    assert json.loads((results / "image_classifier" / "latest" / "capacity.json").read_text())["partial"]
    assert "Traceback" not in err
    assert (results / "report.html").exists()
    until(lambda: not left_of(exported_repository, demo.pid), lambda: left_of(exported_repository, demo.pid))
