"""Engines on a real GPU with a real TensorRT (in nvcr.io/nvidia/tensorrt:<tag>): built, asked, timed, cancelled."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import engine_machine
import numpy as np
import pytest
from interrupting import interrupt
from scale_model import Scale, write_repository

from export import recipes
from export.engine import build as engine
from export.engine import gpu, library, plan_header
from export.engine.export import export_engine
from export.engine.options import EngineOptions
from export.engine.profiles import Profile, Shapes
from export.errors import EngineUnavailableError
from export.exporter import export_model
from export.lint.lint import lint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(gpu.find() is None, reason="needs an NVIDIA GPU: nvidia-smi found none"),
]


@pytest.fixture(scope="module")
def trt() -> Any:
    try:
        return library.load()
    except EngineUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def scale(tmp_path: Path) -> Scale:
    weights = tmp_path / "gain.txt"
    weights.write_text("2")
    return Scale(weights)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(EngineOptions(), id="defaults"),
        pytest.param(EngineOptions(hardware_compatibility="ampere-plus", version_compatible=True), id="compatible"),
        pytest.param(
            EngineOptions(workspace_gb=1, builder_optimization_level=5, tiling="fast", max_aux_streams=0, tf32=False),
            id="every option",
        ),
    ],
)
def test_the_small_model(trt: Any, tmp_path: Path, scale: Scale, options: EngineOptions) -> None:
    repository = write_repository(tmp_path / "model_repository")
    engine_machine.write_reference(scale, repository / "scale")
    record = export_engine(scale, repository, trt, options).record
    header = plan_header.read_header(repository / "scale" / "1" / "model.plan")
    assert header.tensorrt is not None
    assert header.tensorrt == plan_header.parse(trt.__version__)[: len(header.tensorrt)]
    assert record.accuracy == {"hit_rate": 1.0}
    assert [each for each in lint(repository, ["scale"]) if each.severity == "error"] == []
    assert export_engine(scale, repository, trt, options).skipped


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2", "minilm"])
def test_the_bundled_models(trt: Any, exported_repository: Path, name: str) -> None:
    recipe = recipes.find(name)
    assert (exported_repository / name / "1" / "model.onnx").is_file() or export_model(recipe, exported_repository)
    record = export_engine(recipe, exported_repository, trt, EngineOptions(builder_optimization_level=1)).record
    assert record.parity.min_cosine > 0.999
    assert np.isfinite(record.batch1_ms)


def test_ctrl_c_cancels_a_build(trt: Any, tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "model_repository")
    shapes = Shapes((1, 3), (8, 3), (8, 3))
    target = tmp_path / "model.plan"

    def build_until_stopped(timer: threading.Timer) -> None:
        timer.start()
        while True:
            engine.build(trt, repository / "scale/1/model.onnx", target, [Profile({"x": shapes})], EngineOptions())
            target.unlink()

    with interrupt(0.05) as timer, pytest.raises(KeyboardInterrupt):
        build_until_stopped(timer)
