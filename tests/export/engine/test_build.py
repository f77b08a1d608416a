"""The engine build against a recording double of TensorRT whose surface is that of the real 10.16 and 11.4 bindings."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorrt_bindings
import tensorrt_double
from tensorrt_double import Recording, Tensor
from waiting import until

from export.engine import build as engine
from export.engine import cache as engine_cache
from export.engine import gpu, library
from export.engine.options import EngineOptions
from export.engine.profiles import Profile, Shapes
from export.errors import EngineError, EngineUnavailableError

PROFILE = Profile({"x": Shapes((1, 3), (4, 3), (8, 3))})
INPUTS = (Tensor(name="x", shape=(-1, 3)), Tensor(name="fixed", shape=(2, 2)))
Answers = dict[str, Callable[..., Any]]


@pytest.fixture(params=tensorrt_bindings.VERSIONS)
def surface(request: pytest.FixtureRequest) -> dict[str, Any]:
    return tensorrt_bindings.surface(request.param)


def double(surface: dict[str, Any], answers: Answers | None = None) -> tuple[Any, Recording]:
    """A TensorRT that takes any ONNX file with `INPUTS` and builds the plan b"plan"."""
    network: Answers = {
        "INetworkDefinition.num_inputs": lambda network: len(INPUTS),
        "INetworkDefinition.get_input": lambda network, index: INPUTS[index],
        "Builder.build_serialized_network": lambda builder, network, config: b"plan",
        "ITimingCache.serialize": lambda cache: b"measured",
    }
    return tensorrt_double.make(surface, network | (answers or {}))


def test_the_whole_build(surface: dict[str, Any], tmp_path: Path) -> None:
    trt, recording = double(surface)
    options = EngineOptions(
        workspace_gb=2.5,
        builder_optimization_level=4,
        tiling="moderate",
        max_aux_streams=0,
        hardware_compatibility="ampere-plus",
        version_compatible=True,
        tf32=False,
    )
    built = engine.build(trt, tmp_path / "model.onnx", tmp_path / "model.plan", [PROFILE], options)
    assert (tmp_path / "model.plan").read_bytes() == b"plan"
    assert built.plan_bytes == 4
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert recording.of("Builder.create_network") == [(strongly_typed,)]
    assert recording.of("OnnxParser.parse_from_file") == [(str(tmp_path / "model.onnx"),)]
    assert recording.of("IOptimizationProfile.set_shape") == [("x", (1, 3), (4, 3), (8, 3))]
    assert recording.of("IBuilderConfig.set_memory_pool_limit") == [(trt.MemoryPoolType.WORKSPACE, 2_500_000_000)]
    assert recording.of("IBuilderConfig.builder_optimization_level =") == [4]
    assert recording.of("IBuilderConfig.tiling_optimization_level =") == [trt.TilingOptimizationLevel.MODERATE]
    assert recording.of("IBuilderConfig.max_aux_streams =") == [0]
    assert recording.of("IBuilderConfig.hardware_compatibility_level =") == [trt.HardwareCompatibilityLevel.AMPERE_PLUS]
    assert recording.of("IBuilderConfig.profiling_verbosity =") == [trt.ProfilingVerbosity.DETAILED]
    assert recording.of("IBuilderConfig.set_flag") == [(trt.BuilderFlag.VERSION_COMPATIBLE,)]
    assert recording.of("IBuilderConfig.clear_flag") == [(trt.BuilderFlag.TF32,)]
    (watcher,) = recording.of("IBuilderConfig.progress_monitor =")
    assert isinstance(watcher, trt.IProgressMonitor)


def test_defaults_are_left_to_tensorrt(surface: dict[str, Any], tmp_path: Path) -> None:
    trt, recording = double(surface)
    engine.build(trt, tmp_path / "model.onnx", tmp_path / "model.plan", [PROFILE], EngineOptions())
    written = {event for event, _ in recording.events if event.endswith(" =") or "flag" in event or "limit" in event}
    assert written == {
        "IBuilderConfig.profiling_verbosity =",
        "IBuilderConfig.hardware_compatibility_level =",
        "IBuilderConfig.progress_monitor =",
    }


def test_several_profiles_are_added_in_order(surface: dict[str, Any], tmp_path: Path) -> None:
    trt, recording = double(surface)
    second = Profile({"x": Shapes((1, 3), (8, 3), (8, 3))})
    engine.build(trt, tmp_path / "model.onnx", tmp_path / "model.plan", [PROFILE, second], EngineOptions())
    assert [shapes[2] for shapes in recording.of("IOptimizationProfile.set_shape")] == [(4, 3), (8, 3)]
    assert len(recording.of("IBuilderConfig.add_optimization_profile")) == 2


def test_parser_errors_name_node_and_operator(surface: dict[str, Any], tmp_path: Path) -> None:
    trt, _ = double(
        surface,
        {
            "OnnxParser.parse_from_file": lambda parser, path: False,
            "OnnxParser.num_errors": lambda parser: 5,
            "ParserError.node_name": lambda error: "tree",
            "ParserError.node_operator": lambda error: "TreeEnsemble",
            "ParserError.desc": lambda error: "no importer\n registered",
        },
    )
    with pytest.raises(EngineError) as caught:
        engine.build(trt, tmp_path / "model.onnx", tmp_path / "model.plan", [PROFILE], EngineOptions())
    message = str(caught.value)
    assert caught.value.file == "model.onnx"
    assert surface["version"] in message
    assert [message.count(part) for part in ("'tree'", "TreeEnsemble", "no importer registered")] == [3, 3, 3]
    assert "2 more" in message
    assert not (tmp_path / "model.plan").exists()


def test_a_failed_build_says_what_tensorrt_logged(surface: dict[str, Any], tmp_path: Path) -> None:
    logs: list[Any] = []

    def fail(builder: Any, network: Any, config: Any) -> None:
        severity = trt.ILogger.Severity
        logs[0].log(severity.INFO, "chatter")
        logs[0].log(severity.ERROR, "could not find any implementation\nfor node conv")

    trt, _ = double(surface, {"Builder.build_serialized_network": fail})
    original = trt.Builder.__init__

    def keep(this: Any, log: Any) -> None:
        logs.append(log)
        original(this, log)

    trt.Builder.__init__ = keep
    with pytest.raises(EngineError) as caught:
        engine.build(trt, tmp_path / "model.onnx", tmp_path / "model.plan", [PROFILE], EngineOptions())
    assert caught.value.file == "model.onnx"
    assert "could not find any implementation for node conv" in str(caught.value), "what the double logged"
    assert "chatter" not in str(caught.value)
    assert not (tmp_path / "model.plan").exists()


def test_no_builder_is_unavailable(surface: dict[str, Any], tmp_path: Path) -> None:
    trt, _ = double(surface)

    def no_builder(this: Any, log: Any) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt.Builder.__init__ = no_builder
    with pytest.raises(EngineUnavailableError, match=re.escape(surface["version"])):
        engine.build(trt, tmp_path / "model.onnx", tmp_path / "model.plan", [PROFILE], EngineOptions())


@pytest.mark.parametrize(
    ("answers", "profile", "tensor", "found"),
    [
        pytest.param({}, Profile({}), "x", None, id="an input without shapes"),
        pytest.param({}, Profile({"x": Shapes((1,), (1,), (1,))}), "x", [1], id="another rank"),
        pytest.param(
            {"IBuilderConfig.add_optimization_profile": lambda config, profile: -1},
            PROFILE,
            None,
            0,
            id="refused when added",
        ),
        pytest.param({"IOptimizationProfile.__bool__": lambda made: False}, PROFILE, None, 0, id="invalid"),
    ],
)
def test_profiles_that_do_not_fit(
    surface: dict[str, Any],
    tmp_path: Path,
    answers: Answers,
    profile: Profile,
    tensor: str | None,
    found: list[int] | int | None,
) -> None:
    trt, _ = double(surface, answers)
    with pytest.raises(EngineError) as caught:
        engine.build(trt, tmp_path / "model.onnx", tmp_path / "model.plan", [profile], EngineOptions())
    assert (caught.value.tensor, caught.value.found) == (tensor, found)


def test_progress_comes_from_the_monitor(surface: dict[str, Any], tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def slowly(builder: Any, network: Any, config: Any) -> bytes:
        watcher = config.progress_monitor
        watcher.phase_start("Building", None, 4)
        assert watcher.step_complete("Building", 1)
        watcher.phase_start("Timing", "Building", 100)
        until(lambda: any("Timing" in step for step, _, _ in seen))
        watcher.phase_finish("Timing")
        watcher.phase_finish("Building")
        return b"plan"

    trt, _ = double(surface, {"Builder.build_serialized_network": slowly})

    def on_progress(step: str, done: int, total: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        seen.append((step, done, total))

    engine.build(
        trt, tmp_path / "model.onnx", tmp_path / "model.plan", [PROFILE], EngineOptions(), on_progress=on_progress
    )
    assert ("build the engine: Timing", 2, 4) in seen


def test_ctrl_c_stops_the_build_at_its_next_step(surface: dict[str, Any], tmp_path: Path) -> None:
    steps: list[bool] = []

    def endless(builder: Any, network: Any, config: Any) -> None:
        config.progress_monitor.phase_start("Building", None, 1000)
        os.kill(os.getpid(), signal.SIGINT)
        until(lambda: not config.progress_monitor.step_complete("Building", 1))
        steps.append(config.progress_monitor.step_complete("Building", 2))

    trt, _ = double(surface, {"Builder.build_serialized_network": endless})
    with pytest.raises(KeyboardInterrupt):
        engine.build(trt, tmp_path / "model.onnx", tmp_path / "model.plan", [PROFILE], EngineOptions())
    assert steps == [False]
    assert not (tmp_path / "model.plan").exists()


def test_the_timing_cache_is_kept_per_gpu_and_version(surface: dict[str, Any], tmp_path: Path) -> None:
    card = gpu.Gpu("NVIDIA A100-SXM4-80GB", "8.0", "580.65")
    path = engine_cache.path_for(tmp_path / "model_repository", card, surface["version"])
    assert path == tmp_path / ".fathom-cache" / f"timing-a100-sxm4-80gb-sm80-tensorrt-{surface['version']}.cache"
    for expected in (b"", b"measured"):
        trt, recording = double(surface)
        engine.build(
            trt, tmp_path / "model.onnx", tmp_path / "model.plan", [PROFILE], EngineOptions(), timing_cache=path
        )
        assert recording.of("IBuilderConfig.create_timing_cache") == [(expected,)]
        assert path.read_bytes() == b"measured"
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_a_timing_cache_that_does_not_fit_is_replaced(surface: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "timing.cache"
    path.write_bytes(b"of another build")
    taken = iter([False, True])
    trt, recording = double(surface, {"IBuilderConfig.set_timing_cache": lambda config, cache, ignore: next(taken)})
    engine.build(trt, tmp_path / "model.onnx", tmp_path / "model.plan", [PROFILE], EngineOptions(), timing_cache=path)
    assert recording.of("IBuilderConfig.create_timing_cache") == [(b"of another build",), (b"",)]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("workspace_gb", 0.0),
        ("builder_optimization_level", 6),
        ("max_aux_streams", -1),
        ("hardware_compatibility", "hopper"),
        ("tiling", "much"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(EngineError) as caught:
        EngineOptions(**{option: value})
    assert (caught.value.field, caught.value.found) == (option, value)


@pytest.mark.parametrize(("version", "ok"), [("10.12.0.36", False), ("10.13.2.6", True), ("11.4.0.106.post1", True)])
def test_the_oldest_tensorrt(version: str, ok: bool) -> None:
    if ok:
        library.check_version(version)
    else:
        with pytest.raises(EngineUnavailableError) as caught:
            library.check_version(version)
        assert (caught.value.found, caught.value.expected) == ("10.12.0.36", "10.13")


def test_without_a_gpu_tensorrt_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find", lambda: None)
    monkeypatch.setattr(library.importlib, "import_module", pytest.fail)
    with pytest.raises(EngineUnavailableError, match="GPU"):
        library.load()


def test_a_gpu_without_tensorrt_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find", lambda: gpu.Gpu("NVIDIA H200", "9.0", "580.65"))
    with pytest.raises(EngineUnavailableError, match=r"nvcr\.io/nvidia/tensorrt:"):
        library.load()


def test_the_double_has_no_name_that_the_real_module_has_not(surface: dict[str, Any]) -> None:
    trt, _ = double(surface)
    builder = trt.Builder(trt.Logger())
    config = builder.create_builder_config()
    with pytest.raises(AttributeError):
        _ = builder.max_workspace_size
    with pytest.raises(AttributeError):
        config.max_workspace_size = 1
    with pytest.raises(TypeError):
        config.set_flag("FP16")
    with pytest.raises(TypeError):
        builder.create_network(explicit=1)
    with pytest.raises(AttributeError, match=r"IBuilderConfig\.set_flags"):
        tensorrt_double.make(surface, {"IBuilderConfig.set_flags": lambda config: None})


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("NVIDIA H200, 9.0, 580.65.06\nNVIDIA H200, 9.0, 580.65.06\n", gpu.Gpu("NVIDIA H200", "9.0", "580.65.06")),
        ("No devices were found\n", None),
        ("", None),
    ],
)
def test_what_nvidia_smi_says(answer: str, found: gpu.Gpu | None) -> None:
    assert gpu.parse(answer) == found
