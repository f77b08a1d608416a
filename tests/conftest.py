"""What all tests share: the versions in the header, small models made here, and a running server that loads them."""

from __future__ import annotations

import gc
import importlib.metadata
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mortal import mortal
from onnx import TensorProto, helper
from small_models import write_double, write_onnx

from fathom.options import default_config_name
from server import TritonServer

ROOT = Path(__file__).parents[1]
ARTEFACTS = ("*.onnx", "*.json", "*.npz", "__pycache__")


def pytest_report_header() -> str:
    names = ("nvidia-pytriton", "onnxruntime", "onnx", "torch", "tritonclient", "grpcio", "numpy")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return f"{platform.processor() or platform.machine()}, " + ", ".join(versions)


@pytest.fixture(scope="session")
def small_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`double`, `echo` (strings), `in_runs`, `mixed` (two types, no batch axis) and `slow` (python, sleeps)."""
    repository = tmp_path_factory.mktemp("small") / "model_repository"
    write_double(
        repository / "double",
        """
        max_batch_size: 8
        input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" } ]
        dynamic_batching { default_queue_policy { max_queue_size: 64 default_timeout_microseconds: 2000000 } }
        """,
    )
    (repository / "double" / "labels.txt").write_text("left\nright\n")
    string = (TensorProto.STRING, ["n", 1])
    write_onnx(
        repository / "echo" / "1" / "model.onnx",
        [helper.make_node("Identity", ["text"], ["said"])],
        [("text", *string)],
        [("said", *string)],
    )
    (repository / "echo" / "config.pbtxt").write_text(
        """
        backend: "onnxruntime"
        max_batch_size: 8
        input [ { name: "text" data_type: TYPE_STRING dims: [ 1 ] } ]
        output [ { name: "said" data_type: TYPE_STRING dims: [ 1 ] } ]
        """
    )
    write_onnx(
        repository / "mixed" / "1" / "model.onnx",
        [helper.make_node("Identity", ["whole"], ["whole_out"]), helper.make_node("Identity", ["half"], ["half_out"])],
        [("whole", TensorProto.INT64, [3]), ("half", TensorProto.FLOAT16, ["m"])],
        [("whole_out", TensorProto.INT64, [3]), ("half_out", TensorProto.FLOAT16, ["m"])],
    )
    (repository / "mixed" / "config.pbtxt").write_text('backend: "onnxruntime"\n')
    write_onnx(
        repository / "in_runs" / "1" / "model.onnx",
        [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Shape", ["x"], ["count"], start=0, end=1),
            helper.make_node("Expand", ["count", "shape"], ["together"]),
            helper.make_node("Identity", ["x"], ["same"]),
        ],
        [("x", TensorProto.FLOAT, ["n", 1])],
        [("together", TensorProto.INT64, ["n", 1]), ("same", TensorProto.FLOAT, ["n", 1])],
    )
    (repository / "in_runs" / "config.pbtxt").write_text(
        """
        backend: "onnxruntime"
        max_batch_size: 8
        parameters { key: "rows_per_run" value { string_value: "2" } }
        """
    )
    slow = repository / "slow"
    (slow / "1").mkdir(parents=True)
    (slow / "config.pbtxt").write_text(
        """
        backend: "python"
        max_batch_size: 1
        input [ { name: "seconds" data_type: TYPE_FP32 dims: [ 1 ] } ]
        output [ { name: "slept" data_type: TYPE_FP32 dims: [ 1 ] } ]
        dynamic_batching { default_queue_policy { max_queue_size: 2 default_timeout_microseconds: 5000000 } }
        """
    )
    (slow / "1" / "model.py").write_text(
        """
import time
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            seconds = pb_utils.get_input_tensor_by_name(request, "seconds").as_numpy()
            time.sleep(float(seconds[0, 0]))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("slept", seconds)]))
        return responses
"""
    )
    return repository


@pytest.fixture(scope="session")
def small_server(small_repository: Path) -> Iterator[TritonServer]:
    """A running Triton that serves `small_repository`."""
    with TritonServer(small_repository, stop_timeout_s=0) as server:
        yield server


EXPORT = """
import sys
from pathlib import Path
from export import recipes
from export.exporter import export_model
for name in recipes.NAMES:
    export_model(recipes.find(name), Path(sys.argv[1]))
"""


@pytest.fixture(scope="session", autouse=True)
def exporting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, subprocess.Popen[str]] | None]:
    """The export of the bundled models, begun before the first test beside those that do not need it.

    It has half a minute of torch's exporter in it, and is a process of its own so that torch and what it leaves behind
    are not in this one.
    """
    if not any("exported_repository" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    repository = tmp_path_factory.mktemp("exported") / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository, ignore=shutil.ignore_patterns(*ARTEFACTS))
    command = mortal([sys.executable, "-c", EXPORT, str(repository)])
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        yield repository, process
        process.kill()


@pytest.fixture(scope="session")
def exported_repository(exporting: tuple[Path, subprocess.Popen[str]]) -> Path:
    """The committed model repository, copied and exported into by the real export."""
    repository, process = exporting
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return repository


@pytest.fixture(scope="module", autouse=True)
def settled() -> None:
    """What lives by now stays: the collections that every export asks for need not go through torch each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def served(exported_repository: Path) -> Iterator[TritonServer]:
    """A running Triton that serves all bundled models."""
    name = default_config_name(exported_repository)
    with TritonServer(exported_repository, config_name=name, stop_timeout_s=0) as server:
        yield server
