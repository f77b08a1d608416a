"""What all tests share: the versions in the header, small models made here, and a running server that loads them."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import platform
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from complete_server import complete_server
from onnx import TensorProto, helper
from prepared import Preparation
from python_models import write_teller, write_total
from small_models import rows_together, write_double, write_onnx
from turns import WORKER, ByFolder, order, turn
from xdist.remote import Producer

from export import recipes
from export.models.language import smollm2
from fathom.console.options import default_config_name
from server import TritonServer, environment

FIRST_WORKER = WORKER in (None, "gw0")
BUNDLED = Path(__file__).parent / "export" / "models"


def pytest_configure() -> None:
    """A shell starts what it runs in the background with Ctrl-C ignored, which all processes of the tests inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    names = ("nvidia-pytriton", "onnxruntime", "onnx", "torch", "tritonclient", "grpcio", "numpy")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return f"{platform.processor() or platform.machine()}, " + ", ".join(versions)


SERVERS = frozenset(
    (
        "served",
        "small_server",
        "exported_repository",
        "imported_project",
        "language_repository",
        "shared_queue",
        "start_queue",
    )
)
"""Fixtures that start processes."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what the fixtures start processes for, and give those and what measures a second try.

    The tests of the bundled models come last: `preparation` exports those beside the tests before.
    """
    for item in items:
        if SERVERS & {*getattr(item, "fixturenames", ())}:
            item.add_marker(pytest.mark.process)
        if item.get_closest_marker("alone") or item.get_closest_marker("process"):
            item.add_marker(pytest.mark.flaky(reruns=1))
    items.sort(key=lambda item: (*order(item), BUNDLED in item.path.parents))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFolder:
    """Whatever `--dist` says: more than one worker for a folder would make all its servers twice."""
    return ByFolder(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """A test that measures has the machine to itself."""
    with turn(item):
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the tests allow is not allowed to whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def small_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`double`, `echo` (strings), `in_runs`, `mixed` (two types, no batch axis), `slow` (python, sleeps), `teller`
    (python, decoupled) and `total` (python, keeps state)."""
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
        instance_group [ { count: 1 kind: KIND_CPU } ]
        """
    )
    write_onnx(
        repository / "mixed" / "1" / "model.onnx",
        [helper.make_node("Identity", ["whole"], ["whole_out"]), helper.make_node("Identity", ["half"], ["half_out"])],
        [("whole", TensorProto.INT64, [3]), ("half", TensorProto.FLOAT16, ["m"])],
        [("whole_out", TensorProto.INT64, [3]), ("half_out", TensorProto.FLOAT16, ["m"])],
    )
    (repository / "mixed" / "config.pbtxt").write_text(
        """
        backend: "onnxruntime"
        input [ { name: "whole" data_type: TYPE_INT64 dims: [ 3 ] } ]
        input [ { name: "half" data_type: TYPE_FP16 dims: [ -1 ] } ]
        output [ { name: "whole_out" data_type: TYPE_INT64 dims: [ 3 ] } ]
        output [ { name: "half_out" data_type: TYPE_FP16 dims: [ -1 ] } ]
        instance_group [ { count: 1 kind: KIND_CPU } ]
        """
    )
    write_onnx(
        repository / "in_runs" / "1" / "model.onnx",
        [*rows_together(), helper.make_node("Identity", ["x"], ["same"])],
        [("x", TensorProto.FLOAT, ["n", 1])],
        [("together", TensorProto.INT64, ["n", 1]), ("same", TensorProto.FLOAT, ["n", 1])],
    )
    (repository / "in_runs" / "config.pbtxt").write_text(
        """
        backend: "onnxruntime"
        max_batch_size: 8
        input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ]
        output [ { name: "together" data_type: TYPE_INT64 dims: [ 1 ] } ]
        output [ { name: "same" data_type: TYPE_FP32 dims: [ 1 ] } ]
        instance_group [ { count: 1 kind: KIND_CPU } ]
        dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 400000 }
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
    write_teller(repository)
    write_total(repository)
    return repository


@pytest.fixture(scope="session")
def small_server(small_repository: Path) -> Iterator[TritonServer]:
    """A running Triton that serves `small_repository`."""
    with complete_server(small_repository) as server:
        yield server


PREPARED = {"exported_repository": "bundled", "imported_project": "imported"}
"""What the fixtures take from the preparation."""

if smollm2.gguf_file() is not None:
    PREPARED["language_repository"] = "language"


@pytest.fixture(scope="session")
def preparation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preparation]:
    """What the selected tests need of `prepared`; the first worker begins it, and all look into its folder."""
    base = tmp_path_factory.getbasetemp()
    running = Preparation((base.parent if WORKER else base) / "prepared")
    if FIRST_WORKER:
        running.begin(wanted(request))
    yield running
    running.end()


@pytest.fixture(scope="session", autouse=True)
def prepared_in_time(request: pytest.FixtureRequest) -> None:
    """`preparation` is begun before the first test."""
    if wanted(request) and FIRST_WORKER:
        request.getfixturevalue("preparation")


def wanted(request: pytest.FixtureRequest) -> list[str]:
    names = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    return [PREPARED[name] for name in PREPARED if name in names]


@pytest.fixture(scope="session")
def exported_repository(preparation: Preparation) -> Path:
    """The committed model repository, copied and exported into by the real export."""
    return preparation.result("bundled") / "model_repository"


@pytest.fixture(scope="session")
def imported_project(preparation: Preparation) -> Path:
    """A folder with somebody's own models, added to the `model_repository` in it."""
    project = preparation.result("imported")
    repository = project / "model_repository"
    recipes.allow_sources(
        recipes.find(name, repository) for name in recipes.names(repository)
    )  # another worker made it
    return project


@pytest.fixture(scope="session")
def language_repository(preparation: Preparation) -> Path:
    """A copy of the model repository with SmolLM2's real weights in 8 bits, and none of the other models'."""
    if "language_repository" not in PREPARED:
        pytest.skip(f"{smollm2.PACKAGE} is not installed: make .venv/systems")
    return preparation.result("language") / "model_repository"


@pytest.fixture(scope="session", autouse=True)
def numpy_asked_once() -> Iterator[None]:
    """A process for each start of a server would find NumPy as the one before it did."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "_require_numpy_1", functools.cache(environment._require_numpy_1))
        yield


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
