"""A graph's time and memory are bounded, and its process ends with the one that started it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from endless_graphs import forever, growing
from scale_model import write_scale
from waiting import until

from export.errors import ExportError, LimitError
from export.graph import onnx_file, runtime
from export.graph.runtime import GIGABYTES, SECONDS, Limits

pytestmark = pytest.mark.process

X = {"x": np.ones((1, 4), np.float32)}

OVER = [
    (forever(), Limits(seconds=0.5), SECONDS, "a loop without end"),
    (forever(constant=True), Limits(seconds=0.5), SECONDS, "a loop without end over constants"),
    (growing(), Limits(memory_bytes=10**9), GIGABYTES, "a loop whose value doubles each time"),
]


@pytest.mark.parametrize(("model", "limits", "field", "why"), OVER, ids=[row[-1] for row in OVER])
def test_a_graph_that_takes_more_than_it_may(model: onnx.ModelProto, limits: Limits, field: str, why: str) -> None:
    with pytest.raises(LimitError) as caught:
        onnx_file.session(model.SerializeToString(), limits=limits)(X)

    assert caught.value.field == field


def test_after_a_limit_its_sessions_are_lost_and_a_new_one_is_not(tmp_path: Path) -> None:
    limits = Limits(seconds=0.6)
    graph = onnx_file.session(forever().SerializeToString(), limits=limits)
    for _ in range(2):  # the second one is not waited for: its process is gone
        with pytest.raises(LimitError):
            graph(X)
    write_scale(tmp_path / "m.onnx")

    scale = onnx_file.session(tmp_path / "m.onnx", limits=Limits())

    assert (scale.inputs, scale.outputs) == (("x",), ("y",))
    assert (scale({"x": np.ones((1, 3), np.float32)})["y"] == 2).all()


def test_a_request_that_the_graph_refuses_leaves_its_session_in_use(tmp_path: Path) -> None:
    write_scale(tmp_path / "m.onnx")
    scale = onnx_file.session(tmp_path / "m.onnx")

    with pytest.raises(RuntimeError):
        scale({"x": np.ones((1, 5), np.float32)})
    assert (scale({"x": np.ones((1, 3), np.float32)})["y"] == 2).all()


def test_a_killed_parent_takes_a_busy_graph_along(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(forever().SerializeToString())
    code = f"""
from pathlib import Path
import numpy as np
from export.graph import onnx_file
graph = onnx_file.session(Path({str(tmp_path / "m.onnx")!r}))
print("loaded", flush=True)
graph({{"x": np.ones((1, 4), np.float32)}})
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "loaded\n"
        (child,) = psutil.Process(parent.pid).children()
        busy = child.cpu_times().user
        until(lambda: child.cpu_times().user > busy + 0.1)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.communicate()

    until(lambda: not child.is_running())


SETTINGS = [
    ({}, Limits(30.0, None), "nothing set"),
    ({SECONDS: "90"}, Limits(90.0, None), "more time"),
    ({GIGABYTES: "1.5"}, Limits(30.0, 1_500_000_000), "a part of a gigabyte"),
]


@pytest.mark.parametrize(("set_to", "limits", "why"), SETTINGS, ids=[row[-1] for row in SETTINGS])
def test_limits_of_the_environment(
    set_to: dict[str, str], limits: Limits, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in set_to.items():
        monkeypatch.setenv(name, value)

    assert Limits.from_environment() == limits


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_a_limit_that_is_no_positive_number(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECONDS, text)

    with pytest.raises(ExportError) as caught:
        Limits.from_environment()
    assert (caught.value.field, caught.value.found) == (SECONDS, text)


def test_there_is_memory_on_this_machine() -> None:
    available = runtime.available_bytes()

    assert available is None or available > 100e6
