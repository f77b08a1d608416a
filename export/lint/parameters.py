"""Lint rules for `parameters` and accelerators: free text to Triton, so a misspelt key is silently nothing."""

from __future__ import annotations

import ast
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from export import files
from export.config.config import TENSORRT
from export.errors import FileError
from export.lint.finding import Findings, Subject

ONNXRUNTIME = {
    "execution_mode",
    "intra_op_thread_count",
    "inter_op_thread_count",
    "enable_mem_arena",
    "enable_mem_pattern",
    "session.use_device_allocator_for_initializers",
    "memory.enable_memory_arena_shrinkage",
    "cudnn_conv_algo_search",
    "gpu_mem_limit",
    "arena_extend_strategy",
    "do_copy_in_default_stream",
    "FORCE_CPU_ONLY_INPUT_TENSORS",
    "rows_per_run",
}
"""What Triton's ONNX Runtime backend reads (onnxruntime.cc), and what only the embedded server's does: the last two."""

PYTHON = {"EXECUTION_ENV_PATH", "FORCE_CPU_ONLY_INPUT_TENSORS"}

WHOLE_NUMBERS = ("intra_op_thread_count", "inter_op_thread_count", "execution_mode", "gpu_mem_limit", "rows_per_run")

TENSORRT_PROVIDER = {
    "precision_mode",
    "max_workspace_size_bytes",
    "int8_calibration_table_name",
    "int8_use_native_calibration_table",
    *(
        f"trt_{name}"
        for name in (
            "max_partition_iterations",
            "min_subgraph_size",
            "dla_enable",
            "dla_core",
            "engine_cache_enable",
            "engine_cache_path",
            "engine_cache_prefix",
            "dump_subgraphs",
            "force_sequential_engine_build",
            "context_memory_sharing_enable",
            "layer_norm_fp32_fallback",
            "timing_cache_enable",
            "timing_cache_path",
            "force_timing_cache",
            "detailed_build_log",
            "build_heuristics_enable",
            "sparsity_enable",
            "builder_optimization_level",
            "auxiliary_streams",
            "tactic_sources",
            "extra_plugin_lib_paths",
            "profile_min_shapes",
            "profile_max_shapes",
            "profile_opt_shapes",
            "cuda_graph_enable",
            "dump_ep_context_model",
            "ep_context_file_path",
            "ep_context_embed_mode",
        )
    ),
}
"""What the backend passes to ONNX Runtime's TensorRT provider; any other key fails the load."""


def check(subject: Subject) -> Findings:
    """All rules of this file."""
    message = subject.message
    backend = message.backend or message.platform
    if backend in ("onnxruntime", "onnxruntime_onnx"):
        yield from _known(subject, ONNXRUNTIME, "the ONNX Runtime backend")
        yield from _whole_numbers(subject)
        if "intra_op_thread_count" not in message.parameters:
            yield subject.warning(
                "parameters",
                "intra_op_thread_count is not set, so every instance takes a thread per core",
                "write it: instances x threads should equal the cores",
            )
    elif backend in ("tensorrt", "tensorrt_plan"):
        yield from _known(subject, TENSORRT, "the TensorRT backend")
    elif backend == "python":
        yield from _python(subject)
    yield from _accelerators(subject, message)


def declared_parameters(model_py: Path) -> set[str] | None:
    """The keys of the literal `PARAMETERS` (set, dict, list or tuple) at the top of a model.py, or None.

    Raises SyntaxError, ValueError, RecursionError or MemoryError when the file is not Python, FileError for none.
    """
    for node in ast.parse(files.read(model_py), str(model_py)).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if not any(isinstance(target, ast.Name) and target.id == "PARAMETERS" for target in targets):
            continue
        value = getattr(node, "value", None)
        if isinstance(value, ast.Call) and value.args:  # frozenset({...})
            value = value.args[0]
        try:
            return {str(key) for key in ast.literal_eval(value)} if value is not None else None
        except (ValueError, TypeError):
            return None
    return None


def _python(subject: Subject) -> Findings:
    model_py = subject.folder / "1" / (subject.message.default_model_filename or "model.py")
    if files.problem(subject.folder, model_py.relative_to(subject.folder)):
        return  # the rules about artefacts say so
    place = f"{subject.folder.name}/1/{model_py.name}"
    try:
        declared = declared_parameters(model_py)
    except SyntaxError as error:
        where = f"{place}, line {error.lineno}"
        yield subject.error("default_model_filename", f"{where} is not Python ({error.msg})", "correct the file")
        return
    except (FileError, ValueError, RecursionError, MemoryError) as error:
        why = error.why if isinstance(error, FileError) else f"is not Python ({error or type(error).__name__})"
        yield subject.error("default_model_filename", f"{place} {why}", "correct the file")
        return
    own = [key for key in subject.message.parameters if key not in PYTHON]
    if declared is not None:
        yield from _known(subject, declared | PYTHON, f"{subject.folder.name}/1/{model_py.name}")
    elif own:
        yield subject.warning(
            f'parameters["{own[0]}"]',
            f"1/{model_py.name} does not say which parameters it reads",
            "declare PARAMETERS = {...} at its top",
        )


def _known(subject: Subject, known: Collection[str], reader: str) -> Findings:
    for key in subject.message.parameters:
        if key not in known:
            yield subject.error(
                f'parameters["{key}"]',
                f"'{key}' is no parameter of {reader}, which would ignore it",
                _suggest(key, known),
            )


def _whole_numbers(subject: Subject) -> Findings:
    for key in WHOLE_NUMBERS:
        if key in subject.message.parameters:
            value = subject.message.parameters[key].string_value
            if (key, value) == ("rows_per_run", "auto"):
                yield from _measured_rows(subject)
            elif not value.isdecimal():
                yield subject.error(
                    f'parameters["{key}"].value',
                    f"{key} is '{value}'",
                    'write a whole number in quotes, as string_value: "1"',
                )


def _measured_rows(subject: Subject) -> Findings:
    for tensor in subject.message.input:
        if min(tensor.dims, default=0) < 0:
            yield subject.error(
                'parameters["rows_per_run"].value',
                f"rows_per_run is 'auto', but input '{tensor.name}' has dims {list(tensor.dims)}: what is fastest "
                "depends on its size, and the embedded server would not load the model",
                "write a number of rows",
            )


def _accelerators(subject: Subject, message: Any) -> Findings:
    accelerators = message.optimization.execution_accelerators
    for index, accelerator in enumerate(accelerators.gpu_execution_accelerator):
        field = f"optimization.execution_accelerators.gpu_execution_accelerator[{index}]"
        if accelerator.name not in ("tensorrt", "cuda"):
            yield subject.error(
                f"{field}.name", f"there is no GPU accelerator '{accelerator.name}'", "write tensorrt or cuda"
            )
        elif accelerator.name == "tensorrt":
            for key in accelerator.parameters:
                if key not in TENSORRT_PROVIDER:
                    yield subject.error(
                        f'{field}.parameters["{key}"]',
                        f"'{key}' is no parameter of the TensorRT accelerator: the model would not load",
                        _suggest(key, TENSORRT_PROVIDER),
                    )


def _suggest(key: str, known: Collection[str]) -> str:
    close = get_close_matches(key, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known are {', '.join(sorted(known)) or 'none'}"
