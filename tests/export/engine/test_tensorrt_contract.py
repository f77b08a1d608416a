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


MISSPELT = [
    # (file, its text, a misspelling of that; the rule which the misspelling breaks, and the name it gives)
    ("build.py", "STRONGLY_TYPED", "STRONGLY_TYPE", "name", "NetworkDefinitionCreationFlag.STRONGLY_TYPE"),
    ("build.py", "trt.OnnxParser(", "trt.ONNXParser(", "name", "tensorrt.ONNXParser"),
    ("build.py", "set_shape(", "set_shapes(", "name", "IOptimizationProfile.set_shapes"),
    ("build.py", "_network(network, config)", "_network(network)", "arguments", "Builder.build_serialized_network"),
    ("build.py", "progress_monitor =", "progress_monitors =", "property", "IBuilderConfig.progress_monitors"),
    ("build.py", "(network, log)", "(builder, log)", "type", "OnnxParser"),
    ("build.py", "tensor.shape", "tensor.shapes", "name", "ITensor.shapes"),
    ("build.py", "network: trt.INetworkDefinition", "network: trt.INetwork", "name", "tensorrt.INetwork"),
    ("build.py", "_profile(made)", "_profile(p=made)", "arguments", "IBuilderConfig.add_optimization_profile"),
    ("options.py", "MODERATE", "MODEST", "name", "TilingOptimizationLevel.MODEST"),
    ("options.py", "max_aux_streams =", "max_auxiliary =", "property", "IBuilderConfig.max_auxiliary"),
    ("options.py", "trt.BuilderFlag.TF32", "trt.TacticSource.JIT_CONVOLUTIONS", "type", "IBuilderConfig.clear_flag"),
    ("options.py", "Verbosity.DETAILED", "Verbosity.DETAIL", "name", "ProfilingVerbosity.DETAIL"),
    (
        "options.py", "trt.ProfilingVerbosity.DETAILED", "trt.BuilderFlag.DEBUG",
        "type", "IBuilderConfig.profiling_verbosity",
    ),
    ("progress.py", "def step_complete", "def step_done", "method", "IProgressMonitor.step_done"),
    ("progress.py", "phase_name: str, step: int)", "step: int)", "arguments", "IProgressMonitor.step_complete"),
    ("library.py", "Severity.INTERNAL_ERROR", "Severity.FATAL", "name", "ILogger.Severity.FATAL"),
    ("runtime.py", "execute_async_v3", "execute_async_v2", "name", "IExecutionContext.execute_async_v2"),
    ("runtime.py", "trt.TensorIOMode.INPUT", "trt.TensorIOMode.IN", "name", "TensorIOMode.IN"),
    ("cache.py", "timing_cache(cache, False)", "timing_cache(cache)", "arguments", "IBuilderConfig.set_timing_cache"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "right", "wrong", "rule", "name"), MISSPELT)
def test_a_misspelt_name_is_found(version: str, file: str, right: str, wrong: str, rule: str, name: str) -> None:
    assert right in SOURCES[file]
    mutated = {**SOURCES, file: SOURCES[file].replace(right, wrong, 1)}
    problems = tensorrt_contract.check(mutated, tensorrt_bindings.surface(version)).problems
    assert (file, rule, name) in [(each.file, each.rule, each.name) for each in problems]


def test_what_11_removed_is_found() -> None:
    """`BuilderFlag.FP16` is in 10.16 and gone in 11: the silent FP32 engine named fp16."""
    source = {"engine_old.py": "def f(trt, config: trt.IBuilderConfig): config.set_flag(trt.BuilderFlag.FP16)"}
    older, newer = (
        tensorrt_contract.check(source, tensorrt_bindings.surface(each)) for each in tensorrt_bindings.VERSIONS
    )
    assert older.problems == []
    assert newer.problems == [tensorrt_contract.Problem("engine_old.py", 1, "name", "BuilderFlag.FP16")]


def test_the_error_names_the_wheel_or_compiler_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(tensorrt_bindings.BindingsError) as wheel:
        tensorrt_bindings.environment("10.16.1.11", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(tensorrt_bindings.BindingsError) as compiler:
        tensorrt_bindings._compile("10", tmp_path / "stub")
    assert (wheel.value.missing, compiler.value.missing) == ("tensorrt-cu13-bindings==10.16.1.11", "gcc")
    assert not (tmp_path / "10.16.1.11").exists()
