"""Every TensorRT name, keyword and type that export/ uses, held to the real bindings of 10.16 and 11.4, without a GPU.

Red when a name is misspelt, and so that this cannot become vacuous, shown red here on misspelt copies.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tensorrt_bindings
import tensorrt_contract

EXPORT = Path(__file__).parents[3] / "export" / "engine"
SOURCES = {path.name: path.read_text() for path in sorted(EXPORT.glob("*.py"))}

MUST_BE_SEEN = {
    "BuilderFlag.VERSION_COMPATIBLE",
    "Builder.build_serialized_network()",
    "Builder.create_network()",
    "EngineInspector.get_engine_information()",
    "IBuilderConfig.builder_optimization_level =",
    "IBuilderConfig.create_timing_cache()",
    "IBuilderConfig.hardware_compatibility_level =",
    "IBuilderConfig.max_aux_streams =",
    "IBuilderConfig.profiling_verbosity =",
    "IBuilderConfig.progress_monitor =",
    "IBuilderConfig.set_memory_pool_limit()",
    "IBuilderConfig.tiling_optimization_level =",
    "ICudaEngine.create_execution_context()",
    "ICudaEngine.get_tensor_dtype()",
    "IExecutionContext.execute_async_v3()",
    "IExecutionContext.set_input_shape()",
    "ILogger.Severity.ERROR",
    "IOptimizationProfile.set_shape()",
    "IProgressMonitor.step_complete()",
    "ITensor.shape",
    "ITimingCache.serialize()",
    "LayerInformationFormat.JSON",
    "MemoryPoolType.WORKSPACE",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "OnnxParser.parse_from_file()",
    "ParserError.node_operator()",
    "Runtime.deserialize_cuda_engine()",
    "Runtime.engine_host_code_allowed =",
    "TilingOptimizationLevel.MODERATE",
    "nptype",
}


@pytest.fixture(params=tensorrt_bindings.VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_name_is_in_the_real_bindings(version: str) -> None:
    report = tensorrt_contract.check(SOURCES, tensorrt_bindings.surface(version))
    print(f"TensorRT {report.version}: {len(report.used)} names held, {len(report.problems)} problems")
    assert report.version == version
    assert report.problems == []
    assert report.used >= MUST_BE_SEEN


def test_the_stubs_give_the_real_module_but_no_builder(version: str) -> None:
    script = "import tensorrt as t, sys\ntry: t.Builder(t.Logger())\nexcept TypeError as e: sys.exit(str(e))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=tensorrt_bindings.environment(version),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "factory function returned nullptr" in done.stderr


@pytest.mark.parametrize(
    ("file", "right", "wrong", "says"),
    [
        ("build.py", "STRONGLY_TYPED", "STRONGLY_TYPE", "NetworkDefinitionCreationFlag has no 'STRONGLY_TYPE'"),
        ("build.py", "trt.OnnxParser(", "trt.ONNXParser(", "tensorrt has no 'ONNXParser'"),
        ("build.py", "set_shape(", "set_shapes(", "IOptimizationProfile has no 'set_shapes'"),
        ("build.py", "build_serialized_network(network, config)", "build_serialized_network(network)", "takes ("),
        ("build.py", "progress_monitor =", "progress_monitors =", "no property 'progress_monitors' to assign"),
        ("build.py", "(network, log)", "(builder, log)", "'network' is INetworkDefinition, not Builder"),
        ("build.py", "tensor.shape", "tensor.shapes", "ITensor has no 'shapes'"),
        ("build.py", "network: trt.INetworkDefinition", "network: trt.INetwork", "tensorrt has no 'INetwork'"),
        ("build.py", "config.add_optimization_profile(made)", "config.add_optimization_profile(p=made)", "p="),
        ("options.py", "MODERATE", "MODEST", "TilingOptimizationLevel has no 'MODEST'"),
        ("options.py", "max_aux_streams =", "max_auxiliary_streams =", "no property"),
        ("options.py", "trt.BuilderFlag.TF32", "trt.TacticSource.JIT_CONVOLUTIONS", "not TacticSource"),
        ("options.py", "trt.ProfilingVerbosity.DETAILED", "trt.BuilderFlag.DEBUG", "not BuilderFlag"),
        ("progress.py", "def step_complete", "def step_done", "has no method 'step_done' to override"),
        ("progress.py", "phase_name: str, step: int)", "step: int)", "does not take 1 arguments"),
        ("library.py", "Severity.INTERNAL_ERROR", "Severity.FATAL", "ILogger.Severity has no 'FATAL'"),
        ("runtime.py", "execute_async_v3", "execute_async_v2", "IExecutionContext has no 'execute_async_v2'"),
        ("runtime.py", "trt.TensorIOMode.INPUT", "trt.TensorIOMode.IN", "TensorIOMode has no 'IN'"),
        ("cache.py", "set_timing_cache(cache, False)", "set_timing_cache(cache)", "takes ("),
    ],
)
def test_a_misspelt_name_is_found(version: str, file: str, right: str, wrong: str, says: str) -> None:
    assert right in SOURCES[file]
    mutated = {**SOURCES, file: SOURCES[file].replace(right, wrong, 1)}
    problems = tensorrt_contract.check(mutated, tensorrt_bindings.surface(version)).problems
    assert any(says in problem and problem.startswith(f"{file}:") for problem in problems), problems


def test_what_11_removed_is_found() -> None:
    """`BuilderFlag.FP16` is in 10.16 and gone in 11: the silent FP32 engine named fp16."""
    source = {"engine_old.py": "def f(trt, config: trt.IBuilderConfig): config.set_flag(trt.BuilderFlag.FP16)"}
    older, newer = (
        tensorrt_contract.check(source, tensorrt_bindings.surface(each)) for each in tensorrt_bindings.VERSIONS
    )
    assert older.problems == []
    assert newer.problems == ["engine_old.py:1: BuilderFlag has no 'FP16' (TensorRT 11.4.0.106)"]


def test_missing_wheels_and_compilers_fail_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_bindings, "CACHE", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(tensorrt_bindings.BindingsError, match="pip cannot download tensorrt-cu13-bindings==10"):
        tensorrt_bindings.environment("10.16.1.11")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(tensorrt_bindings.BindingsError, match="gcc is missing"):
        tensorrt_bindings._compile("10", tmp_path / "stub")
    assert not (tmp_path / "10.16.1.11").exists()
